"""Fit a model: a recipe in, a run folder out.

The folder holds ``recipe.json``, ``metrics.csv``, TensorBoard logs, ``checkpoints/last.ckpt`` to resume
from, and the model (``model.safetensors`` + ``model.json``), rewritten after every validation.
"""

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from ase_crystalformer.data.loader import Batch, EdgeBudgetSampler, loader, work
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.model import Card, CrystalModel
from ase_crystalformer.training.config import Recipe, read_recipe, recipe_dict
from ase_crystalformer.training.fitting import elements_seen, fit_references, fit_targets
from ase_crystalformer.training.module import Fitting
from ase_crystalformer.training.objective import EnergyObjective, PropertyObjective
from ase_crystalformer.training.prepare import prepare


class PackedData(LightningDataModule):
    """Training and validation batches of a packed set, cut by edge budget."""

    def __init__(self, packed: PackedCrystals, recipe: Recipe) -> None:
        super().__init__()
        self.packed, self.recipe = packed, recipe
        largest = recipe.data.largest_crystal or np.inf
        small = np.asarray(packed.arrays["atoms"]) <= largest
        self.train, self.val = (w[small[w]] for w in (packed.where("train"), packed.where("val")))
        share = [recipe.data.share.get(name, 1.0) for name in packed.meta["names"]["source"]]
        self.share = np.array(share)[np.asarray(packed.arrays["source"])]

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        assert trainer is not None
        sampler = EdgeBudgetSampler(
            work(self.packed),
            self.train,
            budget=self.recipe.optim.budget,
            seed=self.recipe.seed,
            share=self.share,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )
        sampler.set_epoch(trainer.current_epoch)
        return loader(self.packed, sampler, self.recipe.machine.workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        assert trainer is not None
        sampler = EdgeBudgetSampler(
            work(self.packed),
            self.val,
            budget=self.recipe.optim.budget,
            seed=None,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )
        return loader(self.packed, sampler, self.recipe.machine.workers)


class SaveModel(Callback):
    """Write the model after every validation, with its errors on the card."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save from the first process; weights are the averaged ones during validation."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Fitting)
        model = pl_module.model
        fields = {**vars(model.card), "errors": pl_module.errors.means()}
        model.card = Card(**fields)
        model.save(self.folder / "model")


def build_model(recipe: Recipe, packed: PackedCrystals, train: Any) -> CrystalModel:
    """Make the model of a recipe, scaled to the labels; or take the one it starts from."""
    if recipe.start is not None:
        return CrystalModel.load(recipe.start).train()
    card = Card(name=recipe.name, elements=elements_seen(packed, train))
    if recipe.targets:
        targets = fit_targets(recipe.targets, packed, train)
        return CrystalModel(recipe.encoder, recipe.model, targets=targets, card=card)
    assert recipe.energy is not None
    scale = recipe.energy.scale
    group = packed.meta["names"]["group"].index(scale)
    own = train[np.asarray(packed.arrays["group"])[train] == group]
    card = Card(name=recipe.name, elements=elements_seen(packed, own))
    model = CrystalModel(recipe.encoder, recipe.model, energy_scale=scale, card=card)
    fit_references(model.head, packed, own)
    return model


def train(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    runs: str | Path = "runs",
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Train from a recipe file and return the run folder, ``runs/<name>``.

    Raises:
        BadRecipe: if the recipe is not valid, or its data are not to be had.
    """
    read = read_recipe(recipe, overrides)
    folder = Path(runs) / read.name
    if (folder / "recipe.json").exists() and not resume:
        raise BadRecipe(
            f"{folder} holds a run already. Continue it with --resume, or train under another name: "
            "--set name='\"another\"'."
        )
    fit(read, folder, resume=resume, progress=progress)
    return folder


def fit(recipe: Recipe, folder: str | Path, *, resume: bool = False, progress: bool = True) -> CrystalModel:
    """Train as the recipe says, and leave the model and its history in ``folder``.

    Data that are not packed yet are packed first.

    Args:
        recipe: See ``training.config``.
        folder: Of the run.
        resume: Continue from ``checkpoints/last.ckpt``; the trajectory is that of an unbroken run.
        progress: Show a progress bar with errors in physical units.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text(json.dumps(recipe_dict(recipe), indent=1) + "\n")
    if recipe.machine.threads:
        torch.set_num_threads(recipe.machine.threads)
    seed_everything(recipe.seed, workers=True, verbose=False)
    packed = prepare(recipe)
    data = PackedData(packed, recipe)
    model = build_model(recipe, packed, data.train)
    objective = (
        PropertyObjective(recipe.weights)
        if recipe.energy is None
        else EnergyObjective(recipe.energy, packed.meta["names"]["group"])
    )
    trainer = _trainer(recipe, folder, progress)
    last = folder / "checkpoints" / "last.ckpt"
    module = Fitting(model, objective, recipe.optim)
    trainer.fit(module, data, ckpt_path=last if resume else None, weights_only=True)
    return model


def _trainer(recipe: Recipe, folder: Path, progress: bool) -> Trainer:
    machine, optim = recipe.machine, recipe.optim
    callbacks: list[Callback] = [
        ModelCheckpoint(
            folder / "checkpoints",
            filename="last",
            train_time_interval=timedelta(minutes=machine.checkpoint_minutes),
            enable_version_counter=False,
        ),
        LearningRateMonitor("step"),
    ]
    if optim.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=optim.ema))
    callbacks.append(SaveModel(folder))
    return Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        precision=machine.precision,
        max_epochs=optim.epochs,
        gradient_clip_val=optim.clip,
        callbacks=callbacks,
        logger=[CSVLogger(folder, name="", version=""), TensorBoardLogger(folder, name="", version="logs")],
        enable_progress_bar=progress,
        enable_model_summary=False,
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1,
        inference_mode=False,
        num_sanity_val_steps=0,
        log_every_n_steps=50,
    )
