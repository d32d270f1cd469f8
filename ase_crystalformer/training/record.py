"""What a run leaves behind besides the model: its recipe, its surroundings, its earlier history."""

import json
import logging
import platform
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ase_crystalformer.errors import BadModelFile, BadRecipe, MissingData
from ase_crystalformer.model_file import read_card
from ase_crystalformer.training.commit import commit_of
from ase_crystalformer.training.config import Recipe, check_recipe, recipe_dict
from ase_crystalformer.training.processes import is_first
from ase_crystalformer.writing import whole

#: Where names and reasons of what was left out are.
LEFT_OUT = "left_out.txt"

#: What a run cannot change while it goes on: which crystals it learns, and what it is.
SETTLED = frozenset(
    (
        *("data", "encoder", "kinds", "mixer", "model", "pooling", "start", "start_encoder"),
        *("optim.optimizer", "targets"),
    )
)

#: Entries of ``machine`` on which it depends what is learned.
LEARNED_BY = ("devices", "nodes", "strategy", "precision", "matmul")

#: What a result may depend on.
PACKAGES = ("ase-crystalformer", "torch", "lightning", "e3nn", "numpy")


def write_record(recipe: Recipe, folder: Path, data: str | None = None) -> dict[str, Any]:
    """Write ``recipe.json`` and ``run.json``; return what belongs on the model's card.

    Only the first process of a run writes.

    Args:
        recipe: What is learned.
        folder: Of the run.
        data: Fingerprint of the packed set, to know it again when the run goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    commit = commit_of()
    facts = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **_versions(PACKAGES)},
        **({"commit": commit} if commit else {}),
    }
    if not is_first():
        return facts
    started = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / "recipe.json", recipe_dict(recipe))
    write_json(folder / "run.json", {"started": started, **facts, "data": data})
    return facts


def checkpoint_of(folder: Path) -> Path:
    """Find the checkpoint of a run to continue.

    Raises:
        BadRecipe: There is none yet.
        BadModelFile: It is damaged.
    """
    path = folder / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise BadRecipe(
            f"{folder} has no checkpoint to continue from ({path} does not exist). Name its model "
            "as start in a recipe of another name; machine.checkpoint_minutes says how often a "
            "checkpoint is written."
        )
    if not _is_whole(path):
        raise BadModelFile(
            f"{path} is damaged: it was cut off or altered, and cannot be continued from. Put a "
            f"copy in its place, or remove {folder} and train anew without --resume."
        )
    return path


def training_of(folder: Path) -> dict[str, Any]:
    """Read what the card of a run's model tells of its training; nothing if there is no model yet.

    Raises:
        BadModelFile: It is damaged.
    """
    if not (folder / "model.json").is_file():
        return {}
    return dict(read_card(folder / "model")["card"]["training"])


def epochs_done(folder: Path) -> int:
    """Count the epochs that the model of a run has learned for."""
    return int(training_of(folder).get("epochs", 0))


def never_kept(folder: Path) -> bool:
    """Say whether a run was cut off before it came to write a checkpoint.

    One that has learned for longer has lost its checkpoint, and its model is not to be replaced.
    """
    if (folder / "checkpoints" / "last.ckpt").exists():
        return False
    recipe, training = recipe_of(folder), training_of(folder)
    minutes = 60 * training.get("hours", 0.0)
    cut_off = training.get("epochs", 0) < recipe.optim.epochs
    return cut_off and minutes <= recipe.machine.checkpoint_minutes


def check_same_data(folder: Path, data: str) -> None:
    """Refuse to go on with, or judge by, other crystals; runs of long ago do not say theirs.

    Args:
        folder: Of the run.
        data: Fingerprint of the packed set there is.

    Raises:
        BadRecipe: The set was packed anew, from other crystals or labels, or into other parts.
    """
    path = folder / "run.json"
    was = json.loads(path.read_text(encoding="utf-8")).get("data") if path.is_file() else None
    if was not in (None, data):
        raise BadRecipe(
            f"data.packed is not the set the run in {folder} began with: it has been packed anew, "
            "from other crystals or labels, or into other parts. Put the old one back, or train "
            "under another name, with start to begin from what was learned."
        )


def _is_whole(path: Path) -> bool:
    """Whether a file of torch, which is a zip archive, is all there; every byte is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except zipfile.BadZipFile:
        return False


