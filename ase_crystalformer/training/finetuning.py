"""From a user's own DFT to a potential that starts from a trained one: read, fit, compare."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from ase_crystalformer.training.config import Recipe, check_recipe, recipe_dict
from ase_crystalformer.training.defaults import (
    overridden,
    own_frames,
    started_recipe,
    with_defaults,
)
from ase_crystalformer.training.prepare import prepare
from ase_crystalformer.training.record import noted, write_json
from ase_crystalformer.training.run import fit

#: What the run folder holds besides what that of any run holds.
RESULT = "finetuning.json"


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
    frames: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    model: str | Path = "default",
    scale: str = SOURCE,
    replay: float = 4.0,
    hold_out: float = 0.1,
    overrides: Sequence[str] = (),
    resume: bool = False,
    progress: bool = True,
) -> Finetuned:
    """Train a potential further on frames of one's own.

    Frames that cannot be used are named in a warning and in ``out/left_out.txt``. The recipe is
    ``out/recipe.json``; errors before and after are in ``out/finetuning.json``, and
    ``out/parity.png`` shows the held-out frames.

    Args:
        frames: Files, folders or globs, as of ``data.frames.read_frames``.
        out: The run folder; the potential is ``out/model``.
        model: What to start from: a name or a path.
        scale: The energy scale the frames stand on. Unless it is that of the model (Materials
            Project's is ``mp``), the energies of elements are fitted anew, and the potential gives
            energies on the scale of the frames.
        replay: Frames of the bundled potential's training, per frame and epoch; 0 for none.
        hold_out: Share of the frames not to train on, unless the files have splits.
        overrides: Entries of the recipe to replace, ``section.key=value`` as in TOML.
        resume: Go on with the run in ``out``, as it was begun.
        progress: Show a bar.

    Raises:
        BadRecipe: Something told is wrong, or ``out`` holds a run already.
        MissingData: There is no frame to learn from.
        NoForces: ``model`` is no potential.
    """
    paths = [frames] if isinstance(frames, str | Path) else list(frames)
    folder = Path(out)
    if resume:
        recipe = _begun(folder)
    else:
        _refuse_begun(folder)
        told = started_recipe(folder, model)
        told["data"] |= {
            "source": tuple(map(str, paths)),
            "hold_out": hold_out,
            "replay": replay,
        }
        told["energy"]["scale"] = scale
        checked = overridden(told, overrides, own=("packed",))
        remove_packed(folder / "packed")  # of one that never began
        with noted(folder):
            packed = prepare(checked)
        recipe = with_defaults(told, packed)
    going_on = resume and (folder / "checkpoints" / "last.ckpt").is_file()
    tuned = fit(recipe, folder, resume=going_on, progress=progress)
    return _finished(recipe, folder, tuned)


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
    return check_recipe(json.loads(path.read_text(encoding="utf-8")))
