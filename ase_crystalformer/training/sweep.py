"""Search for good entries of a recipe: many short runs, the hopeless ones cut off.

The space is a TOML file of entries of the recipe, each with what may be chosen::

    "optim.peak_lr" = { low = 1e-4, high = 3e-3, log = true }
    "model.blocks" = { low = 2, high = 5 }
    "model.width" = [64, 96, 128]

The study lies in ``study.db`` of its folder, beside the runs, so it can go on. All runs learn from
one packed set and are judged by one loss, so what changes these cannot be searched for.

Source: T. Akiba et al., "Optuna", KDD 2019, arXiv:1907.10902, with its default search (tree-
structured Parzen estimators) and its median rule for cutting off.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ase_crystalformer.errors import BadRecipe, CrystalformerError, MissingExtra
from ase_crystalformer.mixer import make_encoder
from ase_crystalformer.neighbours import Rule
from ase_crystalformer.training.config import Recipe, read_recipe, recipe_dict
from ase_crystalformer.training.processes import is_alone
from ase_crystalformer.training.record import differing, write_json
from ase_crystalformer.training.run import fit
from ase_crystalformer.training.settings import Machine
from ase_crystalformer.training.sweep_space import is_within, read_space, values_of

if TYPE_CHECKING:
    from optuna import Study, Trial

LOGGER = logging.getLogger(__name__)

#: Trials before any is cut off, and epochs that every trial has.
UNCUT_TRIALS, UNCUT_EPOCHS = 5, 2

#: Optuna's states of trials that came to an end.
ENDED = ("COMPLETE", "PRUNED")

#: What ends a trial, and not the sweep.
FAILURES = (CrystalformerError, torch.OutOfMemoryError)


@dataclass(frozen=True, kw_only=True)
class Swept:
    """The best of a study.

    Attributes:
        loss: Its validation loss.
        overrides: Entries of the recipe, as for ``--set``.
        run: Its run folder.
        finished: Trials that came to an end, those cut off included.
        failed: Trials that failed, not among the finished.
    """

    loss: float
    overrides: tuple[str, ...]
    run: Path
    finished: int
    failed: int


def sweep(
    recipe: str | Path,
    space: str | Path,
    folder: str | Path,
    *,
    trials: int,
    overrides: Sequence[str] = (),
    progress: bool = True,
) -> Swept:
    """Train a recipe in many ways, and tell the best; a study that is there goes on.

    Each trial is one process on one device: several would draw other trials, and train them
    together.

    Args:
        recipe: File of the recipe.
        space: File of the space.
        folder: Of the study.
        trials: How many shall have come to an end in all. As many as are missing are begun; another
            call makes up for those that failed.
        overrides: Entries of the recipe to replace in every trial, as for ``--set``.
        progress: Show the progress bar of each run.

    Raises:
        BadRecipe: A recipe is not valid, nor is the space; the study began with another recipe or
            space; no trial came to an end; or this is one of several processes.
        MissingExtra: Optuna is not installed.
    """
    optuna = _optuna()
    from sqlalchemy import URL

    if not is_alone():
        raise BadRecipe(
            "A sweep is one process: others would draw other trials. Call it without torchrun or "
            "srun, and train what it finds on many devices."
        )
    folder = Path(folder)
    choices = read_space(space)

    def read(chosen: dict[str, Any]) -> Recipe:
        return read_recipe(recipe, [*overrides, *_overrides(chosen)])

    first = {key: values_of(told)[0] for key, told in choices.items()}
    base = read(first)
    _refuse_other_graphs(read, first, choices)
    folder.mkdir(parents=True, exist_ok=True)
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # failures are told below
    try:
        study = optuna.create_study(
            storage=str(URL.create("sqlite", database=str(folder / "study.db"))),
            study_name="sweep",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(UNCUT_TRIALS, UNCUT_EPOCHS),
        )
        _settle(study, base, choices, folder)
        study.sampler = optuna.samplers.TPESampler(seed=base.seed + len(study.trials))

        def run(trial: "Trial") -> float:
            chosen = {key: _choose(trial, key, told) for key, told in choices.items()}
            try:
                return _run(read(chosen), trial, folder, progress)
            except FAILURES as error:
                LOGGER.warning(
                    "Trial %d (%s) failed: %s", trial.number, ", ".join(_overrides(chosen)), error
                )
                raise

        left = max(0, trials - _count(study, *ENDED))
        study.optimize(run, n_trials=left, catch=FAILURES)
        return _told(study, folder)
    finally:
        optuna.logging.set_verbosity(level)


def _refuse_other_graphs(
    read: Callable[[dict[str, Any]], Recipe], first: dict[str, Any], choices: dict[str, Any]
) -> None:
    """Refuse entries whose values need sets packed by different rules."""
    networks = ("encoder", "model", "start", "start_encoder")
    for key in (key for key in choices if is_within(key, networks)):
        found = (_rule(read, first | {key: value}) for value in values_of(choices[key]))
        rules = sorted({str(rule) for rule in found if rule is not None})
        if len(rules) > 1:
            raise BadRecipe(
                f"{key} cannot be searched for: its values need other graphs ({', '.join(rules)}), "
                "and all runs learn from one packed set. Sweep once for each, with --set for it "
                "and for data.packed."
            )


def _rule(read: Callable[[dict[str, Any]], Recipe], chosen: dict[str, Any]) -> Rule | None:
    """Which graphs a choice needs; ``None`` if it cannot be, which its trial tells."""
    try:
        recipe = read(chosen)
        with torch.random.fork_rng(devices=[]):
            return make_encoder(recipe.encoder, recipe.model).rule
    except (TypeError, ValueError):
        return None


def _settle(study: "Study", recipe: Recipe, choices: dict[str, Any], folder: Path) -> None:
    """Keep in a study what all its trials share; refuse to go on with anything else."""
    machine = Machine(precision=recipe.machine.precision, matmul=recipe.machine.matmul)
    data = replace(recipe.data, packed=recipe.data.packed.resolve(), directory=None)
    shared = replace(recipe, name="sweep", data=data, machine=machine, published=())
    now = {"recipe": recipe_dict(shared), "space": choices}
    if not study.trials:
        for name, value in now.items():
            study.set_user_attr(name, value)
    if changed := differing(study.user_attrs, now):
        raise BadRecipe(
            f"The study in {folder} began with another {', '.join(changed)}. Go on with the same "
            "recipe and space, or begin another study: --out FOLDER."
        )


class CutOff(Callback):
    """Tell a study the loss after every validation, and end a run that is worse than most."""

    def __init__(self, trial: "Trial") -> None:
        self.trial = trial

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, and raise Optuna's ``TrialPruned`` if it says so."""
        self.trial.report(float(trainer.callback_metrics["val/loss"]), trainer.current_epoch)
        if self.trial.should_prune():
            raise _optuna().TrialPruned


