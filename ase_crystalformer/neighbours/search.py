"""All pairs of atoms and images closer than a cutoff, from whichever search routine is installed.

The three routines only propose pairs, from a tidied copy of the crystal and a radius slightly too
large. Which pairs count, and in which order, is decided here by one formula, so that the answer
does not depend on the routine.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from ase_crystalformer.errors import BadStructure, unknown_name
from ase_crystalformer.structures import Crystal

Backend: TypeAlias = Literal["auto", "pymatgen", "vesin", "ase"]

TOUCHING = 0.01
"""Å. Two atoms closer than this are one atom written twice."""

THINNEST = 0.1
"""Å. A crystal that repeats faster than this is no crystal, and its pairs would fill the memory."""

SKEWED = 2.0
"""Length of a cell vector, in heights of the cell along it, from which the cell is reduced."""

MOST_BOXES = 1e5
"""Boxes of one cutoff's width that pymatgen may divide the cell into: it keeps all in memory."""


class Pairs(NamedTuple):
    """Directed pairs, sorted by receiver, sender and image.

    ``vector`` points from the receiver to the image of the sender, Å.
    """

    receiver: Int[ndarray, " pairs"]
    sender: Int[ndarray, " pairs"]
    image: Int[ndarray, "pairs 3"]
    vector: Float[ndarray, "pairs 3"]


def neighbour_pairs(crystal: Crystal, cutoff: float, backend: Backend = "auto") -> Pairs:
    """Find every pair closer than ``cutoff`` Å; an atom is no neighbour of itself, its images are.

    Raises:
        BadStructure: Two atoms lie on top of each other, or the crystal repeats within 0.1 Å.
        UnknownName: There is no such backend.
    """
    frame = _search_frame(crystal, cutoff)
    found = _SEARCHES[_choose(backend, frame)](frame)
    receiver, sender, image = (column.astype(np.int64) for column in found)
    image = (image + frame.wraps[receiver] - frame.wraps[sender]) @ frame.operation
    vector = pair_vectors(crystal, receiver, sender, image)
    squared = squared_length(vector)
    kept = (squared < cutoff * cutoff) & ((squared > 0.0) | (receiver != sender))
    pairs = Pairs(receiver[kept], sender[kept], image[kept], vector[kept])
    pairs = sort_pairs(pairs, len(crystal.species))
    refuse_touching(pairs)
    return pairs


def sort_pairs(pairs: Pairs, atoms: int) -> Pairs:
    """Sort pairs by receiver, sender and image."""
    if not pairs.receiver.size:
        return pairs
    order = _order(pairs, atoms)
    return Pairs(*(column[order] for column in pairs))


def pair_vectors(
    crystal: Crystal,
    receiver: Int[ndarray, " pairs"],
    sender: Int[ndarray, " pairs"],
    image: Int[ndarray, "pairs 3"],
) -> Float[ndarray, "pairs 3"]:
    """Draw each pair from its receiver to the image of its sender, Å.

    Written so that a pair and its reverse are exact negatives of each other, whatever the rounding,
    and both or neither are closer than a cutoff.
    """
    vector = crystal.positions[sender]
    vector -= crystal.positions[receiver]
    step = image.astype(np.float64)
    shift = step[:, :1] * crystal.cell[0]
    shift += step[:, 1:2] * crystal.cell[1]
    shift += step[:, 2:] * crystal.cell[2]
    vector += shift
    return vector


def squared_length(vector: Float[ndarray, "pairs 3"]) -> Float[ndarray, " pairs"]:
    """Square the length of each vector in one fixed order of additions, Å²."""
    x, y, z = vector.T
    return x * x + y * y + z * z


def closer(vector: Float[ndarray, "pairs 3"], cutoff: float) -> Bool[ndarray, " pairs"]:
    """Say which vectors are shorter than ``cutoff`` Å."""
    return squared_length(vector) < cutoff * cutoff


def refuse_touching(pairs: Pairs) -> None:
    """Raise if two atoms lie on top of each other."""
    touching = np.flatnonzero(closer(pairs.vector, TOUCHING))
    if touching.size:
        first = touching[0]
        distance = float(np.linalg.norm(pairs.vector[first]))
        raise BadStructure(
            f"Atoms {pairs.receiver[first]} and {pairs.sender[first]} are {distance:.4f} Å apart "
            f"(image {pairs.image[first].tolist()}); at least {TOUCHING} Å is needed. "
            "Remove the duplicate atom, or check the cell and the periodic directions."
        )


@dataclass(frozen=True, eq=False)
class _Frame:
    """A copy of the crystal that every search routine handles well.

    Atoms are inside the cell, the cell is three-dimensional and not skewed. ``operation`` times the
    crystal's own cell gives the periodic rows of ``cell``; ``wraps`` counts the cells each atom was
    moved down by.
    """

    positions: Float[ndarray, "atoms 3"]
    cell: Float[ndarray, "3 3"]
    periodic: Bool[ndarray, "3"]
    wraps: Int[ndarray, "atoms 3"]
    operation: Int[ndarray, "3 3"]
    radius: float


