"""Fit a model: a recipe in, a run folder out.

The folder holds ``recipe.json``, ``run.json``, ``metrics.csv``, TensorBoard logs (where TensorBoard
is installed), ``checkpoints/last.ckpt`` to resume from, and the model (``model.safetensors`` +
``model.json``), rewritten after every validation.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.batches import PackedData
from ase_crystalformer.training.build import build_model, build_objective
from ase_crystalformer.training.callbacks import (
    Averaging,
    Checkpoints,
    EndAtOnce,
    FitEnergies,
    SaveModel,
)
from ase_crystalformer.training.config import Recipe, read_recipe
from ase_crystalformer.training.force_only import is_force_only
from ase_crystalformer.training.loggers import loggers_of
from ase_crystalformer.training.module import Fitting
from ase_crystalformer.training.prepare import prepare
from ase_crystalformer.training.record import (
    SETTLED,
    changed_since,
    check_same_data,
    checkpoint_of,
    epochs_done,
    keep_metrics,
    never_kept,
    write_record,
)
from ase_crystalformer.training.surroundings import (
    accelerator_of,
    check_machine,
    surroundings,
)

LOGGER = logging.getLogger(__name__)


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
    if not read.name.strip("."):
        raise BadRecipe(f"name is {read.name!r}, which is no name of a folder. Give another.")
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
    recipe: Recipe,
    folder: str | Path,
    *,
    resume: bool = False,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> CrystalModel:
    """Train as the recipe says, and leave the model and its history in ``folder``.

    Data that are not packed yet are packed first.

    Args:
        recipe: See ``training.config``.
        folder: Of the run.
        resume: Continue from ``checkpoints/last.ckpt``; the trajectory is that of an unbroken run.
            A finished run goes on from its averaged weights if the recipe asks for more epochs.
            Data, targets and model must be those it began with.
        progress: Show a progress bar with errors in physical units.
        callbacks: Lightning's, besides those the recipe asks for.

    Returns:
        The model, its weights averaged as the recipe asks.

    Raises:
        BadRecipe: The recipe does not fit its data, or the run to continue.
    """
    folder = Path(folder)
    checkpoint = _checkpoint(recipe, folder) if resume else None
    with surroundings(recipe.machine):
        check_machine(recipe.machine)
        packed = prepare(recipe)
        fingerprint = packed.fingerprint()
        if checkpoint is not None:
            check_same_data(folder, fingerprint)
        data = PackedData(packed, recipe)
        if len(data.val) == 0:
            LOGGER.warning(
                "%s has no crystal that judges (part val): no error will be known.", packed.folder
            )
        model = build_model(recipe, packed, data.train)
        objective = build_objective(recipe, model, packed, data.train)
        saver = SaveModel(folder, write_record(recipe, folder, fingerprint))
        module = Fitting(model, objective, recipe.optim)
        trainer = _trainer(recipe, folder, saver, progress, callbacks)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
        if len(data.val) == 0:
            _finish_unjudged(recipe, module, data, saver)
        elif not saver.saved:  # Nothing was left to do: what is known of the run is on its card.
            model.card = CrystalModel.load(folder / "model").card
    return model.eval()


def _finish_unjudged(recipe: Recipe, module: Fitting, data: PackedData, saver: SaveModel) -> None:
    """Do what is done at every validation, where there is none."""
    module.eval()
    if is_force_only(recipe.energy):
        FitEnergies.fit(module, data)
    if module.trainer.is_global_zero:
        saver.save(module, {}, recipe.optim.epochs)


def _checkpoint(recipe: Recipe, folder: Path) -> Path | None:
    """Prepare to continue, and tell if the trajectory will not be that of an unbroken run.

    None if the run was cut off before its first checkpoint: it begins anew.
    """
    changed = changed_since(folder, recipe)
    if settled := [name for name in changed if name in SETTLED]:
        raise BadRecipe(
            f"The run in {folder} began with another {', '.join(settled)}; {folder}/recipe.json "
            "tells which. Go on with the same, for a fold by --set data.fold=N, or train under "
            "another name."
        )
    if changed:
        LOGGER.warning(
            "The run in %s began with another %s: it goes on, but not as if it had never stopped.",
            folder,
            ", ".join(changed),
        )
    done = epochs_done(folder)
    if done > recipe.optim.epochs:
        raise BadRecipe(
            f"The run in {folder} has made {done} epochs, and optim.epochs is "
            f"{recipe.optim.epochs}. Ask for as many or more; its model is {folder / 'model'}."
        )
    if never_kept(folder):
        LOGGER.warning("%s was cut off before its first checkpoint, and begins anew.", folder)
        checkpoint = None
    else:
        checkpoint = checkpoint_of(folder)
    keep_metrics(folder)
    return checkpoint


def _trainer(
    recipe: Recipe,
    folder: Path,
    saver: SaveModel,
    progress: bool,
    more: Sequence[Callback] = (),
) -> Trainer:
    machine, optim = recipe.machine, recipe.optim
    callbacks: list[Callback] = [saver, EndAtOnce(), LearningRateMonitor("step")]
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
    callbacks += more
    return Trainer(
        accelerator=accelerator_of(machine),
        devices=machine.devices,
        num_nodes=machine.nodes,
        strategy=machine.strategy,
        precision=machine.precision,
        max_epochs=optim.epochs,
        accumulate_grad_batches=optim.accumulate,
        gradient_clip_val=optim.clip,
        callbacks=callbacks,
        logger=loggers_of(machine.loggers, folder, recipe.name),
        default_root_dir=folder,
        enable_progress_bar=progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1,
        inference_mode=False,
        num_sanity_val_steps=0,
        log_every_n_steps=50,
    )
