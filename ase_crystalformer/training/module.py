"""The Lightning module: one step, one optimiser, errors in physical units."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ase_crystalformer.data.loader import Batch
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.batches import PackedData
from ase_crystalformer.training.denoising import DenoisingObjective
from ase_crystalformer.training.objective import EnergyObjective, Errors, PropertyObjective
from ase_crystalformer.training.optimizers import make_optimizer
from ase_crystalformer.training.schedules import SCHEDULES
from ase_crystalformer.training.settings import Optim

#: What may be minimised.
Objective = PropertyObjective | EnergyObjective | DenoisingObjective

LOGGER = logging.getLogger(__name__)


class Fitting(LightningModule):
    """A model, what it minimises, and how its weights move.

    Attributes:
        batches: How many of this epoch have been trained on.
        streak: How many of the last of them had a loss that is not finite.
    """

    def __init__(self, model: CrystalModel, objective: Objective, optim: Optim) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.optim = optim
        self.errors, self.losses = Errors(), Errors()
        self.batches = 0
        self.streak: Tensor | int = 0

    def on_train_epoch_start(self) -> None:
        """Count anew."""
        self.batches, self.streak = 0, 0

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Compute the loss of one batch."""
        loss = self.objective(self.model, *batch)
        self.batches += 1
        self.streak = (self.streak + 1) * ~loss.detach().isfinite()
        self.log("loss", loss.detach(), prog_bar=True, batch_size=batch[0].crystals)
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient; one that is not finite would ruin every weight, and is dropped."""
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        slopes = [weight.grad for weight in self.parameters() if weight.grad is not None]
        if slopes and not torch.stack([slope.isfinite().all() for slope in slopes]).all():
            optimizer.zero_grad()
            LOGGER.warning("step %d is left out: its gradient is not finite", self.global_step)

    def on_validation_start(self) -> None:
        """Let processes judge by themselves: their numbers of batches differ."""
        self._share_buffers(False)

    def on_validation_end(self) -> None:
        """Let processes step together again."""
        self._share_buffers(True)

    def _share_buffers(self, shared: bool) -> None:
        """Choose whether processes wait for the first one's buffers in every forward pass."""
        model = self.trainer.model
        if isinstance(model, DistributedDataParallel):
            model.require_forward_param_sync = shared

    def on_validation_epoch_start(self) -> None:
        """Forget the errors of the last validation."""
        self.errors, self.losses = Errors(), Errors()

    def validation_step(self, batch: Batch, _: int) -> None:
        """Collect the errors of one batch, and the sums of its loss."""
        for term in self.objective.terms(self.model, *batch, self.errors):
            self.losses.put(term.name, float(term.total), int(term.number))

    def on_validation_epoch_end(self) -> None:
        """Show the loss, a mean over all labels however batches are cut, and the errors."""
        sums = self._summed(
            [*zip(self.losses.total.values(), self.losses.count.values(), strict=True)]
        )
        loss = sum(total / max(1, count) for total, count in sums)
        self.log("val/loss", loss, sync_dist=True)
        for name, entry in self.measured().items():
            shown = f"val/{name} ({entry['unit']})"
            self.log(shown, entry["mae"], prog_bar=True, sync_dist=True)
        if lost := sum(self.errors.lost.values()):
            LOGGER.warning("%d validation predictions are not finite, and in no error.", lost)

    def measured(self) -> dict[str, dict[str, Any]]:
        """Mean absolute errors of the last validation, as on a model's card.

        Every process must call it: their errors are summed.
        """
        units, errors = self.objective.units(self.model), self.errors
        sums = self._summed([(errors.total.get(n, 0.0), errors.count.get(n, 0)) for n in units])
        return {
            name: {"mae": total / count, "unit": unit, "n": int(count), "on": "val"}
            for (name, unit), (total, count) in zip(units.items(), sums, strict=True)
            if count
        }

    def divergence(self) -> str:
        """Say what of the last epoch is not finite, if it is the most part; every process must.

        Where nothing judges, the losses of the training tell.
        """
        data, errors = self.trainer.datamodule, self.errors
        assert isinstance(data, PackedData)
        found: dict[str, tuple[Tensor | int, int]] = {
            f"validation predictions of {name}": (errors.lost[name], errors.lost[name] + count)
            for name, count in errors.count.items()
        }
        if len(data.val) == 0:
            found = {"training losses, the last ones of the epoch,": (self.streak, self.batches)}
        sums = self._summed([(float(lost), number) for lost, number in found.values()])
        for what, (lost, number) in zip(found, sums, strict=True):
            if 2 * lost > number:
                return f"{lost:.0f} of {number:.0f} {what} are not finite"
        sound = all(bool(weight.isfinite().all()) for weight in self.parameters())
        return "" if sound else "its weights are not finite"

    def _summed(self, rows: Sequence[tuple[float, int]]) -> list[tuple[float, float]]:
        """Add up numbers of all processes, which must all call it."""
        sums = torch.tensor(rows, dtype=torch.float64).reshape(-1, 2)
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum").cpu()
        return [(first, second) for first, second in sums.tolist()]

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimiser of the recipe, its rate moved step by step."""
        optimizer = make_optimizer(self, self.optim)
        data = self.trainer.datamodule
        assert isinstance(data, PackedData)
        steps = data.steps(self.optim.epochs)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate(step, steps, self.optim)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate(step: int, steps: int, optim: Optim) -> float:
    """Share of the peak rate at a step; frozen where the recipe says so."""
    if optim.swa_frozen:
        step = min(step, int(averaged_from(steps, optim)))
    return SCHEDULES[optim.schedule](step, steps, optim.warmup)


def averaged_from(steps: int, optim: Optim) -> float:
    """After how many steps the plain mean of the weights begins."""
    return steps * (1 - optim.swa_last)
