"""Crystals under pressure, from their bulk modulus: curvature that training can learn as stress."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.units import GPA

#: Volumes of the frames in units of that at rest.
VOLUMES = (0.95, 0.98, 1.02, 1.05)

#: Å, within which atoms must map onto each other.
TOLERANCE = 1e-2

#: Space groups of the cubic system.
CUBIC = range(195, 231)


def compressed(crystal: LabelledCrystal) -> Iterator[LabelledCrystal]:
    """Yield frames of a crystal at rest in other volumes, with the stress its bulk modulus gives.

    Only cubic crystals without free positions are taken: there the strained crystal has no other
    stress than pressure, and forces vanish by symmetry.

    Args:
        crystal: With the label ``bulk_modulus``, GPa.
    """
    if not is_fixed_by_symmetry(crystal):
        return
    for volume in VOLUMES:
        pressure = birch(volume, float(crystal.labels["bulk_modulus"])) * GPA
        length = volume ** (1 / 3)
        yield LabelledCrystal(
            species=crystal.species,
            positions=crystal.positions * length,
            cell=crystal.cell * length,
            periodic=crystal.periodic,
            labels={"forces": np.zeros((crystal.atoms, 3)), "stress": -pressure * np.eye(3)},
            id=f"{crystal.id}/{volume}",
            split=crystal.split,
            source="compressed",
            group=crystal.group,
        )


def birch(volume: float, bulk_modulus: float) -> float:
    """Pressure at a volume, in the unit of the bulk modulus; second order of Birch and Murnaghan.

    It takes the modulus to grow by 4 per pressure (F. Birch, Phys. Rev. 71, 809, 1947, equation
    13). Most solids lie between 3 and 6; at 5 % that changes the pressure by 2.5 to 5 %, and hardly
    the difference between compression and expansion.

    Args:
        volume: In units of that at rest.
        bulk_modulus: At rest.
    """
    return 1.5 * bulk_modulus * (volume ** (-7 / 3) - volume ** (-5 / 3))


def is_fixed_by_symmetry(crystal: LabelledCrystal) -> bool:
    """Say whether a crystal is cubic, and no atom can move without breaking its symmetry."""
    import spglib

    fractions = crystal.positions @ np.linalg.inv(crystal.cell)
    found = spglib.get_symmetry_dataset(
        (crystal.cell, fractions, crystal.species), symprec=TOLERANCE
    )
    if found is None or found.number not in CUBIC:
        return False
    return not any(
        _is_free(place, found.rotations, found.translations, crystal.cell) for place in fractions
    )


def _is_free(
    place: Float[ndarray, "3"],
    rotations: Int[ndarray, "operations 3 3"],
    translations: Float[ndarray, "operations 3"],
    cell: Float[ndarray, "3 3"],
) -> bool:
    """Say whether a direction is left by all operations that leave the place where it is."""
    moved = rotations @ place + translations - place
    moved = (moved - np.round(moved)) @ cell
    kept = np.linalg.norm(moved, axis=1) < 2 * TOLERANCE
    return bool(np.abs(rotations[kept].mean(0)).max() > 1e-8)
