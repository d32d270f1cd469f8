"""The Lightning module: one step, one optimiser, errors in physical units."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from ase_crystalformer.data.loader import Batch
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.config import Optim
from ase_crystalformer.training.objective import Errors


class Fitting(LightningModule):
    """A model, what it minimises, and how its weights move."""

    def __init__(self, model: CrystalModel, objective: nn.Module, optim: Optim) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.optim = optim
        self.errors = Errors()

    def training_step(self, batch: Batch, _: int) -> Tensor:
        loss = self.objective(self.model, *batch, Errors())
        self.log("loss", loss.detach(), prog_bar=True, batch_size=batch[0].crystals)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.errors = Errors()

    def validation_step(self, batch: Batch, _: int) -> None:
        loss = self.objective(self.model, *batch, self.errors)
        self.log("val/loss", loss.detach(), batch_size=batch[0].crystals, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        for name, value in self.errors.means().items():
            self.log(f"val/{name}", value, prog_bar=True, sync_dist=True)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _: int) -> Batch:
        graph, labels = batch
        return graph.to(device), {name: tensor.to(device) for name, tensor in labels.items()}

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with a linear rise and a cosine fall of the rate, step by step."""
        matrices, rest, shifts = [], [], []
        for name, parameter in self.named_parameters():
            if name.startswith("objective"):
                shifts.append(parameter)
            else:
                (matrices if parameter.dim() > 1 else rest).append(parameter)
        groups = [
            {"params": matrices, "weight_decay": self.optim.weight_decay},
            {"params": rest, "weight_decay": 0.0},
            {"params": shifts, "weight_decay": 0.0, "lr": 10 * self.optim.peak_lr},
        ]
        groups = [group for group in groups if group["params"]]
        optimizer = torch.optim.AdamW(groups, lr=self.optim.peak_lr, betas=(0.9, 0.98))
        steps = int(self.trainer.estimated_stepping_batches)
        rise = max(1, int(self.optim.warmup * steps))

        def rate(step: int) -> float:
            if step < rise:
                return (step + 1) / rise
            done = (step - rise) / max(1, steps - rise)
            return max(1e-4, 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
