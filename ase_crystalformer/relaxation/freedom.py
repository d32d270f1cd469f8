"""What of a crystal may move: atoms, cell, and both together in keeping with a symmetry."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from ase_crystalformer.errors import BadStructure

if TYPE_CHECKING:
    from ase import Atoms

CellFreedom: TypeAlias = bool | str | Sequence[bool]
"""``True``: all of it; ``False``: nothing; ``"volume"`` alone; ``"shape"`` alone, volume kept; or
which components of the strain: xx, yy, zz, yz, xz, xy."""

SYMPREC = 0.01
"""Å. How far atoms may lie from where a symmetry puts them."""

STRAINS = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]


@dataclass(frozen=True, eq=False)
class Freedom:
    """Projectors onto the displacements and strains that are allowed.

    Displacements are those in the cell at the start; they are scaled with the cell. A displacement
    is projected by ``out[target] += block @ displacement[source]``.

    Attributes:
        target: The atom that moves,
        source: by the share of this one,
        block: turned and shortened like this.
        strain: Acts on the nine components of a strain.
        whole: Whether every atom may move as it likes.
    """

    target: Int[ndarray, " links"]
    source: Int[ndarray, " links"]
    block: Float[ndarray, "links 3 3"]
    strain: Float[ndarray, "9 9"]
    whole: bool

    @classmethod
    def of(cls, atoms: "Atoms", relax_cell: CellFreedom = True) -> "Freedom":
        """Read the constraints of a structure, whose cell may be relaxed.

        Raises:
            BadStructure: if a constraint cannot be kept.
        """
        from ase.constraints import FixSymmetry

        symmetries = [one for one in atoms.constraints if isinstance(one, FixSymmetry)]
        others = [one for one in atoms.constraints if not isinstance(one, FixSymmetry)]
        moves_cell = relax_cell is not False
        block = _of_atoms(atoms, others, moves_cell)
        strains = [_of_cell(atoms, relax_cell)]
        number = np.arange(len(atoms))
        target, source = number, number
        for symmetry in symmetries:
            turns = _turns(atoms, symmetry, moves_cell)
            target, source, block = _with_symmetry(symmetry, turns, block, len(symmetries))
            strains.append(np.einsum("nij,nkl->ikjl", turns, turns).reshape(9, 9) / len(turns))
        whole = not symmetries and np.array_equal(block, np.broadcast_to(np.eye(3), block.shape))
        return cls(target, source, block, _common(strains), whole)


class FreedomBatch:
    """Freedoms side by side."""

    def __init__(self, freedoms: Sequence[Freedom], counts: list[int], device: Any) -> None:
        first = np.concatenate([[0], np.cumsum(counts)])[:-1]
        shifted = list(zip(freedoms, first, strict=True))

        def joined(parts: list[ndarray]) -> Tensor:
            return torch.from_numpy(np.concatenate(parts)).to(device)

        self.whole = all(one.whole for one in freedoms)
        self.target = joined([one.target + start for one, start in shifted])
        self.source = joined([one.source + start for one, start in shifted])
        self.block = joined([one.block for one in freedoms])
        self._strain = joined([one.strain[None] for one in freedoms])

    def displacement(self, moves: Float[Tensor, "atoms 3"]) -> Float[Tensor, "atoms 3"]:
        """Return what is allowed of displacements, or of forces."""
        if self.whole:
            return moves
        shares = (self.block @ moves[self.source][:, :, None])[:, :, 0]
        return torch.zeros_like(moves).index_add(0, self.target, shares)

    def strain(self, moves: Float[Tensor, "crystals 3 3"]) -> Float[Tensor, "crystals 3 3"]:
        """Return what is allowed of strains, or of pulls on them."""
        return (self._strain @ moves.flatten(1)[:, :, None]).view_as(moves)


def symmetric(atoms: "Atoms") -> "Atoms":
    """Return a structure moved onto its symmetry, and constrained to keep it.

    Raises:
        BadStructure: It does not repeat in three directions, or no symmetry is found.
    """
    from ase.constraints import FixSymmetry

    if not atoms.pbc.all():
        raise BadStructure(
            f"Symmetry is kept of crystals that repeat along three directions; pbc is "
            f"{atoms.pbc.tolist()}. Relax it without."
        )
    if any(isinstance(constraint, FixSymmetry) for constraint in atoms.constraints):
        return atoms
    kept, atoms = atoms.constraints, atoms.copy()
    atoms.set_constraint()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            symmetry = FixSymmetry(atoms, symprec=SYMPREC)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise BadStructure(
                f"spglib finds no symmetry within {SYMPREC} Å ({error}). Relax it without."
            ) from error
    atoms.set_constraint([*kept, symmetry])
    return atoms


def _of_atoms(
    atoms: "Atoms", constraints: Sequence[Any], moves_cell: bool
) -> Float[ndarray, "atoms 3 3"]:
    """Projector onto the directions in which every atom may move on its own."""
    from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled

    free = np.tile(np.eye(3), (len(atoms), 1, 1))
    for one in constraints:
        if isinstance(one, FixAtoms):
            kept = np.zeros((3, 3))
        elif isinstance(one, FixScaled):
            vectors = atoms.cell.array[~one.mask]
            kept = np.linalg.pinv(vectors) @ vectors
        elif isinstance(one, FixCartesian | FixedLine | FixedPlane) and not moves_cell:
            kept = _along_axes(one)
        else:
            raise _cannot_keep(one, moves_cell)
        for index in np.atleast_1d(one.index):
            free[index] = _common([free[index], kept])
    return free


def _along_axes(constraint: Any) -> Float[ndarray, "3 3"]:
    """Projector of a constraint to directions in space."""
    from ase.constraints import FixCartesian, FixedPlane

    if isinstance(constraint, FixCartesian):
        return np.diag(1.0 - constraint.mask)
    along = np.outer(constraint.dir, constraint.dir)
    return np.eye(3) - along if isinstance(constraint, FixedPlane) else along


def _cannot_keep(constraint: Any, moves_cell: bool) -> BadStructure:
    name = type(constraint).__name__
    fixed = {"FixCartesian", "FixedLine", "FixedPlane"}
    if name in fixed and moves_cell:
        return BadStructure(
            f"{name} is kept where the cell is fixed, not where it is relaxed. Fix the cell, or "
            "use FixScaled or FixAtoms."
        )
    return BadStructure(
        f"{name} cannot be kept here; FixAtoms, FixScaled and FixSymmetry can, and with a fixed "
        f"cell {', '.join(sorted(fixed))}. Remove it, or relax with ASE's optimisers and "
        "CrystalformerCalculator."
    )


def _turns(atoms: "Atoms", symmetry: Any, moves_cell: bool) -> Float[ndarray, "operations 3 3"]:
    """Return the rotations of a symmetry in space."""
    if not (symmetry.do_adjust_positions and (symmetry.do_adjust_cell or not moves_cell)):
        raise BadStructure(
            "FixSymmetry is kept for atoms and cell together; it has adjust_positions="
            f"{symmetry.do_adjust_positions}, adjust_cell={symmetry.do_adjust_cell}. Make both "
            "true, or fix the cell."
        )
    cell = atoms.cell.array
    return cell.T @ np.asarray(symmetry.rotations, float) @ np.linalg.inv(cell.T)


def _with_symmetry(
    symmetry: Any,
    turns: Float[ndarray, "operations 3 3"],
    free: Float[ndarray, "atoms 3 3"],
    symmetries: int,
) -> tuple[Int[ndarray, " links"], Int[ndarray, " links"], Float[ndarray, "links 3 3"]]:
    """Average over a symmetry, which must map what is fixed onto what is fixed."""
    atoms = len(free)
    image = np.asarray(symmetry.symm_map, np.int64)
    turned = turns[:, None] @ free @ turns[:, None].transpose(0, 1, 3, 2)
    if symmetries > 1 or not np.allclose(turned, free[image], atol=1e-6):
        raise BadStructure(
            "The symmetry maps atoms that are fixed onto atoms that are not. Fix all of them or "
            "none, or do not ask for symmetry."
        )
    key = (image * atoms + np.arange(atoms)).ravel()
    links, place = np.unique(key, return_inverse=True)
    block = np.zeros((len(links), 3, 3))
    np.add.at(block, place.ravel(), np.repeat(turns, atoms, axis=0) / len(turns))
    target, source = links // atoms, links % atoms
    return target, source, block @ free[source]


def check_cell_freedom(relax_cell: Any) -> None:
    """Refuse what says nothing about a cell.

    Args:
        relax_cell: A ``CellFreedom``, if it is right.

    Raises:
        ValueError: if it is of no such form, or if strains it allows, one after the other, make
            others.
    """
    if isinstance(relax_cell, bool):
        return
    if isinstance(relax_cell, str) and relax_cell in {"volume", "shape"}:
        return
    six = isinstance(relax_cell, Sequence | ndarray) and np.shape(relax_cell) == (len(STRAINS),)
    if isinstance(relax_cell, str) or not six:
        raise ValueError(
            f"relax_cell is {relax_cell!r}; it may be True, False, 'volume', 'shape', or six times "
            "True or False for the strains xx, yy, zz, yz, xz, xy."
        )
    free = _components(relax_cell)
    if (free @ free & ~free).any():
        raise ValueError(
            f"relax_cell is {list(relax_cell)}: these strains, one after the other, make others. A "
            "shear needs the stretches along both of its axes, and two shears the third."
        )


def _components(chosen: Sequence[bool]) -> Bool[ndarray, "3 3"]:
    free = np.zeros((3, 3), dtype=bool)
    for (row, column), may in zip(STRAINS, chosen, strict=True):
        free[row, column] = free[column, row] = bool(may)
    return free


def _of_cell(atoms: "Atoms", relax_cell: CellFreedom) -> Float[ndarray, "9 9"]:
    """Projector onto strains along the directions a structure repeats, as far as allowed."""
    vectors = atoms.cell.array[atoms.pbc]
    along = np.linalg.pinv(vectors) @ vectors if len(vectors) else np.zeros((3, 3))
    repeating = np.kron(along, along)
    if isinstance(relax_cell, bool):
        return repeating * relax_cell
    if isinstance(relax_cell, str):
        trace = np.outer(along, along) / max(len(vectors), 1)
        return trace if relax_cell == "volume" else repeating - trace
    return _common([repeating, np.diag(_components(relax_cell).ravel().astype(float))])


def _common(projectors: Sequence[Float[ndarray, "n n"]]) -> Float[ndarray, "n n"]:
    """Project onto what all projectors leave alone."""
    if len(projectors) == 1:
        return projectors[0]
    lost = sum(np.eye(len(one)) - one for one in projectors)
    values, vectors = np.linalg.eigh(lost)
    kept = vectors[:, values < 1e-6]
    return kept @ kept.T
