"""From a user's own DFT to a potential that starts from a trained one: read, fit, compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ase_crystalformer.card import Card
from ase_crystalformer.data.frames import SOURCE
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import remove_packed
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.pretrained import find_model
from ase_crystalformer.training.build import build_model
from ase_crystalformer.training.comparison import HELD_OUT, Change, compare, compare_forgotten
from ase_crystalformer.training.config import Recipe, recipe_dict
from ase_crystalformer.training.defaults import (
    overridden,
    own_frames,
    started_recipe,
    with_defaults,
)
from ase_crystalformer.training.prepare import prepare
from ase_crystalformer.training.record import noted, recipe_of, write_json
from ase_crystalformer.training.run import fit

#: What the run folder holds besides what that of any run holds.
RESULT = "finetuning.json"

#: What a run begins with where nothing is told.
DEFAULTS: dict[str, Any] = {"model": "default", "scale": SOURCE, "replay": 4.0, "hold_out": 0.1}


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What fine-tuning led to.

    Attributes:
        model: The potential; its files are ``folder/model``.
        folder: Of the run.
        changes: Errors before and after, on frames held out and on those of the first training.
        frames: How many of the user's frames were trained on and held out.
    """

    model: CrystalModel
    folder: Path
    changes: list[Change]
    frames: dict[str, int]


def finetune(  # noqa: PLR0913  what a user may decide
    frames: str | Path | Sequence[str | Path] | None,
    out: str | Path,
    *,
    model: str | Path | None = None,
    scale: str | None = None,
    replay: float | None = None,
    hold_out: float | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    progress: bool = True,
) -> Finetuned:
    """Train a potential further on frames of one's own.

    Frames that cannot be used are named in a warning and in ``out/left_out.txt``. The recipe is
    ``out/recipe.json``; errors before and after are in ``out/finetuning.json``, and
    ``out/parity.png`` shows the held-out frames.

    Args:
        frames: Files, folders or globs, as of ``data.frames.read_frames``. To resume, None will do.
        out: The run folder; the potential is ``out/model``.
        model: What to start from: a name or a path; ``default`` if not told.
        scale: The energy scale the frames stand on; ``own`` if not told. Unless it is that of the
            model (Materials Project's is ``mp``), the energies of elements are fitted anew, and the
            potential gives energies on the scale of the frames.
        replay: Frames of the bundled potential's training, per frame and epoch; 0 for none, 4 if
            not told.
        hold_out: Share of the frames not to train on, unless the files have splits; 0.1 if not
            told.
        overrides: Entries of the recipe to replace, ``section.key=value`` as in TOML.
        resume: Go on with the run in ``out``, as it was begun, or for more epochs by ``overrides``.
        progress: Show a bar.

    Raises:
        BadRecipe: Something told is wrong; ``out`` holds a run already; or one to go on with that
            was begun with other frames, another model, scale, replay or hold_out.
        MissingData: There is no frame to learn from.
        NoForces: ``model`` is no potential.
    """
    folder = Path(out)
    named = [frames] if isinstance(frames, str | Path) else list(frames or ())
    asked = {
        "frames": tuple(map(str, named)) or None,
        "model": None if model is None else str(model),
        "scale": scale,
        "replay": replay,
        "hold_out": hold_out,
    }
    told = {name: value for name, value in asked.items() if value is not None}
    recipe = _going_on(folder, told, overrides) if resume else _begin(folder, told, overrides)
    going_on = resume and (folder / "checkpoints" / "last.ckpt").is_file()
    tuned = fit(recipe, folder, resume=going_on, progress=progress)
    return _finished(recipe, folder, tuned)


def _begin(folder: Path, asked: dict[str, Any], overrides: Sequence[str]) -> Recipe:
    """Pack the frames, and make the recipe of a new run."""
    _refuse_begun(folder)
    if "frames" not in asked:
        raise BadRecipe("No frames are named. Give files, folders or globs; or go on by --resume.")
    asked = DEFAULTS | asked
    told = started_recipe(folder, asked["model"])
    told["data"] |= {
        "source": asked["frames"],
        "hold_out": asked["hold_out"],
        "replay": asked["replay"],
    }
    told["energy"]["scale"] = asked["scale"]
    checked = overridden(told, overrides, own=("packed",))
    remove_packed(folder / "packed")  # of one that never began
    with noted(folder):
        packed = prepare(checked)
    return with_defaults(told, packed)


