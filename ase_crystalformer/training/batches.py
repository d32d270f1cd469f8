"""Training and validation batches of a packed set, and where in an epoch a run continues."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ase_crystalformer.data.loader import Batch, EdgeBudgetSampler, loader, work
from ase_crystalformer.data.packed import REPLAY, PackedCrystals
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.training.augment import orthogonal, turned
from ase_crystalformer.training.config import Recipe
from ase_crystalformer.training.denoising import NOISE, Rattle, at_rest
from ase_crystalformer.training.steps import StepSampler, known_labels, steps_in


class PackedData(LightningDataModule):
    """Training and validation batches of a packed set, cut by edge budget.

    Raises:
        BadRecipe: There is nothing to train on.
    """

    begun: Mapping[str, Any] | None = None

    def __init__(self, packed: PackedCrystals, recipe: Recipe) -> None:
        super().__init__()
        self.packed, self.recipe = packed, recipe
        kept = learned_from(packed, recipe)
        self.train, self.val = (w[kept[w]] for w in (packed.where("train"), packed.where("val")))
        self.share = self._shares()
        if len(self.train) == 0:
            raise BadRecipe(
                f"{packed.folder} holds {len(packed)} crystals, but none to train on. Check its "
                "splits, data.largest_crystal and data.share."
            )

    def _shares(self) -> NDArray[np.float64]:
        """Chance of each crystal to be drawn in an epoch."""
        names = self.packed.meta["names"]["source"]
        share = np.array([self.recipe.data.share.get(name, 1.0) for name in names])
        source = np.asarray(self.packed.arrays["source"])
        if self.recipe.data.replay is not None and REPLAY in names:
            number = names.index(REPLAY)
            replayed = int((source[self.train] == number).sum())
            wanted = self.recipe.data.replay * (len(self.train) - replayed)
            share[number] = min(1.0, wanted / max(1, replayed))
        return share[source]

    def setup(self, stage: str) -> None:
        """Refuse more processes than there are crystals to judge by; Lightning calls it."""
        world = self.trainer.world_size
        if 0 < len(self.val) < world:
            raise BadRecipe(
                f"{self.packed.folder} has {len(self.val)} crystals for validation, fewer than the "
                f"{world} processes. Use fewer (machine.devices, machine.nodes), or set more aside."
            )

    def state_dict(self) -> dict[str, Any]:
        """Remember how batches are cut and shared, on which the number of those done depends."""
        return self._cut()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Learn how they were before."""
        self.begun = dict(state_dict)

    def _cut(self) -> dict[str, int]:
        optim = self.recipe.optim
        return {
            "processes": self.trainer.world_size,
            "optim.budget": optim.budget,
            "optim.accumulate": optim.accumulate,
        }

    def steps(self, epochs: int) -> int:
        """Count the steps of the optimiser in so many epochs.

        Raises:
            BadRecipe: An epoch has fewer batches than there are processes.
        """
        sampler = self._sampler(training=True)
        total = 0
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            batches = len(sampler)
            if batches == 0:
                raise BadRecipe(
                    f"Epoch {epoch} has fewer batches than there are processes "
                    f"({self.trainer.world_size}), so nothing would be learned. Lower "
                    "optim.budget, use fewer devices, or raise data.share."
                )
            total += steps_in(batches, self.recipe.optim.accumulate)
        return total

    def train_dataloader(self) -> DataLoader[Batch]:
        """Load the batches of this epoch; where a run resumes inside one, those still to come."""
        sampler = self._sampler(training=True)
        sampler.set_epoch(self.trainer.current_epoch)
        sampler.skip = self._done_before()
        drawn = self._with_numbers(sampler)
        moved = self._rattle(1 + self.trainer.current_epoch)
        return loader(self.packed, drawn, self.recipe.machine.workers, moved)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Load every validation crystal, in order; where atoms are moved, always likewise."""
        workers = self.recipe.machine.workers
        return loader(self.packed, self._sampler(training=False), workers, self._rattle(0))

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _: int) -> Batch:
        """Move a batch to where the model is."""
        graph, labels = batch
        return graph.to(device), {name: tensor.to(device) for name, tensor in labels.items()}

    def on_after_batch_transfer(self, batch: Batch, _: int) -> Batch:
        """Turn each training crystal, if asked; the step says how, so that resuming is exact."""
        trainer = self.trainer
        if not (self.recipe.data.augment and trainer.training):
            return batch
        done = trainer.fit_loop.epoch_loop.batch_progress.current.processed
        part = done % self.recipe.optim.accumulate
        seed = (self.recipe.seed, trainer.global_step, trainer.global_rank, part)
        return turned(batch, orthogonal(batch[0].crystals, seed))

    def _sampler(self, *, training: bool) -> EdgeBudgetSampler:
        return EdgeBudgetSampler(
            work(self.packed),
            self.train if training else self.val,
            budget=self.recipe.optim.budget,
            seed=self.recipe.seed if training else None,
            share=self.share,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )

    def _with_numbers(self, sampler: EdgeBudgetSampler) -> EdgeBudgetSampler | StepSampler:
        """Tell batches that are not a step of their own how many labels the step has."""
        accumulate = self.recipe.optim.accumulate
        if self.trainer.world_size * accumulate == 1:
            return sampler
        return StepSampler(sampler, self.known, accumulate)

    @cached_property
    def known(self) -> dict[str, NDArray[np.int64]]:
        """How many labels of each name every crystal has."""
        known = known_labels(self.packed)
        return known if self.quiet is None else known | {NOISE: known["atoms"] * self.quiet}

    @cached_property
    def quiet(self) -> NDArray[np.bool_] | None:
        """Which crystals are at rest, if it matters."""
        denoise = self.recipe.denoise
        return None if denoise is None else at_rest(self.packed, denoise.rest)

    def _rattle(self, epoch: int) -> Rattle | None:
        denoise = self.recipe.denoise
        if denoise is None or self.quiet is None:
            return None
        return Rattle(self.quiet, denoise.noise, self.recipe.seed, epoch)

    def _done_before(self) -> int:
        """Count the batches of this epoch that were done before the checkpoint was written."""
        loop = self.trainer.fit_loop
        progress = loop.epoch_loop.batch_progress
        done = int(progress.current.processed)
        if not loop.restarting or progress.is_last_batch or done == 0:
            return 0
        before, now = self.begun or {}, self._cut()
        changed = [
            f"{name} was {before[name]}" for name in now if before.get(name, now[name]) != now[name]
        ]
        if changed:
            raise BadRecipe(
                f"The run was cut off inside an epoch whose batches were others: "
                f"{', '.join(changed)}. Go on with the same; between epochs it may change."
            )
        return done


def learned_from(packed: PackedCrystals, recipe: Recipe) -> NDArray[np.bool_]:
    """Tell of every crystal whether it may teach, or judge while the model learns.

    Raises:
        BadRecipe: ``data.share`` names a source that is not in the set.
    """
    names, share = packed.meta["names"]["source"], recipe.data.share
    if unknown := [name for name in share if name not in names]:
        raise BadRecipe(
            f"data.share names {', '.join(unknown)}, of which {packed.folder} holds nothing. It "
            f"holds {', '.join(names)}."
        )
    nought = [number for number, name in enumerate(names) if share.get(name) == 0]
    largest = recipe.data.largest_crystal or np.inf
    small = np.asarray(packed.arrays["atoms"]) <= largest
    return small & ~np.isin(packed.arrays["source"], nought)
