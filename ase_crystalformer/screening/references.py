"""Known phases that candidates are held against: a hull the user supplies."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, combinations, groupby
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_crystalformer.errors import BadStructure, CrystalformerError
from ase_crystalformer.screening.store import Result
from ase_crystalformer.stability import ConvexHull, corrected_entry, read_entries

if TYPE_CHECKING:
    from pymatgen.entries.computed_entries import ComputedEntry


DEEP = -0.1
"""eV/atom. Where a compound is this far below its elements, some compound should be known."""


def holds_energies(path: Path) -> bool:
    """Say whether a file of known phases holds energies, not structures to compute them of."""
    if path.suffix == ".json":
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(100_000)
        return '"energy"' in head or '"correction"' in head
    if path.suffix != ".csv":
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return "energy" in file.readline()


def read_references(path: Path, *, corrected: bool) -> "list[ComputedEntry]":
    """Read energies of known phases.

    Args:
        path: A JSON list of pymatgen entries, or a CSV table with the columns ``formula`` and
            ``energy_per_atom`` (eV/atom) or ``energy`` (eV, of the formula as it is written).
        corrected: Put entries of PBE and PBE+U onto Materials Project's corrected scale. Energies
            of a table are taken as they are.

    Raises:
        BadStructure: The file does not hold them.
    """
    if path.suffix == ".json":
        return read_entries(path, corrected=corrected)
    import pandas as pd

    table = pd.read_csv(path)
    column = next((name for name in ("energy_per_atom", "energy") if name in table), None)
    if column is None or "formula" not in table:
        raise BadStructure(
            f"{path} has the columns {', '.join(map(str, table.columns))}; formula and "
            "energy_per_atom (eV/atom) or energy (eV) are needed."
        )
    return [
        _entry(path, formula, energy, per_atom=column == "energy_per_atom")
        for formula, energy in zip(table["formula"], table[column], strict=True)
    ]


def _entry(path: Path, formula: Any, energy: Any, *, per_atom: bool) -> "ComputedEntry":
    from pymatgen.core import Composition
    from pymatgen.entries.computed_entries import ComputedEntry

    try:
        composition = Composition(str(formula))
        total = float(energy) * (composition.num_atoms if per_atom else 1.0)
    except (TypeError, ValueError) as error:
        raise BadStructure(f"{path}, phase {formula!r}: {error}. Correct or remove it.") from error
    if isnan(total):
        raise BadStructure(f"{path}, phase {formula!r}: there is no energy. Add or remove it.")
    return ComputedEntry(composition, total)


def entry_of(text: str, energy: float, *, corrected: bool, name: str | None = None) -> Any:
    """Make the entry of a relaxed structure, as ``encode`` of ``ase.io.jsonio`` wrote it."""
    from ase.io.jsonio import decode

    return corrected_entry(decode(text), energy, name=name, corrected=corrected)


def hold_against(
    known: "Sequence[ComputedEntry] | None",
    waiting: Iterable[tuple[int, str]],
    entry: Callable[[int], Any],
) -> Iterator[tuple[int, Result]]:
    """Tell how far candidates are above the hull of known phases.

    Args:
        known: The phases; ``None`` for those that come with the package.
        waiting: Number and chemical system, such as ``"Cl-Na"``, of each candidate.
        entry: Makes the entry of a candidate.
    """
    in_order = sorted(waiting, key=lambda pair: (pair[1], pair[0]))
    by_system: dict[frozenset[str], list[ComputedEntry]] = defaultdict(list)
    for phase in known or ():
        by_system[frozenset(phase.composition.chemical_system_set)].append(phase)
    for system, members in groupby(in_order, key=lambda pair: pair[1]):
        hull = _hull_of(system.split("-"), by_system, bundled=known is None)
        for number, _ in members:
            yield number, _held(hull, entry, number)


def _hull_of(
    elements: list[str], by_system: "dict[frozenset[str], list[ComputedEntry]]", *, bundled: bool
) -> ConvexHull:
    """Make the hull of one chemical system, to be forgotten with it."""
    parts = chain.from_iterable(combinations(elements, count + 1) for count in range(len(elements)))
    phases = (phase for part in parts for phase in by_system.get(frozenset(part), ()))
    return ConvexHull(phases, known_phases=bundled)


def _held(hull: ConvexHull, entry: Callable[[int], Any], number: int) -> Result:
    try:
        made = entry(number)
        split = hull.decomposition(made)
        told = {
            "e_above_hull": hull.above(made),
            "hull_formation_energy_per_atom": hull.formation_energy(made),
            "decomposes_to": " + ".join(f"{share:.3g} {name}" for name, share in split.items()),
        }
    except CrystalformerError as error:
        return Result.failed(f"{type(error).__name__}: {error}")
    return Result(told=told)


def hull_note(formula: str, above: float, decomposes_to: str) -> str | None:
    """Say that a compound lies deep below a hull of its elements alone; nothing otherwise.

    Args:
        formula: Of the candidate.
        above: Its energy above the hull, eV/atom.
        decomposes_to: The phases of the hull there, as the table tells them.
    """
    from pymatgen.core import Composition

    if above >= DEEP or "-" not in (system := Composition(formula).chemical_system):
        return None
    phases = [part.split()[-1] for part in decomposes_to.split(" + ")]
    if not all(Composition(phase).is_element for phase in phases):
        return None
    return f"The hull knows no stable compound of {system}: e_above_hull is not to be trusted."
