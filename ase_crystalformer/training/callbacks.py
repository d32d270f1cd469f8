"""What happens besides the steps: averages of the weights, checkpoints, the model on disk."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from torch import Tensor

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.training.batches import PackedData
from ase_crystalformer.training.denoising import DenoisingObjective
from ase_crystalformer.training.force_only import fit_energies
from ase_crystalformer.training.module import Fitting, averaged_from
from ase_crystalformer.training.objective import EnergyObjective
from ase_crystalformer.training.settings import Optim


class Averaging(WeightAveraging):
    """Average the weights: with a decay all along, or plainly over the last share of the run.

    Validation sees the average, and it is what stays in the model when training ends.
    """

    def __init__(self, optim: Optim) -> None:
        super().__init__(avg_fn=self._average)
        self.optim = optim
        self.start: float = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the step at which the plain mean begins."""
        super().setup(trainer, pl_module, stage)
        assert isinstance(trainer.datamodule, PackedData)
        steps = trainer.datamodule.steps(self.optim.epochs)
        self.start = averaged_from(steps, self.optim)

    def _average(self, average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        """Move the average towards the current weights, after ``updates`` steps."""
        since = int(updates) - self.start
        if self.optim.swa_last and since >= 0:
            return average + (current - average) / (int(since) + 1)
        if self.optim.ema is None:
            return current
        # A young average forgets faster: else a short run would keep its first, random weights.
        decay = min(self.optim.ema, (1 + int(updates)) / (10 + int(updates)))
        return average + (1 - decay) * (current - average)


class FitEnergies(Callback):
    """Fit the energies that forces leave open, before the model is judged and saved.

    It stands after ``Averaging``: the weights it finds are the averaged ones.
    """

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit them to the training crystals."""
        assert isinstance(pl_module, Fitting)
        assert isinstance(trainer.datamodule, PackedData)
        self.fit(pl_module, trainer.datamodule)

    @staticmethod
    def fit(module: Fitting, data: PackedData) -> None:
        """Fit them to the training crystals."""
        whole = module.objective
        objective = whole.main if isinstance(whole, DenoisingObjective) else whole
        assert isinstance(objective, EnergyObjective)
        fit_energies(module.model, objective, data.packed, data.train)


class Checkpoints(ModelCheckpoint):
    """Write ``last.ckpt`` every few minutes and when a run breaks, but never around an epoch's end.

    Between the last step of an epoch and the start of the next one the state is neither inside an
    epoch nor between two, and the model may hold averaged weights: the start writes it. Nor between
    the batches of one step, whose gradients it does not hold; nor when one process of several
    breaks, as the others would not come along. Nor where losses are not finite: the last checkpoint
    with sound weights stays.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the state between two epochs, if it is time: an epoch may be a single step."""
        if trainer.global_step > 0:
            _forget_batches(trainer)
            super().on_train_batch_end(trainer, pl_module, None, None, 0)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """Write the state, if it is time."""
        if _between_steps(trainer) and _is_sound(module):
            super().on_train_batch_end(trainer, module, *args)

    def on_exception(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """Write the state of a run that breaks inside an epoch."""
        if _between_steps(trainer) and trainer.world_size == 1 and _is_sound(module):
            super().on_exception(trainer, module, *args)


class EndAtOnce(Callback):
    """Let SIGTERM end every process of a run of several, as queues send it before they kill.

    Lightning's handler waits for the other processes while these wait for it, and none ever ends
    (https://github.com/Lightning-AI/pytorch-lightning/issues/20806). Its handler of a single
    process is left in place: that one writes a checkpoint.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of Lightning's handler, which puts back the first one when it is done."""
        launcher = trainer.strategy.launcher
        if trainer.world_size == 1 or threading.current_thread() is not threading.main_thread():
            return
        if launcher is None or not trainer.is_global_zero:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            return

        def end(signum: int, frame: Any) -> None:
            launcher.kill(signal.Signals(signum))  # the processes that this one has started
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

        signal.signal(signal.SIGTERM, end)


def _forget_batches(trainer: Trainer) -> None:
    """Count the batches of an epoch from zero, as Lightning does once its hooks are called.

    Else a run that resumes here takes the epoch that begins for the one that is over.
    """
    loop = trainer.fit_loop.epoch_loop
    if not trainer.fit_loop.restarting:
        loop.batch_progress.reset_on_run()
        loop.scheduler_progress.reset_on_run()
        loop.automatic_optimization.optim_progress.reset_on_run()
        loop.val_loop.batch_progress.total.reset()


def _between_steps(trainer: Trainer) -> bool:
    done = trainer.fit_loop.epoch_loop.batch_progress.current.processed
    return not trainer.is_last_batch and done % trainer.accumulate_grad_batches == 0


def _is_sound(module: LightningModule) -> bool:
    """Say whether the last loss was finite."""
    return not (isinstance(module, Fitting) and bool(module.streak))


class SaveModel(Callback):
    """Write the model after every validation, with its errors and its history on the card.

    It stands before ``Averaging``: the weights it finds are the averaged ones that were judged.
    Where they have diverged it ends the run, and the model of the last sound epoch stays.

    Args:
        folder: Of the run.
        facts: What the card tells of the training, besides epochs and hours.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder, self.facts = folder, facts
        self.earlier, self.saved = 0.0, False
        self.begun = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Remember the time spent."""
        return {"seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from the time spent before."""
        self.earlier = state_dict["seconds"]
        self.begun = time.monotonic()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save from the first process, while the model holds the averaged weights."""
        assert isinstance(pl_module, Fitting)
        self._refuse_diverged(pl_module)
        measured = pl_module.measured()
        self.saved = True  # by the first process, which is what counts
        if trainer.is_global_zero and not trainer.sanity_checking:
            self.save(pl_module, measured, trainer.current_epoch + 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the weights where there is no validation."""
        assert isinstance(pl_module, Fitting)
        assert isinstance(trainer.datamodule, PackedData)
        if len(trainer.datamodule.val) == 0:
            self._refuse_diverged(pl_module)

    def _refuse_diverged(self, module: Fitting) -> None:
        """End a run whose weights are of no use any more.

        Raises:
            BadRecipe: They are not.
        """
        if what := module.divergence():
            there = (self.folder / "model.json").is_file()
            left = "stays that of an epoch before" if there else "was never written"
            raise BadRecipe(
                f"The training has diverged in epoch {module.current_epoch + 1}: {what}. Its model "
                f"in {self.folder} {left}. Lower optim.peak_lr (crystalformer train --find-rate "
                "looks for a rate) or optim.clip, and train anew."
            )

    def save(self, module: Fitting, errors: dict[str, Any], epochs: int) -> None:
        """Write the model as it is now."""
        history = {**self.facts, "epochs": epochs, "hours": round(self._seconds() / 3600, 3)}
        model = module.model
        model.card = replace(model.card, errors=errors, training=history)
        model.save(self.folder / "model")

    def _seconds(self) -> float:
        return self.earlier + time.monotonic() - self.begun
