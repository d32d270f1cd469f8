"""Energies that contradict the formation energy told of the same crystal.

The two differ by energies of the elements and by Materials Project's corrections, so their
difference follows from the composition. Where it does not, they are of different calculations.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ase_crystalformer.data.crystals import LabelledCrystal

ENERGY, FORMATION = "energy_per_atom", "formation_energy_per_atom"

#: Oxides and fluorides of these elements are computed with a Hubbard U, and corrected for it.
HUBBARD = (23, 24, 25, 26, 27, 28, 42, 74)

#: How far the two may be apart, eV/atom. Half of Materials Project agrees to 0.002.
AGREEMENT = 0.1

#: Rounds of reweighting, and the residual below which weights stop growing, eV/atom.
ROUNDS, SMALLEST = 60, 1e-3


def contradicted(crystals: Sequence[LabelledCrystal]) -> set[str]:
    """Name the crystals whose energy is not that of their formation energy.

    Energies of elements, and what U adds to each of its elements in oxides and in fluorides, are
    fitted to all crystals that have both labels, by least absolute residuals.

    Args:
        crystals: Those without ``energy_per_atom`` or ``formation_energy_per_atom`` are passed by,
            and so are elements: what is corrected in compounds is not in molecules of the element.
    """
    both = [row for row in crystals if _can_tell(row)]
    if not both:
        return set()
    columns = np.array([composition_columns(row) for row in both])
    shift = np.array([row.labels[ENERGY] - row.labels[FORMATION] for row in both])
    left = np.abs(shift - columns @ least_absolute(columns, shift))
    return {row.id for row, far in zip(both, left > AGREEMENT, strict=True) if far}


def _can_tell(crystal: LabelledCrystal) -> bool:
    is_compound = len(set(crystal.species.tolist())) > 1
    return is_compound and {ENERGY, FORMATION} <= crystal.labels.keys()


def composition_columns(crystal: LabelledCrystal) -> Float[ndarray, " columns"]:
    """Share of every element; and of those with a U once more, in an oxide or in a fluoride."""
    share = np.bincount(crystal.species, minlength=119) / crystal.atoms
    with_u = share[list(HUBBARD)]
    oxide, fluoride = bool(share[8]), bool(share[9]) and not share[8]
    return np.concatenate([share, with_u * oxide, with_u * fluoride])


def least_absolute(
    columns: Float[ndarray, "rows columns"], aim: Float[ndarray, " rows"]
) -> Float[ndarray, " columns"]:
    """Coefficients of the smallest sum of absolute residuals, by reweighted least squares.

    Source: E. J. Schlossmacher, J. Am. Stat. Assoc. 68, 857 (1973).
    """
    weight = np.ones(len(aim))
    for _ in range(ROUNDS):
        weighted = columns * weight[:, None]  # Normal equations: many rows and few columns.
        found, *_ = np.linalg.lstsq(weighted.T @ columns, weighted.T @ aim, rcond=None)
        weight = 1 / np.maximum(np.abs(aim - columns @ found), SMALLEST)
    return np.asarray(found)
