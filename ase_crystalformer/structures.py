"""Structures of other libraries, read into one plain record and checked on the way in."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from ase_crystalformer.errors import BadStructure

if TYPE_CHECKING:
    from ase import Atoms

HEAVIEST = 118
SMALLEST_REPEAT = 1e-3
"""Length, area or volume of the periodic part of a cell, Å to that power, below which it is flat."""


@dataclass(frozen=True, eq=False)
class Crystal:
    """Atoms that may repeat along some cell vectors; checked when made.

    Attributes:
        species: Atomic numbers, 1 to 118.
        positions: Cartesian, Å. Atoms may lie outside the cell.
        cell: Rows are the cell vectors, Å. Zero rows where there is none.
        periodic: Along which cell vectors the crystal repeats.

    Raises:
        BadStructure: There are no atoms, a number is not finite, a species is no element, shapes
            disagree, or the periodic cell vectors do not span a cell.
    """

    species: Int[ndarray, " atoms"]
    positions: Float[ndarray, "atoms 3"]
    cell: Float[ndarray, "3 3"]
    periodic: Bool[ndarray, "3"]

    def __post_init__(self) -> None:
        _check_atoms(self)
        _check_cell(self)


def as_crystal(structure: Any) -> Crystal:
    """Read a structure of ASE, pymatgen or JARVIS.

    Args:
        structure: ``ase.Atoms``, a pymatgen ``Structure`` or ``Molecule``, ``jarvis.core.atoms.Atoms``,
            or a ``Crystal``, which is returned as it is. Anything else is copied.

    Raises:
        BadStructure: It is none of these, is disordered, or fails the checks of ``Crystal``.
    """
    if isinstance(structure, Crystal):
        return structure
    if hasattr(structure, "get_atomic_numbers"):
        return _from_ase(structure)
    if hasattr(structure, "lattice_mat"):
        return _from_jarvis(structure)
    if hasattr(structure, "sites") and hasattr(structure, "cart_coords"):
        return _from_pymatgen(structure)
    raise BadStructure(
        f"Cannot read a {type(structure).__module__}.{type(structure).__qualname__} as a structure. "
        "Give ase.Atoms, a pymatgen Structure or Molecule, jarvis Atoms, or a Crystal."
    )


def to_atoms(crystal: Crystal) -> "Atoms":
    """Write a crystal as ``ase.Atoms``."""
    from ase import Atoms

    return Atoms(
        numbers=crystal.species,
        positions=crystal.positions,
        cell=crystal.cell,
        pbc=crystal.periodic,
    )


def _crystal(species: Any, positions: Any, cell: Any, periodic: Any) -> Crystal:
    return Crystal(
        species=np.array(species, dtype=np.int64).reshape(-1),
        positions=np.array(positions, dtype=np.float64).reshape(-1, 3),
        cell=np.array(cell, dtype=np.float64).reshape(3, 3),
        periodic=np.array(periodic, dtype=bool).reshape(3),
    )


def _from_ase(atoms: Any) -> Crystal:
    return _crystal(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)


def _from_jarvis(atoms: Any) -> Crystal:
    return _crystal(atoms.atomic_numbers, atoms.cart_coords, atoms.lattice_mat, (True,) * 3)


def _from_pymatgen(structure: Any) -> Crystal:
    species = [_only_element(index, site) for index, site in enumerate(structure.sites)]
    lattice = getattr(structure, "lattice", None)
    if lattice is None:
        return _crystal(species, structure.cart_coords, np.zeros((3, 3)), (False,) * 3)
    return _crystal(species, structure.cart_coords, lattice.matrix, lattice.pbc)


def _only_element(index: int, site: Any) -> int:
    """Return the atomic number at a pymatgen site that holds one whole atom."""
    if not site.is_ordered:
        raise BadStructure(
            f"Site {index} is disordered ({site.species_string}). Only ordered structures can be "
            "computed: make one, e.g. with pymatgen's OrderDisorderedStructureTransformation."
        )
    number = getattr(getattr(site.specie, "element", site.specie), "Z", 0)
    return int(number)


def _check_atoms(crystal: Crystal) -> None:
    atoms = len(crystal.species)
    if atoms == 0:
        raise BadStructure("The structure has no atoms. Give at least one.")
    if crystal.positions.shape != (atoms, 3):
        raise BadStructure(
            f"{atoms} species with positions of shape {crystal.positions.shape}; "
            f"({atoms}, 3) is needed."
        )
    broken = np.flatnonzero(~np.isfinite(crystal.positions).all(axis=1))
    if broken.size:
        raise BadStructure(
            f"The position of atom {broken[0]} is {crystal.positions[broken[0]].tolist()} "
            f"({broken.size} such atoms). Positions must be finite numbers in Å."
        )
    strange = np.flatnonzero((crystal.species < 1) | (crystal.species > HEAVIEST))
    if strange.size:
        raise BadStructure(
            f"Atom {strange[0]} has atomic number {crystal.species[strange[0]]}; "
            f"elements 1 to {HEAVIEST} are allowed. Replace or remove dummy atoms."
        )


def _check_cell(crystal: Crystal) -> None:
    if crystal.cell.shape != (3, 3) or crystal.periodic.shape != (3,):
        raise BadStructure(
            f"A cell of shape {crystal.cell.shape} with periodic of shape "
            f"{crystal.periodic.shape}; (3, 3) and (3,) are needed."
        )
    if not np.isfinite(crystal.cell).all():
        raise BadStructure(
            f"The cell is {crystal.cell.tolist()}. Cell vectors must be finite numbers in Å."
        )
    vectors = crystal.cell[crystal.periodic]
    missing = np.flatnonzero(crystal.periodic & ~crystal.cell.any(axis=1))
    if missing.size:
        raise BadStructure(
            f"The structure is periodic along cell vector {missing[0]}, which is zero. "
            "Give that vector, or switch periodicity off along it."
        )
    spanned = np.sqrt(max(np.linalg.det(vectors @ vectors.T), 0.0))
    if spanned < SMALLEST_REPEAT:
        raise BadStructure(
            f"The periodic cell vectors {vectors.tolist()} span {spanned:.1e} Å^{len(vectors)}: the "
            "cell is singular. Periodic cell vectors must be linearly independent."
        )
