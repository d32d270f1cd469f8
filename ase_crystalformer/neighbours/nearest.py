"""The graph of the ComFormer paper: nearest neighbours and three lattice vectors, repaired.

Source:
    Yan, Fu, Qian, Qian, Ji, "Complete and efficient graph transformers for crystal material
    property prediction", ICLR 2024, section 3.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ase_crystalformer.neighbours.search import (
    TOUCHING,
    Backend,
    Pairs,
    neighbour_pairs,
    pair_vectors,
    sort_pairs,
    squared_length,
)
from ase_crystalformer.neighbours.symmetry import primitive
from ase_crystalformer.structures import Crystal

GROWTH = 1.3
"""Factor by which the search radius grows until every atom has found enough neighbours."""

_WAVE = np.array([0.71, 1.13, 1.67])
"""1/Å. Arbitrary and unrelated numbers, so that only choices equal by symmetry score the same."""


@dataclass(frozen=True)
class Nearest:
    """The nearest neighbours of each atom, and its own images along three lattice vectors.

    The graph is that of the primitive cell, however the crystal is written. Atoms i and j are
    joined if one is among the nearest of the other. Every atom is joined to its images one step
    forth and back along the lattice vectors e1, e2, e3, which are the ``cell`` of the graph: the
    shortest, the shortest not collinear with it, the shortest not coplanar with both; right-handed,
    e2 and e3 at no obtuse angle to e1.

    Four things differ from the published code, whose graph depends on how the crystal is written:
    the cell is reduced first; neighbours as far as the last one are kept together; an atom and its
    own image are joined once in each direction, like any other pair, not twice; and where lattice
    vectors are equally long, the choice follows from the surroundings of the atoms.

    The graph still jumps when neighbours change their order: it is for properties, not for forces.

    Attributes:
        count: Each atom has at least so many neighbours.
        cutoff: Å. Radius at which the search for them starts; it does not change the graph.
        tolerance: Å. Distances and lattice vectors that differ by less count as equal.
    """

    count: int = 25
    cutoff: float = 4.0
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.count < 1 or not self.cutoff > 0 or not self.tolerance >= 0:
            raise ValueError(f"{self}: count >= 1, cutoff > 0 and tolerance >= 0 are needed.")


def nearest_pairs(crystal: Crystal, rule: Nearest, backend: Backend) -> tuple[Crystal, Pairs]:
    """Return the primitive crystal on its lattice vectors e1, e2, e3, and the pairs of the rule.

    Raises:
        BadStructure: The crystal does not repeat in three directions, or atoms lie on each other.
    """
    neighbour_pairs(crystal, TOUCHING, backend)
    crystal = primitive(crystal)
    pairs = _shells(crystal, rule, backend)
    crystal = replace(crystal, cell=_lattice_vectors(crystal, pairs, rule.tolerance))
    return crystal, _with_lattice_steps(crystal, _shells(crystal, rule, backend))


def _shells(crystal: Crystal, rule: Nearest, backend: Backend) -> Pairs:
    """Join i and j if either is among the ``count`` nearest of the other, ties included."""
    radius = rule.cutoff
    while True:
        pairs = neighbour_pairs(crystal, radius, backend)
        distance = np.sqrt(squared_length(pairs.vector))
        found = np.bincount(pairs.receiver, minlength=len(crystal.species))
        if found.min() >= rule.count:
            first = np.cumsum(found) - found
            ranked = distance[np.lexsort((distance, pairs.receiver))]
            reach = ranked[first + rule.count - 1] + rule.tolerance
            if reach.max() < radius:
                break
        radius *= GROWTH
    kept = distance <= np.maximum(reach[pairs.receiver], reach[pairs.sender])
    return Pairs(*(column[kept] for column in pairs))


def _with_lattice_steps(crystal: Crystal, pairs: Pairs) -> Pairs:
    """Join every atom to its images one step forth and back along each cell vector, once."""
    step = (pairs.receiver == pairs.sender) & (np.abs(pairs.image).sum(axis=1) == 1)
    atoms = np.arange(len(crystal.species))
    steps = np.vstack([np.eye(3, dtype=np.int64), -np.eye(3, dtype=np.int64)])
    itself, image = np.repeat(atoms, 6), np.tile(steps, (len(atoms), 1))
    added = Pairs(itself, itself, image, pair_vectors(crystal, itself, itself, image))
    columns = zip(pairs, added, strict=True)
    joined = Pairs(*(np.concatenate([old[~step], new]) for old, new in columns))
    return sort_pairs(joined, len(atoms))


def _lattice_vectors(crystal: Crystal, pairs: Pairs, tolerance: float) -> Float[ndarray, "3 3"]:
    """Choose e1, e2, e3; see ``Nearest``.

    Of the choices that lengths, angles and handedness leave, take the one from which the
    surroundings of the atoms score highest. Choices that score the same are turned into each other
    by a rotation of the crystal onto itself, and give the same graph.
    """
    choices = _most_acute(_shortest_bases(crystal.cell, tolerance), tolerance)
    return choices[np.argmax([_score(basis, crystal, pairs) for basis in choices])]


def _shortest_bases(cell: Float[ndarray, "3 3"], tolerance: float) -> Float[ndarray, "choices 3 3"]:
    """Return every right-handed basis made of shortest lattice vectors.

    The rows of a Minkowski-reduced cell are as long as e1, e2, e3 must be, and no vector of such
    length has a coefficient beyond 1 in it.
    """
    from ase.geometry.minkowski_reduction import minkowski_reduce

    reduced, _ = minkowski_reduce(cell)
    vectors = np.array(list(product((-1, 0, 1), repeat=3))) @ reduced
    length = np.linalg.norm(vectors, axis=1)
    wanted = np.sort(np.linalg.norm(reduced, axis=1))
    rows = [np.flatnonzero(np.abs(length - each) <= tolerance) for each in wanted]
    bases = vectors[np.array(list(product(*rows)))]
    return bases[np.linalg.det(bases) > 0.5 * abs(np.linalg.det(cell))]


def _most_acute(
    bases: Float[ndarray, "choices 3 3"], tolerance: float
) -> Float[ndarray, "fewer 3 3"]:
    """Keep bases with e2 and e3 acute to e1, and among them those with the smallest angles."""
    slack = tolerance * np.linalg.norm(bases, axis=-1).max()
    e1, e2, e3 = np.moveaxis(bases, 1, 0)
    first, second, third = ((a * b).sum(axis=-1) for a, b in ((e1, e2), (e1, e3), (e2, e3)))
    bases, total = (
        values[(first >= -slack) & (second >= -slack)] for values in (bases, first + second + third)
    )
    return bases[total >= total.max() - slack]


def _score(basis: Float[ndarray, "3 3"], crystal: Crystal, pairs: Pairs) -> float:
    """Sum up how the neighbours of each atom lie along the basis; the same in any rotated frame."""
    along = pairs.vector @ (basis / np.linalg.norm(basis, axis=1, keepdims=True)).T
    weight = crystal.species[pairs.sender] / squared_length(pairs.vector)
    wave = weight * np.sin(along @ _WAVE + 1.0)
    surroundings = np.bincount(pairs.receiver, wave, minlength=len(crystal.species))
    return float((crystal.species * surroundings**2).sum())
