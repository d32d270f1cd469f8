"""The smallest cell that repeats to a crystal."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ase_crystalformer.errors import BadStructure
from ase_crystalformer.structures import Crystal

TOLERANCES = (1e-2, 1e-3, 1e-5)
"""Å. How far atoms may lie from where a symmetry puts them; the next is tried if one fails."""


def primitive(crystal: Crystal) -> Crystal:
    """Return the smallest cell that repeats to the same crystal, neither turned nor idealised.

    A cell that is the smallest already is returned as it is. Atoms related by a translation are
    merged at their mean place.

    Raises:
        BadStructure: The crystal does not repeat in three directions, or spglib finds no symmetry
            in it, not even the identity.
    """
    if not crystal.periodic.all():
        raise BadStructure(
            f"The structure is periodic along {crystal.periodic.tolist()}; all three directions "
            "are needed. For slabs, wires and molecules use a model with a radius graph."
        )
    if not _repeats_within(crystal):
        return crystal
    for tolerance in TOLERANCES:
        found = _standardize(crystal, tolerance)
        if found is not None:
            cell, fractions, species = found
            return Crystal(species.astype(np.int64), fractions @ cell, cell, crystal.periodic)
    raise BadStructure(
        f"spglib finds no primitive cell of this structure of {len(crystal.species)} atoms at "
        f"tolerances of {TOLERANCES} Å. Check for atoms too close to each other."
    )


def _repeats_within(crystal: Crystal) -> bool:
    """Say whether a translation shorter than the cell maps the crystal onto itself.

    Much quicker than the search for all symmetries, which most crystals are thus spared.
    """
    kinds, counts = np.unique(crystal.species, return_counts=True)
    if np.gcd.reduce(counts) == 1:
        return False
    rare = np.flatnonzero(crystal.species == kinds[np.argmin(counts)])
    fractions = _fractions(crystal)
    return any(
        _maps_onto_itself(crystal, fractions, fractions[other] - fractions[rare[0]])
        for other in rare[1:]
    )


def _maps_onto_itself(
    crystal: Crystal, fractions: Float[ndarray, "atoms 3"], translation: Float[ndarray, "3"]
) -> bool:
    for kind in np.unique(crystal.species):
        same = fractions[crystal.species == kind]
        apart = same[:, None] + translation - same[None]
        apart = (apart - np.round(apart)) @ crystal.cell
        if np.linalg.norm(apart, axis=-1).min(axis=1).max() > 2 * TOLERANCES[0]:
            return False
    return True


def _fractions(crystal: Crystal) -> Float[ndarray, "atoms 3"]:
    """Positions in units of the cell vectors, inside the cell."""
    fractions = crystal.positions @ np.linalg.inv(crystal.cell)
    return fractions - np.floor(fractions)


def _standardize(crystal: Crystal, tolerance: float) -> Any:
    """Call spglib; None if it fails, without its notices about its own interface."""
    import spglib

    cell = (crystal.cell, _fractions(crystal), crystal.species)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return spglib.standardize_cell(
                cell, to_primitive=True, no_idealize=True, symprec=tolerance
            )
        except spglib.SpglibError:
            return None
