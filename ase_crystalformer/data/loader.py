"""Batches cut by edge count, not by crystal count: equal work and equal memory in each."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.graph import CrystalGraph

Batch = tuple[CrystalGraph, dict[str, Tensor]]


class EdgeBudgetSampler(Sampler[list[int]]):
    """Cut shuffled crystals into batches of about equal work.

    Batches are cut from a random order, so they stay random; a crystal larger than the budget is a
    batch of its own.

    Args:
        cost: Work of each crystal, in edges.
        which: Numbers of the crystals to draw.
        budget: Work per batch.
        seed: Of the shuffling; with the epoch it fixes the order. ``None`` keeps the given order.
        share: Chance of each crystal to be drawn in an epoch; None draws all. Large sets of similar
            frames need not all be seen each time.
        rank: This process among ``world``; each takes every ``world``-th batch, of shuffled ones
            as many as the others. Up to ``world - 1`` batches of an epoch are left out for that.
        world: Number of processes.

    Attributes:
        epoch: Whose order is drawn next.
        skip: How many batches to leave out at the start: a resumed run has done them.
    """

    def __init__(
        self,
        cost: NDArray[np.int64],
        which: NDArray[np.int64],
        *,
        budget: int,
        seed: int | None,
        share: NDArray[np.float64] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.cost, self.which, self.budget = cost, which, budget
        self.seed, self.rank, self.world = seed, rank, world
        self.share = share
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch; Lightning calls it."""
        self.epoch = epoch

    def _order(self) -> NDArray[np.int64]:
        if self.seed is None:
            return self.which[self.rank :: self.world]
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(self.which)
        if self.share is not None:
            order = order[random.random(len(order)) < self.share[order]]
        return order

    def _batches(self) -> list[NDArray[np.int64]]:
        order = self._order()
        spent = np.concatenate([[0], np.cumsum(self.cost[order])])
        cuts = [0]
        while cuts[-1] < len(order):
            fits = int(np.searchsorted(spent, spent[cuts[-1]] + self.budget, side="right")) - 1
            cuts.append(max(fits, cuts[-1] + 1))
        batches = [order[start:stop] for start, stop in pairwise(cuts)]
        if self.seed is None:
            return batches
        # As many for each process, else one waits for the others for ever.
        return batches[self.rank : len(batches) // self.world * self.world : self.world]

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self._batches()[self.skip :])

    def __len__(self) -> int:
        """Count the batches of this epoch, those left out included."""
        return len(self._batches())


class _Batches(Dataset[Batch]):
    """A packed set whose items are whole batches."""

    def __init__(self, packed: PackedCrystals) -> None:
        self.packed = packed

    def __getitem__(self, which: list[int]) -> Batch:
        return self.packed.batch(which)


def work(packed: PackedCrystals, per_atom: int = 20) -> NDArray[np.int64]:
    """Estimate the work of every crystal, in edges."""
    atoms = np.asarray(packed.arrays["atoms"], dtype=np.int64)
    return np.asarray(packed.arrays["edges"], dtype=np.int64) + per_atom * atoms


def loader(
    packed: PackedCrystals, sampler: EdgeBudgetSampler, workers: int = 0
) -> DataLoader[Batch]:
    """Load the batches a sampler names; each item is one collated batch."""
    # Left to itself, a loader draws the seed of its workers from torch's global generator.
    generator = torch.Generator().manual_seed(0)
    return DataLoader(
        _Batches(packed),
        sampler=sampler,
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=workers,
        generator=generator,
    )


def _unchanged(batch: Any) -> Any:
    """Keep torch from making a list of the pair."""
    return batch
