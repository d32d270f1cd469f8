"""Atoms of many crystals as equal rows, so that sums over a crystal become matrix products."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class CrystalSlots:
    """Atoms of each crystal side by side in ``size`` slots; the last slots of most are empty.

    Attributes:
        slot: The place of each atom among the slots of all crystals.
        crystals: Number of crystals.
        size: Slots of a crystal: atoms of the largest.
    """

    slot: Int[Tensor, " atoms"]
    crystals: int
    size: int

    @staticmethod
    def build(crystal: Int[Tensor, " atoms"], crystals: int) -> "CrystalSlots":
        """Lay out atoms that are sorted by crystal."""
        count = torch.bincount(crystal, minlength=crystals)
        size = int(count.max())
        rank = torch.arange(len(crystal), device=crystal.device)
        rank = rank - (count.cumsum(0) - count)[crystal]
        return CrystalSlots(crystal * size + rank, crystals, size)

    def spread(self, rows: Float[Tensor, "atoms *rest"]) -> Float[Tensor, "crystals size *rest"]:
        """Put one row per atom into its slot, and zeros into empty slots."""
        if self.crystals * self.size == len(rows):
            return rows.unflatten(0, (self.crystals, self.size))
        empty = rows.new_zeros(self.crystals * self.size, *rows.shape[1:])
        return empty.index_copy(0, self.slot, rows).unflatten(0, (self.crystals, self.size))

    def collect(self, padded: Float[Tensor, "crystals size *rest"]) -> Float[Tensor, "atoms *rest"]:
        """Take the rows of the atoms out again."""
        return padded.flatten(0, 1).index_select(0, self.slot)
