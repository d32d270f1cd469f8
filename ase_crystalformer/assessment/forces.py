"""Errors of forces and stresses beside DFT, by data set and by element.

The frames are those the bundled potential was not trained on: 5 % of the sets of DFT molecular
dynamics and displacements, in whole runs; 5 % of the crystals with equations of state; and all
phonon displacements, which no model was trained on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_crystalformer.assessment.benchmark import Benchmark, Seed, Statistic, atoms_of
from ase_crystalformer.assessment.deviations import Deviation, pooled, told
from ase_crystalformer.assessment.statistics import statistic
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.holdout import split_by_block, split_by_series
from ase_crystalformer.data.potential import RUNS, SEED
from ase_crystalformer.data.readers import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Of these crystals forces vanish by symmetry, whatever the potential; their stress is measured.
FORCELESS = "eos_vasp_pbe"

#: Of these frames forces are small by design, 0.01 Å from rest: an error relative to them is large.
NEAR_REST = "phonon_displacements"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which frames are measured.

    Attributes:
        split_seed: Chose what was held out of training. The default is that of the bundled
            potential; for a model of your own, the seed of its recipe.
    """

    split_seed: Seed = SEED


@dataclass(frozen=True, kw_only=True)
class Row:
    """Errors of one frame.

    Attributes:
        source: Its data set.
        elements: Which it holds.
        forces: By element, of every component, eV/Å; empty where symmetry leaves none.
        stress: Of the nine components, eV/Å³; ``None`` without a label.
    """

    source: str
    elements: list[str]
    forces: dict[str, Deviation]
    stress: Deviation | None


def measure(calculator: Any, crystal: LabelledCrystal, _: Options) -> Row:
    """Compute one frame and compare it with its labels."""
    atoms = atoms_of(crystal)
    atoms.calc = calculator
    forces, labels = atoms.get_forces(), np.asarray(crystal.labels["forces"])
    symbols = np.array(atoms.get_chemical_symbols())
    elements = sorted({str(symbol) for symbol in symbols})
    by_element = {}
    if crystal.source != FORCELESS:
        for element in elements:
            own = symbols == element
            by_element[element] = Deviation.of(forces[own], labels[own])
    stress = None
    if "stress" in crystal.labels:
        stress = Deviation.of(atoms.get_stress(voigt=False), crystal.labels["stress"])
    return Row(source=crystal.source, elements=elements, forces=by_element, stress=stress)


def summarise(rows: Sequence[Row]) -> list[Statistic]:
    """Average over each set and over each element; sets are too different to pool them all.

    What is averaged over sets is the error relative to the mean size of a set's labels. An
    element's stress error is that of the frames that hold it.
    """
    found = [_relative(rows)]
    for source in sorted({row.source for row in rows}):
        same = [row for row in rows if row.source == source]
        found += _of([one for row in same for one in row.forces.values()], same, source)
    for element in sorted({element for row in rows for element in row.elements}):
        holding = [row for row in rows if element in row.elements]
        own = [row.forces[element] for row in holding if element in row.forces]
        found += _of(own, holding, element)
    return found


def _relative(rows: Sequence[Row]) -> Statistic:
    """Mean force error over mean force, averaged over the sets away from rest."""
    sums = [
        pooled(one for row in rows if row.source == source for one in row.forces.values())
        for source in {row.source for row in rows} - {NEAR_REST, FORCELESS}
    ]
    ratios = [one.absolute / one.label for one in sums if one.label]
    return statistic("force MAE over mean force, mean of sets", "1", ratios)


def _of(forces: Sequence[Deviation], rows: Sequence[Row], group: str) -> list[Statistic]:
    """Force errors, and the stress errors of whole frames."""
    stresses = [row.stress for row in rows if row.stress is not None]
    return [
        *told("force", "eV/Å", forces, group),
        *told("stress", "meV/Å³", stresses, group, scale=1000.0),
    ]


def draw(figure: "Figure", rows: Sequence[Row]) -> None:
    """Mean force errors of every set, and of every element, beside the mean size of forces."""
    left, right = figure.subplots(1, 2, width_ratios=[1, 3])
    sources = sorted({row.source for row in rows if row.forces})
    elements = sorted({element for row in rows for element in row.forces})
    by_source = [[d for r in rows if r.source == s for d in r.forces.values()] for s in sources]
    by_element = [[r.forces[e] for r in rows if e in r.forces] for e in elements]
    for axes, names, groups in ((left, sources, by_source), (right, elements, by_element)):
        sums = [pooled(group) for group in groups]
        axes.grid(axis="x", color="0.9", linewidth=0.7)
        labels = [one.label / one.n for one in sums]
        errors = [one.absolute / one.n for one in sums]
        axes.plot(names, labels, "_", color="0.4", markersize=9, mew=1.5, label="of labels")
        axes.plot(names, errors, "o", color="C0", markersize=4, label="of errors")
        axes.tick_params(axis="x", rotation=90, labelsize=7)
        scale = "log" if max([*labels, *errors], default=1) > 0 else "linear"
        axes.set(ylabel="mean size of components (eV/Å)", yscale=scale)
        axes.set_axisbelow(True)
    right.legend()


def _held_out(data: Path, options: Options) -> Iterator[LabelledCrystal]:
    """Read frames that were not trained on, each named after its set and itself."""
    sets = [split_by_block(load(name, data), options.split_seed) for name in RUNS]
    sets.append(split_by_series(load("eos_vasp_pbe", data), options.split_seed))
    for frame in chain.from_iterable(sets):
        if frame.split == "val":
            yield replace(frame, id=f"{frame.source}/{frame.id}")
    for frame in load("phonon_displacements", data):
        yield replace(frame, id=f"{frame.source}/{frame.id}")


FORCES = Benchmark(
    name="forces",
    about="force and stress errors on held-out DFT frames, by set and by element",
    row=Row,
    options=Options,
    crystals=_held_out,
    measure=measure,
    summarise=summarise,
    draw=draw,
)
