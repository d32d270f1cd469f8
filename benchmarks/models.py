"""The bundled models, or random weights of their size where they are not there."""

import tomllib
from functools import cache
from pathlib import Path

import torch

from ase_crystalformer.card import Card
from ase_crystalformer.errors import UnknownName
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.pretrained import ALIASES, load_model, prepared
from ase_crystalformer.targets import TARGETS

RECIPES = Path(__file__).parents[1] / "workflows" / "recipes"


@cache
def bundled_or_random(alias: str) -> CrystalModel:
    """Load a bundled model; its card's name says so if its weights are random.

    Args:
        alias: ``"default"``, ``"accurate"`` or ``"default-properties"``.
    """
    try:
        return load_model(alias, device="cpu")
    except UnknownName:
        return _random(ALIASES[alias])


def _random(name: str) -> CrystalModel:
    recipe = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
    targets = [TARGETS[target] for target in recipe.get("targets", ())]
    card = Card(name=f"random weights, size of {name}")
    scale = None if targets else "none"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CrystalModel(
            recipe["encoder"], recipe["model"], targets=targets, energy_scale=scale, card=card
        )
    return prepared(model, "cpu", "float32")
