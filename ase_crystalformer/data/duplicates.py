"""Is this crystal, under another name, already among those?"""

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from ase_crystalformer.data.crystals import LabelledCrystal

#: Volumes per atom closer than this fraction are the same.
SAME_VOLUME = 0.02

#: How far atoms may sit from where symmetry puts them, Å.
SYMMETRY_TOLERANCE = 0.1

Composition = tuple[tuple[int, int], ...]


class Duplicates:
    """Crystals that others are compared with: by composition, volume per atom and space group."""

    def __init__(self, crystals: Iterable[LabelledCrystal]) -> None:
        self._known: dict[Composition, list[LabelledCrystal]] = defaultdict(list)
        self._space_groups: dict[str, int] = {}
        for crystal in crystals:
            self._known[composition(crystal)].append(crystal)

    def __contains__(self, crystal: LabelledCrystal) -> bool:
        near = [
            known
            for known in self._known.get(composition(crystal), ())
            if _same_volume(known, crystal)
        ]
        if not near:
            return False
        group = space_group(crystal)
        return any(self._space_group(known) == group for known in near)

    def _space_group(self, known: LabelledCrystal) -> int:
        if known.id not in self._space_groups:
            self._space_groups[known.id] = space_group(known)
        return self._space_groups[known.id]


def composition(crystal: LabelledCrystal) -> Composition:
    """Reduced composition: pairs of atomic number and count, without a common divisor."""
    species, counts = np.unique(crystal.species, return_counts=True)
    divisor = math.gcd(*counts.tolist())
    return tuple(zip(species.tolist(), (counts // divisor).tolist(), strict=True))


def space_group(crystal: LabelledCrystal) -> int:
    """Number of the space group; 0 where none is found."""
    import spglib

    fractions = crystal.positions @ np.linalg.inv(crystal.cell)
    cell = (crystal.cell, fractions, crystal.species)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            found = spglib.get_symmetry_dataset(cell, symprec=SYMMETRY_TOLERANCE)
        except spglib.SpglibError:
            return 0
    return 0 if found is None else int(found.number)


def _same_volume(one: LabelledCrystal, other: LabelledCrystal) -> bool:
    ratio = (one.volume / one.atoms) / (other.volume / other.atoms)
    return abs(ratio - 1) < SAME_VOLUME
