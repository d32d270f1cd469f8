"""Structures of other libraries, read into one plain record and checked on the way in."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from ase_crystalformer.errors import BadStructure

if TYPE_CHECKING:
    from ase import Atoms

HEAVIEST = 118
SMALLEST_REPEAT = 1e-3
"""Length, area or volume that the periodic cell vectors must span: Å, Å² or Å³."""


@dataclass(frozen=True, eq=False)
class Crystal:
    """Atoms that may repeat along some cell vectors; checked when made.

    Attributes:
        species: Atomic numbers, 1 to 118.
        positions: Cartesian, Å. Atoms may lie outside the cell.
        cell: Rows are the cell vectors, Å. Zero rows where there is none.
        periodic: Along which cell vectors the crystal repeats.

    Raises:
        BadStructure: There are no atoms, a number is not finite, a species is no element, or the
            periodic cell vectors do not span a cell.
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
        structure: ``ase.Atoms``, a pymatgen ``Structure`` or ``Molecule``, ``Atoms`` of jarvis, or
            a ``Crystal``, which is returned as it is. All others are copied.

    Raises:
        BadStructure: It is none of these, is disordered, or fails the checks of ``Crystal``.
    """
    if isinstance(structure, Crystal):
        return structure
    if isinstance(structure, str | PathLike):
        raise BadStructure(f"{structure!r} is a name, not a structure. Read it first: ase.io.read.")
    if hasattr(structure, "get_atomic_numbers"):
        return _from_ase(structure)
    if hasattr(structure, "lattice_mat"):
        return _from_jarvis(structure)
    if hasattr(structure, "sites") and hasattr(structure, "cart_coords"):
        return _from_pymatgen(structure)
    given = type(structure)
    raise BadStructure(
        f"Cannot read a {given.__module__}.{given.__qualname__} as a structure. "
        "Give ase.Atoms, a pymatgen Structure or Molecule, jarvis Atoms, or a Crystal."
    )


def as_atoms(structure: Any) -> "Atoms":
    """Read a structure of another library with what ASE can hold of it.

    Of pymatgen's these are constraints (``selective_dynamics``), magnetic moments, charges and
    other properties of sites. ASE's own are returned as they are, unchecked.

    Raises:
        BadStructure: As for ``as_crystal``.
    """
    if hasattr(structure, "get_atomic_numbers"):
        return structure
    crystal = as_crystal(structure)
    if not hasattr(structure, "lattice") or not hasattr(structure, "site_properties"):
        return to_atoms(crystal)
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
    atoms.pbc = crystal.periodic
    atoms.calc = None
    return atoms


def reduced_formula(atoms: "Atoms") -> str:
    """Write the smallest formula with whole numbers, metals first."""
    return atoms.symbols.formula.reduce()[0].format("metal")


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
    if "occupancy" in atoms.info:
        _refuse_shared_sites(atoms)
    return _crystal(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)


def _refuse_shared_sites(atoms: Any) -> None:
    """Refuse a disordered CIF, which ASE reads as if the major species filled its sites.

    Where atoms of other species stand on a site by now, somebody has made it ordered.
    """
    kinds = atoms.arrays.get("spacegroup_kinds")
    if kinds is None:
        return
    symbols = np.array(atoms.get_chemical_symbols())
    for site, shares in atoms.info["occupancy"].items():
        there = set(symbols[kinds == int(site)])
        major = {name for name, share in shares.items() if share == max(shares.values())}
        if len(there) == 1 and there <= major:
            refuse_shared_site(site, shares)


def refuse_shared_site(site: Any, shares: Mapping[str, Any], least: float = 0.0) -> None:
    """Refuse a site of several species, or of less than one atom.

    Args:
        site: What it is called.
        shares: Of every species on it.
        least: Of an atom, what must be there.

    Raises:
        BadStructure: naming the site.
    """
    if len(shares) > 1 or sum(shares.values()) < least:
        raise BadStructure(
            f"Site {site} is disordered ({shares}). Only ordered structures can be computed: "
            "make one, e.g. with pymatgen's OrderDisorderedStructureTransformation. If these atoms "
            "are one already, del atoms.info['occupancy']."
        )


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
    if not 1 <= site.specie.Z <= HEAVIEST:
        raise BadStructure(
            f"Site {index} holds {site.species_string}, which is no element. "
            "Replace or remove dummy atoms."
        )
    return int(site.specie.Z)


def _check_atoms(crystal: Crystal) -> None:
    if len(crystal.species) == 0:
        raise BadStructure("The structure has no atoms. Give at least one.")
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
    spanned = np.prod(np.linalg.svd(vectors, compute_uv=False))
    if spanned < SMALLEST_REPEAT:
        raise BadStructure(
            f"The periodic cell vectors {vectors.tolist()} span {spanned:.1e} Å^{len(vectors)}; at "
            f"least {SMALLEST_REPEAT} is needed. Give linearly independent vectors in Å."
        )
