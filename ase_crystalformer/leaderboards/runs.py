"""What a trained run says of the crystals it was tested on."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ase_crystalformer.card import Card
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.readers import load
from ase_crystalformer.data.registry import DATA_SETS
from ase_crystalformer.errors import BadRecipe, MissingData
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.pretrained import load_model
from ase_crystalformer.training.config import Recipe, check_recipe
from ase_crystalformer.training.evaluate import collect
from ase_crystalformer.training.objective import error_name


@dataclass(frozen=True)
class Outcome:
    """One property of the test part of a run.

    Attributes:
        run: Folder of the run.
        recipe: What was learned.
        card: Of the model.
        target: What it predicts.
        predicted: By the name of a crystal; as logarithm where the model learns that.
        labels: The same of the labels.
    """

    run: Path
    recipe: Recipe
    card: Card
    target: str
    predicted: dict[str, float]
    labels: dict[str, float]

    @cached_property
    def remarks(self) -> dict[str, dict[str, str]]:
        """What the source says of the crystals besides, by their names."""
        source = self.recipe.data.source
        if not isinstance(source, str) or source not in DATA_SETS:
            return {}
        found = load(source, self.recipe.data.directory)
        return {row.id: dict(row.info) for row in found if row.id in self.predicted}


def outcomes_of(run: Path, *, device: str = "auto", progress: bool = True) -> list[Outcome]:
    """Predict the test part of a run, property by property.

    Raises:
        MissingData: It is no run folder, its packed set is gone, or it has no test part.
        BadRecipe: It learned no property.
    """
    recipe = _recipe_of(run)
    if not recipe.targets:
        raise BadRecipe(f"{run} is a potential; leaderboards of properties take property models.")
    if not (recipe.data.packed / "meta.json").is_file():
        raise MissingData(
            f"{run} was trained on {recipe.data.packed}, which is not there. Start from the folder "
            "the run was started from."
        )
    packed = PackedCrystals(recipe.data.packed)
    which = packed.where("test")
    if len(which) == 0:
        raise MissingData(f"{recipe.data.packed} has no test part. Set data.fold in the recipe.")
    model = load_model(run / "model", device=device)
    found = collect(model, packed, which, progress)
    names = [packed.ids[number] for number in which]
    return [_outcome(run, recipe, model, target, names, found) for target in recipe.targets]


def _recipe_of(run: Path) -> Recipe:
    path = run / "recipe.json"
    if not path.is_file():
        raise MissingData(f"{run} is no run folder: {path} does not exist.")
    return check_recipe(json.loads(path.read_text(encoding="utf-8")))


def _outcome(
    run: Path, recipe: Recipe, model: CrystalModel, name: str, names: list[str], found: Any
) -> Outcome:
    """Pick one property of all."""
    (target,) = (one for one in model.targets if one.name == name)
    predicted, labels = found[error_name(target)]
    known = [number for number, label in enumerate(labels) if label == label]  # noqa: PLR0124
    return Outcome(
        run=run,
        recipe=recipe,
        card=model.card,
        target=name,
        predicted={names[number]: float(predicted[number]) for number in known},
        labels={names[number]: float(labels[number]) for number in known},
    )