def _run(recipe: Recipe, trial: "Trial", folder: Path, progress: bool) -> float:
    own = folder / f"trial-{trial.number:03d}"
    machine = replace(recipe.machine, devices=1, nodes=1, strategy="auto")
    alone = replace(recipe, machine=machine)
    fit(alone, own, progress=progress, callbacks=[CutOff(trial)])
    losses = trial.study.trials[trial.number].intermediate_values
    if not losses:
        raise BadRecipe("A sweep needs a validation part to judge by; the data have none.")
    return losses[max(losses)]


def _choose(trial: "Trial", key: str, told: Any) -> Any:
    if isinstance(told, list):
        return trial.suggest_categorical(key, told)
    low, high, log = told["low"], told["high"], told.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, log=log)
    return trial.suggest_float(key, low, high, log=log)


def _overrides(chosen: dict[str, Any]) -> list[str]:
    """Write choices as ``--set`` takes them; JSON's numbers, strings and truths are TOML's."""
    return [f"{key}={json.dumps(value)}" for key, value in chosen.items()]


def _count(study: "Study", *states: str) -> int:
    return sum(trial.state.name in states for trial in study.trials)


def _told(study: "Study", folder: Path) -> Swept:
    try:
        best = study.best_trial
    except ValueError as error:
        raise BadRecipe(
            f"No trial of the study in {folder} came to an end. What is wrong is told above."
        ) from error
    swept = Swept(
        loss=float(best.value),
        overrides=tuple(_overrides(best.params)),
        run=folder / f"trial-{best.number:03d}",
        finished=_count(study, *ENDED),
        failed=_count(study, "FAIL"),
    )
    told = {"loss": swept.loss, "overrides": swept.overrides, "run": swept.run.name}
    write_json(folder / "best.json", told | {"finished": swept.finished, "failed": swept.failed})
    return swept


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "A sweep needs optuna: pip install 'ase-crystalformer[sweep]'."
        ) from error
    return optuna
