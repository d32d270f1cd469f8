"""What a potential's recipe says where nobody has told: sizes, rates, and epochs by the frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_crystalformer.data.frames import SOURCE
from ase_crystalformer.data.loader import work
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import BadRecipe, NoForces
from ase_crystalformer.mixer import describe_encoder
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.pretrained import find_model
from ase_crystalformer.training.config import Recipe, check_recipe, set_key

#: Each frame is seen about ``VISITS / frames`` times, but neither more nor less often than this.
VISITS = 4000
EPOCHS = (5, 80)

#: Frames in one batch, and the work of a batch at most: edges + 20 atoms.
FRAMES = 2
LARGEST_BUDGET = 28_000

#: Work of a replayed frame in units of that of a user's own, roughly: they are small.
REPLAYED = 0.25

#: Weights of the errors: per eV/atom, eV/Å, eV/Å³, as the bundled potential has learned.
WEIGHTS = {"energy": 8.0, "force": 2.0, "stress": 20.0}

#: A network of the bundled potential's size.
NETWORK = {
    "cutoff": 5.5,
    "basis": 16,
    "basis_radius": 5.5,
    "width": 96,
    "heads": 6,
    "blocks": 3,
    "feedforward": 256,
    "norm": True,
    "degree": 3,
}

#: What else is done besides the steps is done by one process.
ALONE = {"devices": 1, "nodes": 1, "strategy": "auto"}

#: Largest rates, from random weights and from those of a trained model.
FRESH_RATE, STARTED_RATE = 1.2e-3, 3e-4


def started_recipe(folder: Path, model: str | Path) -> dict[str, Any]:
    """Begin a recipe that starts from a potential.

    Args:
        folder: Of the run; the packed set lies in it.
        model: Name or path of the potential.

    Raises:
        NoForces: It is none.
    """
    start = CrystalModel.load(find_model(model))
    if not start.is_potential:
        raise NoForces(f"{str(model)!r} predicts properties. Start from a potential: 'default'.")
    told = _recipe(folder, start.encoder_name, describe_encoder(start.encoder)["config"])
    told["optim"]["peak_lr"] = STARTED_RATE
    return {**told, "start": str(model)}


def fresh_recipe(folder: Path) -> dict[str, Any]:
    """Begin a recipe that starts from random weights."""
    return _recipe(folder, "crystalformer", NETWORK)


def _recipe(folder: Path, encoder: str, network: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": folder.name or "potential",
        "encoder": encoder,
        "model": dict(network),
        "data": {"packed": str(folder / "packed")},
        "energy": dict(WEIGHTS),
        "optim": {"peak_lr": FRESH_RATE, "ema": 0.99, "warmup": 0.1},
    }


def overridden(told: dict[str, Any], overrides: Sequence[str], own: Sequence[str]) -> Recipe:
    """Replace entries of a recipe, in place, and check it.

    Args:
        told: The recipe as a plain dictionary.
        overrides: ``section.key=value`` as in TOML.
        own: Keys of ``[data]`` that the run decides by itself.

    Raises:
        BadRecipe: One of those is replaced, or the recipe is not valid.
    """
    before = {key: told["data"][key] for key in own}
    for override in overrides:
        set_key(told, override)
    machine = told.setdefault("machine", {})
    for key, value in ALONE.items():
        if machine.get(key, value) not in (value, "auto"):
            raise BadRecipe(
                f"--set changes machine.{key}, but this verb runs in one process. Leave it out. To "
                "train with several, write a recipe for crystalformer train."
            )
    machine |= ALONE
    data = told["data"]
    for key, value in before.items():
        if not isinstance(data, dict) or data.get(key) != value:
            raise BadRecipe(
                f"--set changes data.{key}, which this run decides by itself. Leave it out. To "
                "train on a packed set of your own, write a recipe for crystalformer train."
            )
    return check_recipe(told)


def with_defaults(told: dict[str, Any], packed: PackedCrystals) -> Recipe:
    """Set epochs and batches by the number and the size of the frames, unless they are told.

    Args:
        told: The recipe as a plain dictionary.
        packed: Its data.

    Raises:
        BadRecipe: There is nothing to train on.
    """
    frames = own_frames(packed, "train")
    if len(frames) == 0:
        raise BadRecipe("All frames are held out, none is left to train on. Mark fewer.")
    epochs = int(np.clip(round(VISITS / len(frames)), *EPOCHS))
    size = float(np.median(work(packed)[frames]))
    replayed = REPLAYED * (told["data"].get("replay") or 0)
    budget = int(min(FRAMES * size * (1 + replayed), LARGEST_BUDGET))
    optim = {"epochs": epochs, "budget": max(budget, 1), **told["optim"]}
    return check_recipe({**told, "optim": optim})


def own_frames(packed: PackedCrystals, split: str) -> NDArray[np.int64]:
    """Number the user's frames of a part, without those that are replayed."""
    which = packed.where(split)
    names = packed.meta["names"]["source"]
    return which[np.asarray(packed.arrays["source"])[which] == names.index(SOURCE)]