def changed_since(folder: Path, recipe: Recipe) -> list[str]:
    """Name what a recipe learns otherwise than the run in a folder did so far.

    Raises:
        MissingData: The folder has no ``recipe.json``.
        BadModelFile: It is damaged.
    """
    before, now = _compared(recipe_of(folder)), _compared(recipe)
    return [name for name in now if before[name] != now[name]]


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name entries of tables, and of tables in them, that differ."""
    names = []
    for key in dict.fromkeys((*before, *now)):
        one, other = before.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            names += [f"{key}.{name}" for name in differing(one, other)]
        elif one != other:
            names.append(key)
    return names


def fold_overrides(folder: Path) -> list[str]:
    """Write the fold of a run, and its packed set, as ``--set`` takes them; none has none.

    Raises:
        BadModelFile: ``recipe.json`` of the folder is damaged.
    """
    if not (folder / "recipe.json").is_file():
        return []
    data = recipe_of(folder).data
    if data.fold is None:
        return []
    return [f"data.fold={data.fold}", f"data.packed={json.dumps(str(data.packed))}"]


def _compared(recipe: Recipe) -> dict[str, Any]:
    """Keep of a recipe what is learned, and by what."""
    told = {entry.name: getattr(recipe, entry.name) for entry in fields(Recipe)}
    del told["published"]
    told["data"] = replace(recipe.data, packed=recipe.data.packed.resolve(), directory=None)
    told["optim.optimizer"] = recipe.optim.optimizer
    told["machine"] = [getattr(recipe.machine, name) for name in LEARNED_BY]
    return told


def recipe_of(folder: Path) -> Recipe:
    """Read the recipe of a run.

    Raises:
        MissingData: It is no run folder.
        BadModelFile: ``recipe.json`` of the folder is damaged.
    """
    path = folder / "recipe.json"
    if not path.is_file():
        raise MissingData(f"{folder} is no run folder: {path} does not exist.")
    try:
        told = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadModelFile(
            f"{path} is damaged, so what the run in {folder} learns is not known: {error}. Put a "
            f"copy in its place, or remove {folder} and train anew."
        ) from error
    return check_recipe(_without_idle(told))


def _without_idle(told: dict[str, Any]) -> dict[str, Any]:
    """Drop published numbers of what is not learned, which recipes could hold once."""
    published, named = told.get("published"), (None, *(told.get("targets") or ()))
    if not isinstance(published, list):
        return told
    kept = [one for one in published if not isinstance(one, dict) or one.get("target") in named]
    return {**told, "published": kept}


def keep_metrics(folder: Path) -> None:
    """Give the metrics of an earlier session a number, before new ones are written."""
    path = folder / "metrics.csv"
    if path.exists() and is_first():
        number = 1 + len(list(folder.glob("metrics.*.csv")))
        path.rename(folder / f"metrics.{number}.csv")


def hardware() -> str:
    """Say what computes: the CUDA devices, or the processor and the threads in use."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{torch.get_num_threads()} threads of {_processor()}"


def _processor() -> str:
    """Name the processor; the standard library does not know it on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@contextmanager
def noted(folder: Path) -> Iterator[None]:
    """Write what the package warns of into ``left_out.txt``, too, if there is anything.

    What an earlier call left out is forgotten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LEFT_OUT).unlink(missing_ok=True)
    logger = logging.getLogger("ase_crystalformer")
    handler = logging.FileHandler(folder / LEFT_OUT, mode="w", encoding="utf-8", delay=True)
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def write_json(path: Path, content: Any) -> None:
    """Write plain values; the file appears complete or not at all."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    with whole(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
