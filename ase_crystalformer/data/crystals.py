"""A crystal, and what has been measured or computed about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from ase_crystalformer.errors import BadStructure

Split = Literal["train", "val", "test"]

#: The heaviest element a crystal may hold (oganesson).
HEAVIEST = 118


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledCrystal:
    """One crystal with its labels; a label nobody knows is simply absent.

    Attributes:
        species: Atomic numbers.
        positions: Cartesian, Å.
        cell: Rows are the cell vectors, Å.
        periodic: Along which cell vectors the crystal repeats.
        labels: Quantity to value, in the units of :data:`ase_crystalformer.units.UNITS`; the stress
            is a 3 by 3 array in ASE's sign.
        id: What the source calls it.
        split: The part of the data it belongs to, if anyone has said so.
        source: The data set it comes from.
        group: Which scale its energies stand on; those of two groups must not be pooled.
        info: What else the source says about it, as text.
    """

    species: Int[ndarray, " atoms"]
    positions: Float[ndarray, "atoms 3"]
    cell: Float[ndarray, "3 3"]
    periodic: Bool[ndarray, " 3"]
    labels: dict[str, float | ndarray]
    id: str
    split: Split | None = None
    source: str
    group: str
    info: Mapping[str, str] = field(default_factory=dict)

    @property
    def atoms(self) -> int:
        """Number of atoms."""
        return len(self.species)

    @property
    def volume(self) -> float:
        """Cell volume, Å³."""
        return float(abs(np.linalg.det(self.cell)))

    def labelled(self, labels: dict[str, float | ndarray]) -> Self:
        """Return the same crystal with these labels and no others."""
        return replace(self, labels=labels)

    def in_split(self, split: Split | None) -> Self:
        """Return the same crystal in another part of the data."""
        return replace(self, split=split)

    def in_group(self, group: str) -> Self:
        """Return the same crystal with its energies declared to stand on another scale."""
        return replace(self, group=group)


def check(crystal: LabelledCrystal) -> None:
    """Refuse a crystal nobody can compute, or a label that is not a number.

    Raises:
        BadStructure: No atoms, unknown elements, a flat cell, or values that are not finite.
    """
    name = f"{crystal.source} {crystal.id}"
    species = crystal.species
    if species.size == 0:
        raise BadStructure(f"{name} has no atoms; drop the row.")
    if species.min() < 1 or species.max() > HEAVIEST:
        raise BadStructure(
            f"{name} holds atomic numbers {species.min()} to {species.max()}; allowed are 1 to "
            f"{HEAVIEST}. Correct the species."
        )
    if not (np.isfinite(crystal.positions).all() and np.isfinite(crystal.cell).all()):
        raise BadStructure(f"{name} has positions or cell vectors that are not finite numbers.")
    if crystal.periodic.all() and crystal.volume < 1e-3 * crystal.atoms:
        raise BadStructure(
            f"{name} repeats in three directions but its cell holds {crystal.volume:.3g} Å³; give "
            "three independent cell vectors in Å."
        )
    for label, value in crystal.labels.items():
        if not np.isfinite(value).all():
            raise BadStructure(f"{name} has a {label} that is not a finite number; leave it out.")
