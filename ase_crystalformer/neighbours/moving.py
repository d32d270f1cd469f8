"""Many crystals in motion on one device: pairs are searched rarely, edges drawn in one go."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours.search import Pairs, completed, neighbour_pairs
from ase_crystalformer.structures import Crystal

SKIN = 0.5
"""Å. Pairs this much beyond the cutoff are kept in mind; atoms may move by half of it."""


@dataclass(eq=False)
class Mover:
    """One crystal that moves; its pairs were searched where it was then.

    Attributes:
        searched: Where it was when its pairs were searched. Its cell is three-dimensional: unit
            vectors stand across the directions it does not repeat along.
        pairs: Pairs closer than the cutoff and the skin, there.
        positions: Where its atoms are now, Å.
        cell: Now, Å.
    """

    searched: Crystal
    pairs: Pairs
    positions: Float[ndarray, "atoms 3"]
    cell: Float[ndarray, "3 3"]

    @classmethod
    def of(cls, crystal: Crystal, cutoff: float) -> "Mover":
        """Search the pairs of a crystal."""
        cell = completed(crystal.cell, crystal.periodic)
        crystal = Crystal(crystal.species, crystal.positions, cell, crystal.periodic)
        pairs = neighbour_pairs(crystal, cutoff + SKIN)
        return cls(crystal, pairs, crystal.positions, crystal.cell)

    @property
    def crystal(self) -> Crystal:
        """Where it is now, checked."""
        return Crystal(self.searched.species, self.positions, self.cell, self.searched.periodic)

    def search(self, cutoff: float) -> None:
        """Search its pairs anew."""
        crystal = self.crystal
        self.pairs = neighbour_pairs(crystal, cutoff + SKIN)
        self.searched = crystal


class MovingBatch:
    """Movers side by side.

    Attributes:
        positions: Of all atoms, Å; move them.
        cell: Of all crystals, Å; strain them.
        crystal: Which crystal each atom belongs to.
    """

    def __init__(self, movers: Sequence[Mover], cutoff: float, device: torch.device) -> None:
        counts = [len(mover.positions) for mover in movers]
        first = np.concatenate([[0], np.cumsum(counts)])[:-1]
        lengths = [len(mover.pairs.receiver) for mover in movers]
        start = torch.from_numpy(np.repeat(first, lengths)).to(device)

        def joined(parts: list[ndarray]) -> Tensor:
            return torch.from_numpy(np.concatenate(parts)).to(device)

        self.movers, self.cutoff, self.counts = movers, cutoff, counts
        self.species = joined([mover.searched.species for mover in movers])
        self.positions = joined([mover.positions for mover in movers])
        self.cell = joined([mover.cell[None] for mover in movers])
        self.periodic = joined([mover.searched.periodic[None] for mover in movers])
        self.crystal = joined([np.repeat(np.arange(len(counts)), counts)])
        self.receiver = joined([mover.pairs.receiver for mover in movers]) + start
        self.sender = joined([mover.pairs.sender for mover in movers]) + start
        self.image = joined([mover.pairs.image for mover in movers])
        self._old_positions = joined([mover.searched.positions for mover in movers])
        self._old_inverse = joined([np.linalg.inv(mover.searched.cell)[None] for mover in movers])

    def graph(self, dtype: torch.dtype) -> CrystalGraph:
        """Draw the edges there are now."""
        owner = self.crystal[self.receiver]
        shift = (self.image.to(self.cell.dtype)[:, None] @ self.cell[owner])[:, 0]
        vector = self.positions[self.sender] - self.positions[self.receiver] + shift
        kept = torch.nonzero((vector * vector).sum(-1) < self.cutoff**2)[:, 0]
        return CrystalGraph(
            species=self.species,
            positions=self.positions.to(dtype),
            cell=self.cell.to(dtype),
            periodic=self.periodic,
            crystal=self.crystal,
            multiplicity=torch.ones_like(self.positions[:, 0], dtype=dtype),
            receiver=self.receiver[kept],
            sender=self.sender[kept],
            image=self.image[kept],
            vector=vector[kept].to(dtype),
        )

    def stale(self) -> list[int]:
        """Number the crystals in which pairs nobody knows of may have come within the cutoff.

        The motion is split into a strain and what atoms moved beyond it, less the mean of all. A
        strain shrinks no distance by more than the norm of its difference from identity.
        """
        strain = self._old_inverse @ self.cell
        moved = self.positions - (self._old_positions[:, None] @ strain[self.crystal])[:, 0]
        size = self.crystal.bincount(minlength=len(self.counts))[:, None]
        mean = torch.zeros_like(self.cell[:, 0]).index_add(0, self.crystal, moved) / size
        distance = (moved - mean[self.crystal]).norm(dim=-1)
        farthest = distance.new_zeros(len(self.counts))
        farthest = farthest.scatter_reduce(0, self.crystal, distance, "amax")
        shrunk = 1 - torch.linalg.matrix_norm(strain - torch.eye(3).to(strain))
        safe = shrunk * (self.cutoff + SKIN) - 2 * farthest >= self.cutoff
        return torch.nonzero(~safe)[:, 0].tolist()

    def unload(self) -> None:
        """Tell the movers where they are."""
        positions = self.positions.cpu().split(self.counts)
        for mover, now, cell in zip(self.movers, positions, self.cell.cpu(), strict=True):
            mover.positions, mover.cell = now.numpy(), cell.numpy()
