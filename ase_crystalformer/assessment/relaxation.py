"""Do crystals shaken and strained relax back to where DFT has them?

Reference: relaxed crystals of WBM (H.-C. Wang et al., npj Computational Materials 7, 12 (2021)), or
of the validation part of Materials Project. The energies of both stand on the uncorrected
PBE/PBE+U scale of Materials Project; the error of a calculator on another scale says nothing.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_crystalformer.assessment.benchmark import (
    Benchmark,
    Count,
    NotNegative,
    Positive,
    Statistic,
    atoms_of,
)
from ase_crystalformer.assessment.plots import histogram
from ase_crystalformer.assessment.relaxing import relax_in_place
from ase_crystalformer.assessment.statistics import (
    mean_absolute,
    median_absolute,
    share,
    statistic,
)
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.readers import load

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure


#: Distance counted for a structure that no longer matches: the most that still would.
LOST = 1.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a crystal starts, and when it has arrived.

    Attributes:
        rattle: Spread of the displacement of every coordinate, Å.
        strain: Spread of a random strain along each axis; shears spread by 0.7 of it.
        fmax: Largest force left, eV/Å.
        steps: Steps after which to give up.
    """

    rattle: NotNegative = 0.05
    strain: NotNegative = 0.02
    fmax: Positive = 0.05
    steps: Count = 500


@dataclass(frozen=True, kw_only=True)
class Row:
    """How one crystal relaxed.

    Attributes:
        distance: Root mean square distance of atoms from DFT's, over the cube root of the volume
            per atom; ``None`` if the structures no longer match.
        volume_error: Relative, signed.
        energy_error: Signed, eV/atom.
        energy_gained: Energy at DFT's geometry less that of the end, eV/atom: how far below it the
            potential has its own minimum.
        converged: Whether it arrived.
        steps: How often it moved.
    """

    distance: float | None
    volume_error: float
    energy_error: float | None
    energy_gained: float
    converged: bool
    steps: int


def perturbed(atoms: "Atoms", name: str, options: Options) -> "Atoms":
    """Shake and strain a crystal; the same name is always shaken alike."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    moved = atoms.copy()
    strain = options.strain * generator.normal(size=(3, 3))
    moved.set_cell(moved.cell @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
    moved.positions += options.rattle * generator.normal(size=moved.positions.shape)
    return moved


def distance(one: "Atoms", other: "Atoms") -> float | None:
    """Root mean square distance of matched atoms, over the cube root of the volume per atom."""
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.io.ase import AseAtomsAdaptor

    matcher = StructureMatcher(stol=LOST, scale=False, primitive_cell=False)
    found = matcher.get_rms_dist(*(AseAtomsAdaptor.get_structure(atoms) for atoms in (one, other)))
    return None if found is None else float(found[0])


def measure(calculator: Any, crystal: LabelledCrystal, options: Options) -> Row:
    """Perturb a crystal, relax it, and compare it with what it was."""
    reference = atoms_of(crystal)
    moved = perturbed(reference, crystal.id, options)
    rest = relax_in_place(moved, calculator, fmax=options.fmax, steps=options.steps)
    size = crystal.atoms
    energy = moved.get_potential_energy()
    end = moved.copy()
    reference.calc = calculator
    known = crystal.labels.get("energy")
    return Row(
        distance=distance(end, atoms_of(crystal)),
        volume_error=end.get_volume() / crystal.volume - 1,
        energy_error=None if known is None else float(energy - known) / size,
        energy_gained=(reference.get_potential_energy() - energy) / size,
        converged=rest.converged,
        steps=rest.steps,
    )


def summarise(rows: Sequence[Row]) -> list[Statistic]:
    """Average over crystals; those that did not converge count as they ended."""
    volumes = [100 * row.volume_error for row in rows]
    energies = [row.energy_error for row in rows]
    distances = [LOST if row.distance is None else row.distance for row in rows]
    return [
        share("converged", (row.converged for row in rows)),
        statistic("steps, median", "1", (row.steps for row in rows), np.median),
        share("structure kept", (row.distance is not None for row in rows)),
        statistic("distance, mean, 1 if lost", "(V/N)^1/3", distances),
        statistic("distance, median", "(V/N)^1/3", distances, np.median),
        statistic("volume error, mean absolute", "%", volumes, mean_absolute),
        statistic("volume error, median absolute", "%", volumes, median_absolute),
        statistic("volume error, mean", "%", volumes),
        statistic("energy error, mean absolute", "eV/atom", energies, mean_absolute),
        statistic("energy error, mean", "eV/atom", energies),
        statistic("energy gained from DFT geometry", "eV/atom", (r.energy_gained for r in rows)),
    ]


def draw(figure: "Figure", rows: Sequence[Row]) -> None:
    """Spread of the errors and of the steps."""
    left, middle, right = figure.subplots(1, 3)
    histogram(left, [100 * row.volume_error for row in rows], "volume error (%)")
    distances = [row.distance for row in rows if row.distance is not None]
    histogram(middle, distances, "distance from DFT ((V/N)$^{1/3}$)")
    histogram(right, [float(row.steps) for row in rows], "steps")


def _wbm(data: Path, _: Options) -> Iterator[LabelledCrystal]:
    yield from load("wbm_equilibrium", data)


def _materials_project(data: Path, _: Options) -> Iterator[LabelledCrystal]:
    """Cells of the calculation that gave the energy, of the part nothing was trained on."""
    for crystal in load("mp_labelled", data):
        own_cell = crystal.info["structure_source"] == "mp_2018"
        if crystal.split == "val" and own_cell and "energy_per_atom" in crystal.labels:
            energy = crystal.labels["energy_per_atom"] * crystal.atoms
            yield crystal.labelled({"energy": energy})


RELAXATION = Benchmark(
    name="relaxation",
    about="crystals of WBM, perturbed and relaxed: structure, volume, energy, steps",
    row=Row,
    options=Options,
    crystals=_wbm,
    measure=measure,
    summarise=summarise,
    draw=draw,
    count=100,
)

RELAXATION_MP = Benchmark(
    name="relaxation-mp",
    about="the same on Materials Project's validation crystals",
    row=Row,
    options=Options,
    crystals=_materials_project,
    measure=measure,
    summarise=summarise,
    draw=draw,
    count=100,
)
