"""Batches cut by edge count, not by crystal count: equal work and equal memory in each."""

from collections.abc import Callable, Iterator
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

#: Numbers of the crystals of a batch, and what else belongs among its labels.
Drawn = tuple[list[int], dict[str, Tensor]]


class EdgeBudgetSampler(Sampler[list[int]]):
    """Cut shuffled crystals into batches of about equal work.

    Batches are cut from a random order, so they stay random; a crystal larger than the budget is a
    batch of its own.

    Every batch but the last of an epoch holds at most ``budget``, and more than ``budget`` less
    the largest crystal. So of processes that step together none waits for another more than the
    share that the largest crystal is of the budget, but in steps with the last batch, or with a
    crystal beyond the budget or the batch cut short before it.

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

    def batches_of_all(self) -> list[NDArray[np.int64]]:
        """Cut this epoch into the batches of all processes, shuffled; they take turns.

        There are as many for each process, else one waits for the others for ever.
        """
        batches = self._cut()
        return batches[: len(batches) // self.world * self.world]

    def _cut(self) -> list[NDArray[np.int64]]:
        order = self._order()
        spent = np.concatenate([[0], np.cumsum(self.cost[order])])
        cuts = [0]
        while cuts[-1] < len(order):
            fits = int(np.searchsorted(spent, spent[cuts[-1]] + self.budget, side="right")) - 1
            cuts.append(max(fits, cuts[-1] + 1))
        return [order[start:stop] for start, stop in pairwise(cuts)]

    def _batches(self) -> list[NDArray[np.int64]]:
        if self.seed is None:
            return self._cut()
        return self.batches_of_all()[self.rank :: self.world]

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self._batches()[self.skip :])

    def __len__(self) -> int:
        """Count the batches of this epoch, those left out included."""
        return len(self._batches())


class _Batches(Dataset[Batch]):
    """A packed set whose items are whole batches."""

    def __init__(
        self, packed: PackedCrystals, change: Callable[[list[int], Batch], Batch] | None
    ) -> None:
        self.packed, self.change = packed, change

    def __getitem__(self, drawn: list[int] | Drawn) -> Batch:
        which, more = drawn if isinstance(drawn, tuple) else (drawn, {})
        graph, labels = self.packed.batch(which)
        batch = graph, labels | more
        return batch if self.change is None else self.change(which, batch)


def work(packed: PackedCrystals, per_atom: int = 20) -> NDArray[np.int64]:
    """Estimate the work of every crystal, in edges."""
    atoms = np.asarray(packed.arrays["atoms"], dtype=np.int64)
    return np.asarray(packed.arrays["edges"], dtype=np.int64) + per_atom * atoms


def loader(
    packed: PackedCrystals,
    sampler: Sampler[list[int]] | Sampler[Drawn],
    workers: int = 0,
    change: Callable[[list[int], Batch], Batch] | None = None,
) -> DataLoader[Batch]:
    """Load the batches a sampler names; each item is one collated batch.

    Args:
        packed: Where the crystals are.
        sampler: Which are in each batch.
        workers: Processes that load ahead.
        change: What is done to each batch where it is loaded, by the numbers of its crystals.
    """
    # Left to itself, a loader draws the seed of its workers from torch's global generator.
    generator = torch.Generator().manual_seed(0)
    return DataLoader(
        _Batches(packed, change),
        sampler=sampler,
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=workers,
        generator=generator,
    )


def _unchanged(batch: Any) -> Any:
    """Keep torch from making a list of the pair."""
    return batch
