"""Energy that holds the elements together: crystals against isolated atoms.

Reference: measured cohesive energies (``data.references``). PBE is off by 0.2 to 0.3 eV/atom,
and a potential that was given isolated atoms has seen these numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ase_crystalformer.assessment.benchmark import Benchmark, Positive, Statistic, atoms_of, label
from ase_crystalformer.assessment.plots import parity
from ase_crystalformer.assessment.statistics import mean_absolute, share, statistic
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.readers import load
from ase_crystalformer.data.references import cohesive_energies

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Options:
    """How atoms are taken apart and pressed together.

    Attributes:
        closest: Distance at which two atoms must push each other apart, Å.
    """

    closest: Positive = 0.7


@dataclass(frozen=True, kw_only=True)
class Row:
    """One element.

    Attributes:
        element: Its symbol.
        cohesion: Energy of an isolated atom above that of the crystal, eV/atom.
        reference: The same, measured.
        push: Force that drives two atoms apart at the closest distance, eV/Å.
    """

    element: str
    cohesion: float
    reference: float
    push: float


def measure(calculator: Any, crystal: LabelledCrystal, options: Options) -> Row:
    """Compare a crystal at rest with an atom alone, and press two atoms together."""
    from ase import Atoms

    atoms = atoms_of(crystal)
    atoms.calc = calculator
    bound = atoms.get_potential_energy() / len(atoms)
    symbol = atoms.get_chemical_symbols()[0]
    alone = Atoms(symbol)
    alone.calc = calculator
    free = alone.get_potential_energy()
    pair = Atoms([symbol] * 2, positions=[(0, 0, 0), (options.closest, 0, 0)])
    pair.calc = calculator
    return Row(
        element=symbol,
        cohesion=float(free - bound),
        reference=label(crystal, "cohesive_energy"),
        push=float(pair.get_forces()[1, 0]),
    )


def elements(data: Path, _: Options) -> Iterable[LabelledCrystal]:
    """The most stable crystal of every element with a measured cohesive energy."""
    from ase.data import chemical_symbols

    cohesive = cohesive_energies()
    stable: dict[str, LabelledCrystal] = {}
    for crystal in load("mp_labelled", data):
        kinds = np.unique(crystal.species)
        if len(kinds) > 1 or "energy_per_atom" not in crystal.labels:
            continue
        symbol = chemical_symbols[kinds[0]]
        best = stable.get(symbol)
        lower = best is None or crystal.labels["energy_per_atom"] < best.labels["energy_per_atom"]
        if symbol in cohesive and lower:
            stable[symbol] = crystal
    for symbol, crystal in stable.items():
        yield replace(crystal, labels={"cohesive_energy": cohesive[symbol]}, id=symbol)


def summarise(rows: Sequence[Row]) -> list[Statistic]:
    """Average over elements."""
    errors = [row.cohesion - row.reference for row in rows]
    what = "cohesive energy"
    return [
        statistic(f"{what} error, mean absolute", "eV/atom", errors, mean_absolute),
        statistic(f"{what} error, mean", "eV/atom", errors),
        statistic(f"{what} error, largest", "eV/atom", errors, _largest),
        statistic(f"{what} measured, mean", "eV/atom", [row.reference for row in rows]),
        share("elements whose atoms push each other apart", (row.push > 0 for row in rows)),
    ]


def _largest(values: NDArray[np.float64]) -> float:
    return float(np.abs(values).max())


def draw(figure: "Figure", rows: Sequence[Row]) -> None:
    """Cohesive energies beside the measured ones."""
    reference = [row.reference for row in rows]
    parity(figure.subplots(), [row.cohesion for row in rows], reference, "cohesion (eV/atom)")


COHESION = Benchmark(
    name="cohesion",
    about="cohesive energies of the elements, and whether atoms that overlap push each other apart",
    row=Row,
    options=Options,
    crystals=elements,
    measure=measure,
    summarise=summarise,
    draw=draw,
)