def _search_frame(crystal: Crystal, cutoff: float) -> _Frame:
    radius = cutoff * (1 + 1e-9) + 1e-8
    cell, operation = _search_cell(crystal)
    along = crystal.positions @ np.linalg.inv(cell)
    wraps = np.where(crystal.periodic, np.floor(along), 0.0)
    along -= wraps
    for axis in np.flatnonzero(~crystal.periodic):
        along[:, axis] = _close_gaps(along[:, axis], 2 * radius)
        length = along[:, axis].max() + 2 * radius
        along[:, axis] /= length
        cell[axis] *= length
    return _Frame(
        positions=along @ cell,
        cell=cell,
        periodic=crystal.periodic,
        wraps=wraps.astype(np.int64),
        operation=operation,
        radius=radius,
    )


def _search_cell(crystal: Crystal) -> tuple[Float[ndarray, "3 3"], Int[ndarray, "3 3"]]:
    """Return a compact cell of the same lattice, unit vectors across its missing directions.

    The second matrix, times the crystal's own cell, gives the periodic rows of the first.
    """
    cell = completed(crystal.cell, crystal.periodic)
    operation = np.eye(3, dtype=np.int64)
    if (np.linalg.norm(cell, axis=1) > SKEWED * _heights(cell)).any():
        from ase.geometry.minkowski_reduction import minkowski_reduce

        _, operation = minkowski_reduce(crystal.cell, crystal.periodic)
        cell = completed(operation @ crystal.cell, crystal.periodic)
    thickness = _heights(cell)[crystal.periodic].min(initial=np.inf)
    if thickness < THINNEST:
        raise BadStructure(
            f"The crystal repeats every {thickness:.1e} Å; at least {THINNEST} Å is needed. "
            "Check the unit of the cell vectors."
        )
    return cell, operation


def completed(cell: Float[ndarray, "3 3"], periodic: Bool[ndarray, "3"]) -> Float[ndarray, "3 3"]:
    """Replace the vectors the crystal does not repeat along by unit vectors across the others."""
    completed = cell.copy()
    spanned = int(periodic.sum())
    completed[~periodic] = np.linalg.svd(np.vstack([cell[periodic], np.zeros((1, 3))]))[2][spanned:]
    return completed


def _heights(cell: Float[ndarray, "3 3"]) -> Float[ndarray, "3"]:
    """Distance between opposite faces of a cell, Å."""
    return 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)


def _close_gaps(along: Float[ndarray, " atoms"], widest: float) -> Float[ndarray, " atoms"]:
    """Move atoms together along one direction until no gap is wider than ``widest``.

    Search routines lay a grid over the box around the atoms; one atom that flew far away would make
    that grid fill the memory. Start at zero.
    """
    order = np.argsort(along)
    closed = np.empty_like(along)
    gaps = np.diff(along[order], prepend=along[order[:1]])
    closed[order] = np.cumsum(np.minimum(gaps, widest))
    return closed


def _order(pairs: Pairs, atoms: int) -> Int[ndarray, " pairs"]:
    """Rank by receiver, sender, image; by one packed number where that fits, which is faster."""
    low = pairs.image.min(axis=0)
    spans = (pairs.image.max(axis=0) - low + 1).tolist()
    if atoms * atoms * spans[0] * spans[1] * spans[2] >= 2**62:
        return np.lexsort((*pairs.image.T[::-1], pairs.sender, pairs.receiver))
    key = pairs.receiver * atoms + pairs.sender
    for column, span in zip((pairs.image - low).T, spans, strict=True):
        key = key * span + column
    return np.argsort(key)


_Found: TypeAlias = tuple[ndarray, ndarray, ndarray]
"""Receiver, sender and image, of whatever kind of integer the routine uses."""


def _search_pymatgen(frame: _Frame) -> _Found:
    from pymatgen.optimization.neighbors import find_points_in_spheres

    receiver, sender, image, _ = find_points_in_spheres(
        np.ascontiguousarray(frame.positions),
        np.ascontiguousarray(frame.positions),
        r=frame.radius,
        pbc=frame.periodic.astype(np.int64),
        lattice=np.ascontiguousarray(frame.cell),
        tol=1e-8,
    )
    return receiver, sender, image


def _search_vesin(frame: _Frame) -> _Found:
    from vesin import NeighborList

    search = NeighborList(cutoff=frame.radius, full_list=True)
    found: _Found = search.compute(
        points=frame.positions,
        box=frame.cell,
        periodic=frame.periodic.tolist(),
        quantities="ijS",
    )
    return found


def _search_ase(frame: _Frame) -> _Found:
    from ase.neighborlist import primitive_neighbor_list

    found: _Found = primitive_neighbor_list(
        "ijS", frame.periodic, frame.cell, frame.positions, frame.radius
    )
    return found


_SEARCHES = {"pymatgen": _search_pymatgen, "vesin": _search_vesin, "ase": _search_ase}


def _choose(backend: Backend, frame: _Frame) -> str:
    """Return the routine asked for, or the fastest that is installed and fit for the crystal."""
    if backend in _SEARCHES:
        return backend
    if backend != "auto":
        raise unknown_name("neighbour search", backend, ["auto", *_SEARCHES])
    boxes = float(np.prod(_heights(frame.cell) / max(frame.radius, 1.0)))
    fit = list(_SEARCHES) if boxes < MOST_BOXES else ["vesin", "ase"]
    return next(name for name in fit if _installed(name))


@cache
def _installed(library: str) -> bool:
    return find_spec(library) is not None
