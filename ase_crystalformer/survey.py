"""Which crystals of a large set are stable: how the table of known phases was made.

from ase_crystalformer.data.readers import load
from ase_crystalformer.known_phases import write_known_phases
from ase_crystalformer.survey import stable_phases

write_known_phases("known_phases.csv.gz", stable_phases(load("mp_labelled", "data")))
"""

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

ON_THE_HULL = 1e-6
"""eV/atom."""


def stable_phases(crystals: "Iterable[LabelledCrystal]") -> list[Phase]:
    """Find the crystals on the convex hull of a set.

    Where the ground state of an element is not in the set, its energy is that of another crystal
    of the element less its formation energy. Crystals with elements that the set does not hold
    pure, or that Materials Project's corrections do not know, are left out.

    Args:
        crystals: With ``energy_per_atom``, uncorrected, and ``formation_energy_per_atom``, which
            chooses among polymorphs; those without the first are passed over.
    """
    return on_the_hull(lowest(crystals))


def lowest(crystals: "Iterable[LabelledCrystal]") -> "Iterator[ComputedEntry]":
    """Correct the lowest polymorph of every element, and of every compound that gains energy."""
    known: dict[str, LabelledCrystal] = {}
    for crystal in crystals:
        if "energy_per_atom" not in crystal.labels:
            continue
        formula = _formula(crystal)
        if formula not in known or _rank(crystal) < _rank(known[formula]):
            known[formula] = crystal
    for crystal in known.values():
        is_element = len(set(crystal.species.tolist())) == 1
        if is_element or _formation_energy(crystal) < 0:
            try:
                yield _entry(crystal, is_element=is_element)
            except BadStructure:
                continue


def on_the_hull(entries: "Iterable[ComputedEntry]") -> list[Phase]:
    """Keep the entries that no mixture of others is below."""
    by_size: dict[int, list[ComputedEntry]] = defaultdict(list)
    for entry in entries:
        by_size[len(entry.elements)].append(entry)
    stable: list[ComputedEntry] = []
    for _, some in sorted(by_size.items()):
        hull = ConvexHull([*stable, *some])  # what is unstable holds nothing up
        stable += [entry for entry in some if _holds(hull, entry)]
    return [
        Phase(entry.reduced_formula, entry.energy_per_atom, str(entry.entry_id)) for entry in stable
    ]


def _holds(hull: ConvexHull, entry: "ComputedEntry") -> bool:
    try:
        return hull.above(entry) < ON_THE_HULL
    except BadStructure:
        return False


def _formation_energy(crystal: "LabelledCrystal") -> float:
    """Formation energy, eV/atom; as if it gained a little where nobody says."""
    return float(crystal.labels.get("formation_energy_per_atom", -ON_THE_HULL))


def _rank(crystal: "LabelledCrystal") -> tuple[bool, float]:
    """Tell which of two polymorphs is lower; those with a formation energy go first."""
    labels = crystal.labels
    known = "formation_energy_per_atom" in labels
    return not known, float(labels["formation_energy_per_atom" if known else "energy_per_atom"])


def _entry(crystal: "LabelledCrystal", *, is_element: bool) -> "ComputedEntry":
    """Correct a crystal; take an element to its ground state."""
    cell = Crystal(crystal.species, crystal.positions, crystal.cell, crystal.periodic)
    energy = float(crystal.labels["energy_per_atom"])
    if is_element:
        energy -= max(0.0, _formation_energy(crystal))
    return corrected_entry(cell, energy * crystal.atoms, name=crystal.id)


def _formula(crystal: "LabelledCrystal") -> str:
    from ase.symbols import Symbols

    return str(Symbols(crystal.species).formula.reduce()[0].format("hill"))
