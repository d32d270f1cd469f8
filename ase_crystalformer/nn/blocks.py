"""Ragged edges as equal blocks, so that sums over neighbours become matrix products."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class EdgeBlocks:
    """Edges of each receiver in blocks of ``size`` slots; the last block of a receiver is padded.

    A sum over neighbours of an outer product, the hot loop of attention over images, is then one
    batched matrix product over blocks and a short sum over the blocks of each receiver. Padding
    costs half a block per atom.

    Attributes:
        edge: The edge in each slot, ``edges`` (one past the last) where the slot is padding.
        receiver: The receiver of each block, ascending.
        size: Slots in a block.
    """

    edge: Int[Tensor, " slots"]
    receiver: Int[Tensor, " blocks"]
    size: int

    @staticmethod
    def build(receiver: Int[Tensor, " edges"], atoms: int, size: int = 16) -> "EdgeBlocks":
        """Lay out edges that are sorted by receiver."""
        edges = receiver.shape[0]
        degree = torch.bincount(receiver, minlength=atoms)
        blocks = (degree + size - 1) // size
        owner = torch.repeat_interleave(torch.arange(atoms, device=receiver.device), blocks)
        first_slot = (blocks.cumsum(0) - blocks) * size
        first_edge = degree.cumsum(0) - degree
        running = torch.arange(edges, device=receiver.device)
        slot = running + (first_slot - first_edge)[receiver]
        edge = receiver.new_full((owner.shape[0] * size,), edges)
        return EdgeBlocks(edge.scatter(0, slot, running), owner, size)

    def spread(
        self, values: Float[Tensor, "edges *rest"], padding: float
    ) -> Float[Tensor, "blocks size *rest"]:
        """Put one value per edge into its slot and ``padding`` into empty slots."""
        filler = values.new_full((1, *values.shape[1:]), padding)
        slots = torch.cat([values, filler]).index_select(0, self.edge)
        return slots.unflatten(0, (-1, self.size))

    def spread_index(self, index: Int[Tensor, " edges"]) -> Int[Tensor, "blocks size"]:
        """Put one index per edge into its slot; empty slots point at item 0."""
        return torch.cat([index, index.new_zeros(1)])[self.edge].unflatten(0, (-1, self.size))

    def sum_outer(
        self,
        weight: Float[Tensor, "blocks size heads"],
        basis: Float[Tensor, "blocks size basis"],
        atoms: int,
    ) -> Float[Tensor, "atoms heads basis"]:
        """Sum ``weight ⊗ basis`` over the edges of every receiver."""
        per_block = torch.bmm(weight.transpose(1, 2), basis)
        total = per_block.new_zeros(atoms, *per_block.shape[1:])
        return total.index_add(0, self.receiver, per_block)
