"""Structures that are the same under another name."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ase_crystalformer.neighbours.search import neighbour_pairs
from ase_crystalformer.screening.store import Result
from ase_crystalformer.structures import Crystal

if TYPE_CHECKING:
    from pymatgen.core import Structure

SHELLS = 12
"""How many neighbours of every atom the fingerprint counts."""

ALIKE = 0.05
"""Fraction by which fingerprints of the same structure may differ; sites by twice as much."""

VACUUM = 12.0
"""Å between images along directions that do not repeat."""

MOST_AT_ONCE = 512


def fingerprint(crystal: Crystal) -> list[float]:
    """Mean distance of the first, second, … 12th neighbour of an atom, Å, the nearest first.

    It depends on no choice of cell or order of atoms, and changes at most twice as much as the
    positions. Where fewer neighbours exist, as in molecules, the last distance is repeated.

    Raises:
        BadStructure: Atoms lie on top of each other.

    Source: average minimum distances, Widdowson et al., MATCH 87, 529 (2022), eq. 3.
    """
    atoms = len(crystal.species)
    vectors = crystal.cell[crystal.periodic]
    spread = np.ptp(crystal.positions, axis=0).max() + 1.0
    radius, largest = 4.0, 4 * (spread + sum(np.linalg.norm(vectors, axis=1)) + 4.0)
    while True:
        pairs = neighbour_pairs(crystal, radius)
        found = np.bincount(pairs.receiver, minlength=atoms)
        if found.min() >= SHELLS or radius > largest:
            break
        radius *= 1.4
    distance = np.linalg.norm(pairs.vector, axis=1)
    rows = np.zeros((atoms, SHELLS))
    for atom in range(atoms):
        near = np.sort(distance[pairs.receiver == atom])[:SHELLS]
        rows[atom] = np.pad(near, (0, SHELLS - len(near)), "edge") if len(near) else largest
    mean: list[float] = rows.mean(axis=0).tolist()
    return mean


def find_duplicates(
    told: Iterable[tuple[int, str, list[float]]],
    atoms_of: Callable[[int], str],
    name_of: Callable[[int], str],
    done: Callable[[int], Result | None],
) -> Iterator[tuple[int, Result]]:
    """Find structures that an earlier one resembles: by fingerprint, then by StructureMatcher.

    Args:
        told: Number, formula and fingerprint; of structures that are the same the first stays.
        atoms_of: Reads a structure as ``encode`` of ``ase.io.jsonio`` wrote it.
        name_of: How it is called.
        done: What was found of a number before; such numbers are not yielded again.
    """

    @lru_cache(maxsize=MOST_AT_ONCE)
    def structure(number: int) -> "Structure":
        return _to_pymatgen(atoms_of(number))

    groups: dict[str, list[tuple[int, list[float]]]] = defaultdict(list)
    for number, formula, mark in told:
        groups[formula].append((number, mark))
    for members in groups.values():
        kept = _Kept()
        for number, mark in members:
            known = done(number)
            if known is not None:
                if known.outcome == "passed":
                    kept.add(number, mark)
                continue
            twin = next(
                (n for n in kept.alike(mark) if _same(structure(n), structure(number))), None
            )
            if twin is None:
                kept.add(number, mark)
                yield number, Result()
            else:
                reason = f"The same as {name_of(twin)}."
                yield number, Result(outcome="left out", told={"reason": reason})


class _Kept:
    """Fingerprints of the structures of one composition that are no duplicates."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._marks: Float[ndarray, "room shells"] = np.zeros((16, SHELLS))

    def add(self, number: int, mark: list[float]) -> None:
        if len(self._numbers) == len(self._marks):
            self._marks = np.concatenate([self._marks, np.zeros_like(self._marks)])
        self._marks[len(self._numbers)] = mark
        self._numbers.append(number)

    def alike(self, mark: list[float]) -> list[int]:
        """Numbers of those whose fingerprint is about the same."""
        marks = self._marks[: len(self._numbers)]
        apart = np.abs(marks - mark).max(axis=1, initial=0.0)
        return [self._numbers[row] for row in np.flatnonzero(apart < ALIKE * np.mean(mark))]


def _to_pymatgen(text: str) -> Any:
    from ase.io.jsonio import decode
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms = decode(text)
    if not atoms.pbc.any():
        atoms.set_cell([np.ptp(atoms.positions, axis=0).max() + VACUUM] * 3)
    elif not atoms.pbc.all():
        open_axes = tuple(np.flatnonzero(~atoms.pbc).tolist())
        atoms.center(vacuum=VACUUM / 2, axis=open_axes)
    bare = atoms.copy()
    bare.set_constraint()
    bare.pbc = True
    return AseAtomsAdaptor.get_structure(bare)


def _same(one: "Structure", other: "Structure") -> bool:
    try:
        return bool(_matcher().fit(one, other))
    except ValueError:  # pymatgen cannot reduce the cell of one
        return False


@cache
def _matcher() -> Any:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=ALIKE, stol=2 * ALIKE, angle_tol=3.0, scale=False)
