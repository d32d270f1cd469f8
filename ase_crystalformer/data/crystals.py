"""A crystal, and what has been measured or computed about it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from logging import getLogger
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from ase_crystalformer.errors import BadStructure
from ase_crystalformer.structures import Crystal

Split = Literal["train", "val", "test"]
Labels = dict[str, float | ndarray]

#: What files write, and the part of the data it means.
SPLITS: dict[str | None, Split | None] = {
    None: None,
    "": None,
    "train": "train",
    "val": "val",
    "test": "test",
}

_LOG = getLogger(__name__)


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
    periodic: Bool[ndarray, "3"]
    labels: Labels
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

    def labelled(self, labels: Labels) -> "LabelledCrystal":
        """Return the same crystal with these labels and no others."""
        return replace(self, labels=labels)

    def in_split(self, split: Split | None) -> "LabelledCrystal":
        """Return the same crystal in another part of the data."""
        return replace(self, split=split)

    def in_group(self, group: str) -> "LabelledCrystal":
        """Return the same crystal with its energies declared to stand on another scale."""
        return replace(self, group=group)


def sound(crystals: Iterable[LabelledCrystal]) -> Iterator[LabelledCrystal]:
    """Pass on the crystals that can be computed; warn of the others, by name and reason."""
    for crystal in crystals:
        try:
            check(crystal)
        except BadStructure as reason:
            leave_out(f"{crystal.source} {crystal.id}", str(reason))
        else:
            yield crystal


def leave_out(name: str, reason: str) -> None:
    """Tell whoever listens that a row is not used, and why."""
    _LOG.warning("Left out %s: %s", name, reason)


def check(crystal: LabelledCrystal) -> Crystal:
    """Refuse a crystal nobody can compute, or a label that does not fit it; else give it bare.

    Raises:
        BadStructure: As for :class:`ase_crystalformer.structures.Crystal`; or a label is not
            finite; or forces or stress have a wrong shape.
    """
    bare = Crystal(crystal.species, crystal.positions, crystal.cell, crystal.periodic)
    shapes = {"forces": (crystal.atoms, 3), "stress": (3, 3)}
    for name, value in crystal.labels.items():
        shape = shapes.get(name, ())
        if np.shape(value) != shape:
            raise BadStructure(
                f"Its {name} has the shape {np.shape(value)}; {shape} is needed. Drop that label."
            )
        if not np.isfinite(value).all():
            raise BadStructure(f"Its {name} is not finite. Drop that label, or the row.")
    return bare
