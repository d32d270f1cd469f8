"""Fit a model: a recipe in, a run folder out.

The folder holds ``recipe.json``, ``run.json``, ``metrics.csv``, TensorBoard logs (where TensorBoard
is installed), ``checkpoints/last.ckpt`` to resume from, and the model (``model.safetensors`` +
``model.json``), rewritten after every validation.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.batches import PackedData
from ase_crystalformer.training.build import build_model, build_objective
from ase_crystalformer.training.callbacks import Averaging, Checkpoints, FitEnergies, SaveModel
from ase_crystalformer.training.config import Recipe, read_recipe
from ase_crystalformer.training.force_only import is_force_only
from ase_crystalformer.training.module import Fitting
from ase_crystalformer.training.prepare import prepare
from ase_crystalformer.training.record import (
    changed_since,
    checkpoint_of,
    keep_metrics,
    write_record,
)

LOGGER = logging.getLogger(__name__)

#: Loggers of Lightning that advertise, and repeat what the recipe says.
CHATTER = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")

#: Warnings that do not apply: what they warn of is wanted, or taken care of here.
NEEDLESS = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*resuming from a checkpoint that ended before the epoch ended.*",
    ".*callbacks used to create the checkpoint.*",
    ".*exists and is not empty.*",
    ".*Total length of `.*` across ranks is zero.*",
    ".*Grad strides do not match bucket view strides.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
)


def train(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    row: str | None = None,
    runs: str | Path = "runs",
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Train from a recipe file and return the run folder, ``runs/<name>``.

    Args:
        recipe: The file.
        overrides: ``section.key=value`` in TOML.
        row: Of a recipe with rows, which one.
        runs: Where run folders are.
        resume: Go on with the run that is there.
        progress: Show a progress bar.

    Raises:
        BadRecipe: The recipe is not valid, or its data are not to be had.
    """
    read = read_recipe(recipe, overrides, row=row)
    folder = Path(runs) / read.name
    begun = (folder / "checkpoints" / "last.ckpt").exists() or (folder / "model.json").exists()
    if begun and not resume:
        raise BadRecipe(
            f"{folder} holds a run already. If it was cut off, continue it with --resume {folder}; "
            "or train under another name: --set name='\"another\"'."
        )
    fit(read, folder, resume=resume, progress=progress)
    return folder


def fit(
    recipe: Recipe, folder: str | Path, *, resume: bool = False, progress: bool = True
) -> CrystalModel:
    """Train as the recipe says, and leave the model and its history in ``folder``.

    Data that are not packed yet are packed first.

    Args:
        recipe: See ``training.config``.
        folder: Of the run.
        resume: Continue from ``checkpoints/last.ckpt``; the trajectory is that of an unbroken run.
            A finished run goes on from its averaged weights if the recipe asks for more epochs.
        progress: Show a progress bar with errors in physical units.

    Returns:
        The model, its weights averaged as the recipe asks.
    """
    folder = Path(folder)
    checkpoint = _checkpoint(recipe, folder) if resume else None
    with _threads(recipe.machine.threads), _matmul(recipe.machine.matmul), _quiet():
        packed = prepare(recipe)
        data = PackedData(packed, recipe)
        model = build_model(recipe, packed, data.train)
        objective = build_objective(recipe, model, packed, data.train)
        saver = SaveModel(folder, write_record(recipe, folder))
        module = Fitting(model, objective, recipe.optim)
        trainer = _trainer(recipe, folder, saver, progress)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
        if len(data.val) == 0:
            _finish_unjudged(recipe, module, data, saver)
    return model.eval()


def _finish_unjudged(recipe: Recipe, module: Fitting, data: PackedData, saver: SaveModel) -> None:
    """Do what is done at every validation, where there is none."""
    module.eval()
    if is_force_only(recipe.energy):
        FitEnergies.fit(module, data)
    if module.trainer.is_global_zero:
        saver.save(module, {}, recipe.optim.epochs)


def _checkpoint(recipe: Recipe, folder: Path) -> Path:
    """Prepare to continue, and tell if the trajectory will not be that of an unbroken run."""
    checkpoint = checkpoint_of(folder)
    changed = changed_since(folder, recipe)
    if changed:
        LOGGER.warning(
            "The run in %s began with another %s: it goes on, but not as if it had never stopped.",
            folder,
            ", ".join(changed),
        )
    keep_metrics(folder)
    return checkpoint


def _trainer(recipe: Recipe, folder: Path, saver: SaveModel, progress: bool) -> Trainer:
    machine, optim = recipe.machine, recipe.optim
    callbacks: list[Callback] = [saver, LearningRateMonitor("step")]
    if optim.ema is not None or optim.swa_last:
        callbacks.append(Averaging(optim))
    if is_force_only(recipe.energy):
        callbacks.append(FitEnergies())
    callbacks.append(
        Checkpoints(
            folder / "checkpoints",
            filename="last",
            train_time_interval=timedelta(minutes=machine.checkpoint_minutes),
            enable_version_counter=False,
            save_on_exception=True,
        )
    )
    return Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        num_nodes=machine.nodes,
        strategy=machine.strategy,
        precision=machine.precision,
        max_epochs=optim.epochs,
        accumulate_grad_batches=optim.accumulate,
        gradient_clip_val=optim.clip,
        callbacks=callbacks,
        logger=_loggers(folder),
        default_root_dir=folder,
        enable_progress_bar=progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1,
        inference_mode=False,
        num_sanity_val_steps=0,
        log_every_n_steps=50,
    )


def _loggers(folder: Path) -> list[Logger]:
    loggers: list[Logger] = [CSVLogger(folder, name="", version="")]
    if find_spec("tensorboard") is not None:
        loggers.append(TensorBoardLogger(folder, name="logs", version=""))
    return loggers


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Let torch use so many threads, and give the process its own number back."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _matmul(precision: str) -> Iterator[None]:
    """Multiply float32 matrices in this precision, and as before afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's tips, and warnings of what is taken care of."""
    loggers = [logging.getLogger(name) for name in CHATTER]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in NEEDLESS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
