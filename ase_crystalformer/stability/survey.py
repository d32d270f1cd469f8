"""Which crystals of a large set are stable: how the table of known phases was made.

from ase_crystalformer.data.readers import load
from ase_crystalformer.stability.known_phases import write_known_phases
from ase_crystalformer.stability.survey import stable_phases

write_known_phases("known_phases.csv.gz", stable_phases(load("mp_labelled", "data")))

What came out, and of what, is in ``data/known_phases.md``.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ase_crystalformer.errors import BadStructure
from ase_crystalformer.stability import corrected_entry
from ase_crystalformer.stability.known_phases import Phase
from ase_crystalformer.structures import Crystal

if TYPE_CHECKING:
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

    from ase_crystalformer.data.crystals import LabelledCrystal

ON_THE_HULL = 1e-6
"""eV/atom."""

AGREEMENT = 0.05
"""How far energies and formation energies may contradict each other, eV/atom."""


def stable_phases(crystals: "Iterable[LabelledCrystal]") -> list[Phase]:
    """Find the crystals on the convex hull of a set.

    Where the ground state of an element is not in the set, its energy is that of another crystal
    of the element less its formation energy. Crystals with elements that the set does not hold
    pure, or that Materials Project's corrections do not know, are left out, and so is what
    ``trusted`` leaves out.

    Args:
        crystals: With ``energy_per_atom``, uncorrected, and ``formation_energy_per_atom`` by the
            corrections of 2012.
    """
    return on_the_hull(lowest(trusted(crystals)))


def trusted(crystals: "Iterable[LabelledCrystal]") -> "list[LabelledCrystal]":
    """Keep the crystals whose formation energy follows from their energy.

    One energy that is far too low would make all its neighbours unstable. So an energy counts only
    if the formation energy of the crystal, which Materials Project told by its corrections of 2012,
    is within 0.05 eV/atom of what comes out of the energy by these corrections.
    """
    known = []
    for crystal in crystals:
        if "energy_per_atom" in crystal.labels and (_is_element(crystal) or _has_both(crystal)):
            try:
                known.append((crystal, _energy_of_2012(crystal)))
            except BadStructure:
                continue
    pure: dict[int, float] = {}
    for crystal, energy in known:
        if _is_element(crystal):
            number, ground = int(crystal.species[0]), energy - max(0.0, _formation_energy(crystal))
            pure[number] = min(ground, pure.get(number, ground))
    return [
        crystal
        for crystal, energy in known
        if abs(energy - _formation_energy(crystal) - _mean_of(pure, crystal)) < AGREEMENT
    ]


def lowest(crystals: "Iterable[LabelledCrystal]") -> "Iterator[ComputedEntry]":
    """Correct crystals, and keep the lowest polymorph of each formula."""
    known: dict[str, ComputedStructureEntry] = {}
    for crystal in crystals:
        try:
            entry = _entry(crystal)
        except BadStructure:
            continue
        formula = entry.reduced_formula
        if formula not in known or entry.energy_per_atom < known[formula].energy_per_atom:
            known[formula] = entry
    yield from known.values()


def on_the_hull(entries: "Iterable[ComputedEntry]") -> list[Phase]:
    """Keep the entries that no mixture of others is below; the corners of convex hulls.

    Systems of few elements come first: what is not stable among few holds nothing up among more.
    """
    systems: dict[frozenset[str], list[_Point]] = defaultdict(list)
    for entry in entries:
        point = _Point.of(entry)
        systems[frozenset(point.shares)].append(point)
    stable: dict[frozenset[str], list[_Point]] = {}
    for system in sorted(systems, key=len):
        parts = (combinations(sorted(system), size) for size in range(1, len(system)))
        known = [one for part in chain(*parts) for one in stable.get(frozenset(part), ())]
        stable[system] = _corners(sorted(system), known, systems[system])
    return [Phase(p.formula, p.energy, p.id) for points in stable.values() for p in points]


class _Point(NamedTuple):
    """A phase in a diagram: shares of elements and energy per atom, eV."""

    formula: str
    shares: dict[str, float]
    energy: float
    id: str

    @classmethod
    def of(cls, entry: "ComputedEntry") -> "_Point":
        amounts = entry.composition.get_el_amt_dict()
        total = sum(amounts.values())
        shares = {element: amount / total for element, amount in amounts.items()}
        return cls(entry.reduced_formula, shares, entry.energy_per_atom, str(entry.entry_id))


def _corners(elements: list[str], known: list[_Point], new: list[_Point]) -> list[_Point]:
    """Keep those of the new points that are corners of the lower hull of all."""
    from scipy.spatial import ConvexHull as Hull

    if len(elements) == 1:
        return [min(new, key=lambda one: one.energy)]
    pure = {next(iter(one.shares)): one.energy for one in known if len(one.shares) == 1}
    if len(pure) < len(elements):
        return []

    def formation(one: _Point) -> float:
        return one.energy - sum(share * pure[name] for name, share in one.shares.items())

    new = [one for one in new if formation(one) < -ON_THE_HULL]
    if not new:
        return []
    points = np.array(
        [
            [*(one.shares.get(name, 0.0) for name in elements[1:]), formation(one)]
            for one in [*known, *new]
        ]
    )
    hull = Hull(points)
    corners = set(hull.simplices[hull.equations[:, -2] < 0].flatten().tolist())
    return [one for number, one in enumerate(new, start=len(known)) if number in corners]


def _is_element(crystal: "LabelledCrystal") -> bool:
    return len(set(crystal.species.tolist())) == 1


def _has_both(crystal: "LabelledCrystal") -> bool:
    return "formation_energy_per_atom" in crystal.labels


def _formation_energy(crystal: "LabelledCrystal") -> float:
    """Formation energy, eV/atom; an element of which nobody says it is in its ground state."""
    return float(crystal.labels.get("formation_energy_per_atom", 0.0))


def _mean_of(pure: dict[int, float], crystal: "LabelledCrystal") -> float:
    """Energy of the elements of a crystal, eV/atom; NaN where one is not known."""
    return float(np.mean([pure.get(int(number), np.nan) for number in crystal.species]))


def _entry(crystal: "LabelledCrystal", *, corrected: bool = True) -> "ComputedStructureEntry":
    """Make the entry of a crystal, by the corrections of 2020; take an element to rest."""
    cell = Crystal(crystal.species, crystal.positions, crystal.cell, crystal.periodic)
    energy = float(crystal.labels["energy_per_atom"])
    if corrected and _is_element(crystal):
        energy -= max(0.0, _formation_energy(crystal))
    return corrected_entry(cell, energy * crystal.atoms, name=crystal.id, corrected=corrected)


def _energy_of_2012(crystal: "LabelledCrystal") -> float:
    """Energy by Materials Project's corrections of 2012, eV/atom."""
    entry = _entry(crystal, corrected=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if _scheme_of_2012().process_entry(entry) is None:
            raise BadStructure(f"{crystal.id} does not fit Materials Project's scheme of 2012.")
    return float(entry.energy_per_atom)


@cache
def _scheme_of_2012() -> Any:
    from pymatgen.entries.compatibility import MaterialsProjectCompatibility

    return MaterialsProjectCompatibility()