def _going_on(folder: Path, asked: dict[str, Any], overrides: Sequence[str]) -> Recipe:
    """Lay overrides over the recipe of a run; refuse what it cannot change."""
    begun = _begun(folder)
    recipe = overridden(recipe_dict(begun), overrides, own=("packed",))
    before, now = _settled(begun), _settled(recipe) | asked
    if changed := [name for name in before if not _same(name, before[name], now[name])]:
        told = ", ".join(f"{name} {_plainly(before[name])}" for name in changed)
        other = ", ".join(f"{name} {_plainly(now[name])}" for name in changed)
        raise BadRecipe(
            f"The run in {folder} began with {told}, not with {other}. Leave that out to go on "
            "with it, or choose another folder."
        )
    return recipe


def _settled(recipe: Recipe) -> dict[str, Any]:
    """Tell what a run keeps to the end, as ``finetune`` calls it."""
    assert recipe.energy is not None
    source = recipe.data.source or ()
    return {
        "frames": (source,) if isinstance(source, str) else source,
        "model": recipe.start,
        "scale": recipe.energy.scale,
        "replay": recipe.data.replay,
        "hold_out": recipe.data.hold_out,
    }


def _same(name: str, one: Any, other: Any) -> bool:
    """Say whether two answers mean the same; files may be named by other paths."""
    if one == other or name not in ("frames", "model"):
        return bool(one == other)
    if name == "model":
        one, other = ([path and find_model(path)] for path in (one, other))
    return [Path(path).resolve() for path in one] == [Path(path).resolve() for path in other]


def _plainly(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _finished(recipe: Recipe, folder: Path, tuned: CrystalModel) -> Finetuned:
    """Compare with the start, and write the card, the table and the plot."""
    packed = PackedCrystals(recipe.data.packed)
    before = build_model(recipe, packed, packed.where("train")).eval()
    start = CrystalModel.load(find_model(str(recipe.start)))
    held_out = own_frames(packed, "val")
    changes = compare(before, tuned, packed, held_out, folder / "parity.png")
    names = packed.meta["names"]["source"]
    other = packed.where("test")
    replayed = other[np.asarray(packed.arrays["source"])[other] != names.index(SOURCE)]
    if len(replayed):
        changes += compare_forgotten(start, tuned, packed, replayed)
    counts = {"train": len(own_frames(packed, "train")), "held out": len(held_out)}
    tuned.card = _card(tuned, start, recipe, counts, changes)
    tuned.save(folder / "model")
    _write(folder, recipe, counts, changes)
    return Finetuned(model=tuned, folder=folder, changes=changes, frames=counts)


def _card(
    tuned: CrystalModel,
    start: CrystalModel,
    recipe: Recipe,
    counts: Mapping[str, int],
    changes: Sequence[Change],
) -> Card:
    """Name start, data and replay; the errors are those on frames held out."""
    replay = recipe.data.replay
    data = [f"started from {start.card.name}, trained on: {'; '.join(start.card.data)}"]
    data.append(f"fine-tuned on {counts['train']} frames of the user's, scale {tuned.energy_scale}")
    if replay:
        data.append(
            f"replayed: up to {replay:g} frames of the bundled potential's training per frame of "
            "the user's "
            "(ase_crystalformer/data/replay.md names their sources and licences)"
        )
    errors = {
        one.quantity: {"mae": one.after, "unit": one.unit, "n": one.n, "on": one.on}
        for one in changes
        if one.on == HELD_OUT
    }
    return replace(
        tuned.card,
        data=tuple(data),
        errors=errors,
        training={**tuned.card.training, "start": str(recipe.start), "replay": replay},
    )


def _write(
    folder: Path, recipe: Recipe, counts: Mapping[str, int], changes: Sequence[Change]
) -> None:
    told = {
        "recipe": recipe_dict(recipe),
        "frames": dict(counts),
        "errors": [vars(change) for change in changes],
    }
    write_json(folder / RESULT, told)


def _refuse_begun(folder: Path) -> None:
    if (folder / "recipe.json").exists():
        raise BadRecipe(
            f"{folder} holds a run already. Go on with it by --resume, or choose another folder."
        )


def _begun(folder: Path) -> Recipe:
    """Read the recipe of a run to go on with."""
    path = folder / "recipe.json"
    if not path.is_file():
        raise BadRecipe(
            f"{folder} has no run to go on with ({path} does not exist). Leave --resume out."
        )
    recipe = recipe_of(folder)
    if recipe.energy is None or recipe.start is None:
        raise BadRecipe(
            f"The run in {folder} fine-tunes no potential: it was begun by another verb. Go on by "
            "that one, or choose another folder."
        )
    return recipe
