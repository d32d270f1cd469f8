"""Which crystals of a large set are stable: how the table of known phases was made.

from ase_crystalformer.data.readers import load
from ase_crystalformer.known_phases import write_known_phases
from ase_crystalformer.survey import stable_phases

write_known_phases("known_phases.csv.gz", stable_phases(load("mp_labelled", "data")))
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ase_crystalformer.errors import BadStructure
from ase_crystalformer.known_phases import Phase
from ase_crystalformer.stability import ConvexHull, corrected_entry
from ase_crystalformer.structures import Crystal

if TYPE_CHECKING:
    from pymatgen.entries.computed_entries import ComputedEntry

    from ase_crystalformer.data.crystals import LabelledCrystal

POLYMORPHS = 3
"""How many of a formula are corrected: the lowest before need not be the lowest after."""

ON_THE_HULL = 1e-6
"""eV/atom."""


def stable_phases(crystals: "Iterable[LabelledCrystal]") -> list[Phase]:
    """Find the crystals on the convex hull of a set.

    Where the ground state of an element is not in the set, its energy is that of another crystal
    of the element less its formation energy. Crystals with elements that the set does not hold
    pure, or that Materials Project's corrections do not know, are left out.

    Args:
        crystals: With ``energy_per_atom``, uncorrected; others are passed over.
    """
    by_size: dict[int, list[ComputedEntry]] = defaultdict(list)
    for entry in _lowest(crystals):
        by_size[len(entry.elements)].append(entry)
    stable: list[ComputedEntry] = []
    for _, entries in sorted(by_size.items()):
        # Phases of fewer elements that are not stable hold nothing up.
        hull = ConvexHull([*stable, *entries])
        stable += [entry for entry in entries if _holds(hull, entry)]
    return [
        Phase(entry.reduced_formula, entry.energy_per_atom, str(entry.entry_id)) for entry in stable
    ]


def _holds(hull: ConvexHull, entry: "ComputedEntry") -> bool:
    """Say whether an entry is on the hull."""
    try:
        return hull.above(entry) < ON_THE_HULL
    except BadStructure:
        return False


def _lowest(crystals: "Iterable[LabelledCrystal]") -> "Iterator[ComputedEntry]":
    """Correct the lowest few crystals of every formula, and yield the lowest of them."""
    known: dict[str, list[LabelledCrystal]] = defaultdict(list)
    for crystal in crystals:
        if "energy_per_atom" in crystal.labels:
            known[_formula(crystal)].append(crystal)
    for polymorphs in known.values():
        few = heapq.nsmallest(POLYMORPHS, polymorphs, key=_energy_per_atom)
        try:
            entries = [_entry(crystal) for crystal in few]
        except BadStructure:
            continue
        yield min(entries, key=lambda entry: entry.energy_per_atom)


def _energy_per_atom(crystal: "LabelledCrystal") -> float:
    """Uncorrected energy; of an element, that of its ground state where it is known to be lower."""
    energy = float(crystal.labels["energy_per_atom"])
    if len(set(crystal.species.tolist())) > 1:
        return energy
    return energy - max(0.0, float(crystal.labels.get("formation_energy_per_atom", 0.0)))


def _entry(crystal: "LabelledCrystal") -> "ComputedEntry":
    cell = Crystal(crystal.species, crystal.positions, crystal.cell, crystal.periodic)
    return corrected_entry(cell, _energy_per_atom(crystal) * crystal.atoms, name=crystal.id)


def _formula(crystal: "LabelledCrystal") -> str:
    from ase.symbols import Symbols

    return str(Symbols(crystal.species).formula.reduce()[0].format("hill"))
