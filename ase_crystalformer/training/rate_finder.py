"""Find a learning rate: raise it step by step from nothing, and see where the loss falls fastest.

Source: L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, as in
Lightning's ``Tuner``.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Float
from lightning.pytorch import Trainer
from lightning.pytorch.tuner import Tuner
from numpy import ndarray
from torch.optim import Optimizer

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.training.batches import PackedData
from ase_crystalformer.training.build import build_model, build_objective
from ase_crystalformer.training.config import Recipe
from ase_crystalformer.training.module import Fitting
from ase_crystalformer.training.prepare import prepare
from ase_crystalformer.training.surroundings import accelerator_of, surroundings
from ase_crystalformer.writing import whole

#: Between which rates is searched, and in how many steps.
LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 100

#: The search stops when the loss is so many times the least.
LOST = 4.0


@dataclass(frozen=True, eq=False, kw_only=True)
class FoundRate:
    """Losses along a rising rate.

    Attributes:
        rates: Learning rates, one for each step.
        losses: Of each step, smoothed over about 50.
        suggestion: Where the loss falls fastest. It is a start for ``optim.peak_lr``.
    """

    rates: Float[ndarray, " steps"]
    losses: Float[ndarray, " steps"]
    suggestion: float


def find_rate(recipe: Recipe, *, steps: int = STEPS, progress: bool = True) -> FoundRate:
    """Train with a rising rate from the weights a run of the recipe starts from.

    Nothing is left behind but the packed set.

    Args:
        recipe: Of the run; its schedule and number of epochs play no part.
        steps: Of the optimiser.
        progress: Show a progress bar.

    Raises:
        BadRecipe: As for a run; or the losses tell no rate, since they never fall; or an epoch has
            fewer batches than ``optim.accumulate``.
    """
    machine = recipe.machine
    with surroundings(machine), TemporaryDirectory() as folder:
        packed = prepare(recipe)
        data = PackedData(packed, recipe)
        model = build_model(recipe, packed, data.train)
        objective = build_objective(recipe, model, packed, data.train)
        trainer = Trainer(
            accelerator=accelerator_of(machine),
            devices=1,
            precision=machine.precision,
            max_epochs=-1,
            accumulate_grad_batches=recipe.optim.accumulate,
            gradient_clip_val=recipe.optim.clip,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=1,
            default_root_dir=folder,
        )
        found = Tuner(trainer).lr_find(
            Searched(model, objective, recipe.optim),
            datamodule=data,
            min_lr=LOWEST,
            max_lr=HIGHEST,
            num_training=steps,
            early_stop_threshold=LOST,
            update_attr=False,
        )
    return _told(found, recipe)


class Searched(Fitting):
    """A run whose rate Lightning sets, the same for all weights; their ratios are kept here."""

    lr: float = LOWEST

    def configure_optimizers(self) -> dict[str, Any]:
        """As of a run; how much faster than others some weights move is remembered."""
        told = super().configure_optimizers()
        groups = told["optimizer"].param_groups
        self.ratios = [group["initial_lr"] / self.optim.peak_lr for group in groups]
        return told

    def on_train_start(self) -> None:
        """Refuse epochs of less than one step: Lightning's search sees whole steps only."""
        batches, accumulate = self.trainer.num_training_batches, self.optim.accumulate
        if batches < accumulate:
            raise BadRecipe(
                f"An epoch has {batches} batches, fewer than optim.accumulate = {accumulate}, so "
                "no rate can be searched for. Lower optim.accumulate or optim.budget."
            )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Set rates apart again; the schedule sets all of them anew after the step."""
        for group, ratio in zip(optimizer.param_groups, self.ratios, strict=True):
            group["lr"] *= ratio


def _told(found: Any, recipe: Recipe) -> FoundRate:
    suggestion = found.suggestion()
    if suggestion is None:
        raise BadRecipe(
            f"The loss of {recipe.name!r} tells no learning rate: too few steps were made, or it "
            "never fell. Check the data, or search by hand with --set optim.peak_lr."
        )
    rates, losses = (np.array(found.results[name], dtype=float) for name in ("lr", "loss"))
    return FoundRate(rates=rates, losses=losses, suggestion=float(suggestion))


def plot_rate(found: FoundRate, path: Path) -> None:
    """Draw the losses over the rate, with the suggestion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(found.rates, found.losses)
    axes.axvline(found.suggestion, color="black", linestyle=":")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss, smoothed")
    axes.set_title(f"falls fastest at {found.suggestion:.1e}")
    with whole(path) as partial:
        figure.savefig(partial, dpi=150)
