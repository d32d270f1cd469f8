"""Crystals that make laws bite: whatever real structures can be, and nobody thinks of first."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ase_crystalformer.neighbours import Radius, Rule
from ase_crystalformer.structures import Crystal

STRAIN = np.eye(3) + 0.01 * np.array([[1.0, 0.5, -0.3], [0.5, -0.7, 0.4], [-0.3, 0.4, 0.8]])
"""A deformation of about one per cent, the same in no two directions."""


def general(rule: Rule) -> dict[str, Crystal]:
    """Crystals without any symmetry but their own chirality, as far as the rule can draw them."""
    found = {
        "wurtzite": rattled(wurtzite()),
        "skewed cell": skewed(rattled(rocksalt())),
        "cell smaller than any cutoff": carbon(),
        "left-handed cell": left_handed(rattled(perovskite())),
        "chiral crystal": tellurium(),
    }
    if takes_open_boundaries(rule):
        found |= {"slab": rattled(slab()), "molecule": molecule()}
    return found


def symmetric() -> dict[str, Crystal]:
    """Crystals whose atoms sit at sites of high symmetry, or have equivalent atoms."""
    return {
        "fcc": fcc(),
        "diamond": diamond(),
        "rocksalt": rocksalt(),
        "wurtzite": wurtzite(),
        "perovskite": perovskite(),
        "tellurium": tellurium(),
    }


def takes_open_boundaries(rule: Rule) -> bool:
    """Whether the rule draws graphs of slabs and molecules too."""
    return isinstance(rule, Radius)


def wurtzite() -> Crystal:
    """ZnO, ten per cent stretched, so that no two nuclei repel each other at short range."""
    third, up = 1 / 3, 0.382
    cell = [[3.6, 0, 0], [-1.8, 1.8 * 3**0.5, 0], [0, 0, 5.76]]
    sites = [[third, 2 * third, 0], [2 * third, third, 0.5]]
    sites += [[x, y, z + up] for x, y, z in sites]
    return _periodic([30, 30, 8, 8], sites, cell)


def rocksalt() -> Crystal:
    """NaCl in its primitive cell."""
    return _periodic([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], _face_centred(5.64))


def fcc() -> Crystal:
    """Copper: one atom, and all of its neighbours are itself."""
    return _periodic([29], [[0, 0, 0]], _face_centred(3.61))


def diamond() -> Crystal:
    """Silicon in its primitive cell."""
    return _periodic([14, 14], [[0, 0, 0], [0.25, 0.25, 0.25]], _face_centred(5.43))


def perovskite() -> Crystal:
    """SrTiO3: three elements, five atoms."""
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return _periodic([38, 22, 8, 8, 8], sites, 4.1 * np.eye(3))


def tellurium() -> Crystal:
    """Helices of one hand."""
    u, third = 0.269, 1 / 3
    cell = [[4.456, 0, 0], [-2.228, 2.228 * 3**0.5, 0], [0, 0, 5.921]]
    return _periodic([52] * 3, [[u, 0, third], [0, u, 2 * third], [-u, -u, 0]], cell)


def carbon() -> Crystal:
    """One atom that meets itself every two Ångström."""
    return _periodic([6], [[0.3, 0.1, 0.7]], [[1.8, 0.1, 0.0], [0.4, 1.9, -0.2], [-0.3, 0.6, 2.1]])


def slab() -> Crystal:
    """Two layers of aluminium, and no third cell vector."""
    height = 4.05 / 2**0.5
    positions = [[0, 0, 0], [height / 2, height / 2, 4.05 / 2]]
    cell = np.diag([height, height, 0.0])
    return _crystal([13, 13], positions, cell, [True, True, False])


def molecule() -> Crystal:
    """CHFClBr: four different neighbours, one hand."""
    directions = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 3**0.5
    around = directions * np.array([[1.2], [1.5], [1.9], [2.1]])
    return _crystal([6, 1, 9, 17, 35], [[0, 0, 0], *around], np.zeros((3, 3)), [False] * 3)


def alone() -> Crystal:
    """One oxygen atom in empty space."""
    return _crystal([8], [[0.1, 0.2, 0.3]], np.zeros((3, 3)), [False] * 3)


def pair(distance: float) -> Crystal:
    """Two atoms, ``distance`` Å apart, in empty space."""
    along = np.array([0.48, 0.6, 0.64])
    return _crystal([8, 14], [[0, 0, 0], distance * along], np.zeros((3, 3)), [False] * 3)


def rattled(crystal: Crystal, by: float = 0.08, seed: int = 1) -> Crystal:
    """Move every atom by about ``by`` Å along each axis."""
    step = np.random.default_rng(seed).normal(scale=by, size=crystal.positions.shape)
    return replace(crystal, positions=crystal.positions + step)


def transformed(crystal: Crystal, matrix: Float[ndarray, "3 3"]) -> Crystal:
    """Rotate, mirror or strain a crystal."""
    return replace(crystal, positions=crystal.positions @ matrix, cell=crystal.cell @ matrix)


def strained(crystal: Crystal) -> Crystal:
    """Deform a crystal by about one per cent."""
    return transformed(crystal, STRAIN)


def repeated(crystal: Crystal, times: tuple[int, int, int]) -> Crystal:
    """Repeat a crystal along those of its cell vectors along which it is periodic."""
    count = np.where(crystal.periodic, times, 1)
    shifts = np.array(list(np.ndindex(*count))) @ crystal.cell
    positions = (shifts[:, None] + crystal.positions).reshape(-1, 3)
    cell = crystal.cell * count[:, None]
    return Crystal(np.tile(crystal.species, len(shifts)), positions, cell, crystal.periodic)


def recelled(crystal: Crystal, choice: Sequence[Sequence[int]]) -> Crystal:
    """Describe a crystal by other lattice vectors, integer sums of its own."""
    return replace(crystal, cell=np.array(choice, dtype=np.float64) @ crystal.cell)


def skewed(crystal: Crystal) -> Crystal:
    """Describe a crystal by a long and oblique cell."""
    return recelled(crystal, [[1, 0, 0], [2, 1, 0], [-1, 3, 1]])


def left_handed(crystal: Crystal) -> Crystal:
    """Describe a crystal by a cell of negative determinant."""
    return recelled(crystal, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


def _face_centred(a: float) -> Float[ndarray, "3 3"]:
    return a / 2 * (1 - np.eye(3))


def _periodic(species: Any, sites: Any, cell: Any) -> Crystal:
    """Put atoms at fractions of the cell vectors."""
    return _crystal(species, np.array(sites) @ np.array(cell), cell, [True] * 3)


def _crystal(species: Any, positions: Any, cell: Any, periodic: Any) -> Crystal:
    where, vectors = np.array(positions, dtype=float), np.array(cell, dtype=float)
    return Crystal(np.array(species), where, vectors, np.array(periodic))
