"""What a trained run says of the crystals it was tested on."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_crystalformer.card import Card
from ase_crystalformer.data.crystals import Split
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import BadRecipe, MissingData
from ase_crystalformer.pretrained import load_model
from ase_crystalformer.training.batches import learned_from
from ase_crystalformer.training.config import Recipe
from ase_crystalformer.training.evaluate import collect
from ase_crystalformer.training.record import check_same_data, recipe_of


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A run of a property model, before its test part is predicted.

    Attributes:
        folder: Where it is.
        recipe: What was learned.
        packed: What it was learned from.
        which: Numbers of the crystals of the part that judges it.
        part: Which one.
    """

    folder: Path
    recipe: Recipe
    packed: PackedCrystals
    which: NDArray[np.int64]
    part: Split = "test"

    @cached_property
    def names(self) -> dict[int, str]:
        """Name every crystal of that part, by its number in the packed set; no two alike."""
        numbers = self.which.tolist()
        return dict(zip(numbers, distinct([self.packed.ids[row] for row in numbers]), strict=True))

    def fingerprint(self) -> str:
        """Tell the crystals that judge, and their labels, from others."""
        known = hashlib.sha256(self.packed.fingerprint().encode())
        known.update("\n".join(self.names.values()).encode())
        return known.hexdigest()

    def tested(self, target: str) -> list[str]:
        """Name the crystals of that part that have a label."""
        labels = self.packed.label(target)[self.which]
        return [self.names[row] for row in self.which[~np.isnan(labels)].tolist()]


@dataclass(frozen=True)
class Outcome:
    """One property of the test part of a run.

    Attributes:
        run: The run.
        card: Of the model.
        target: What it predicts.
        predicted: By the name of a crystal, in the unit of the target, not as a logarithm.
        labels: The same of the labels.
    """

    run: TrainedRun
    card: Card
    target: str
    predicted: dict[str, float]
    labels: dict[str, float]


def distinct(names: Sequence[str]) -> list[str]:
    """Number names that stand more than once: polymorphs may be called by their formula alone."""
    often = Counter(names)
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if often[name] == 1 else f"{name} ({seen[name]} of {often[name]})")
    return found


def open_run(folder: Path, part: Split = "test") -> TrainedRun:
    """Open a run; nothing is predicted.

    Raises:
        MissingData: It is no run folder, its packed set is gone, or it has no such part.
        BadRecipe: It learned no property; or the set was packed anew, so that the run may have
            learned from what would judge it.
    """
    recipe = recipe_of(folder)
    if not recipe.targets:
        raise BadRecipe(
            f"{folder} learned no property: it is a potential, or an encoder alone. Leave it out."
        )
    if not (recipe.data.packed / "meta.json").is_file():
        raise MissingData(
            f"{folder} was trained on {recipe.data.packed}, which is not there. Start from the "
            "folder the run was started from."
        )
    packed = PackedCrystals(recipe.data.packed)
    check_same_data(folder, packed.fingerprint())
    kept = learned_from(packed, recipe)
    which = packed.where(part)
    which = which[kept[which]] if part == "val" else which
    if len(which) == 0:
        raise MissingData(f"{recipe.data.packed} has no {part} part. Set data.fold in the recipe.")
    return TrainedRun(folder, recipe, packed, which, part)


def outcomes_of(run: TrainedRun, *, device: str = "auto", progress: bool = True) -> list[Outcome]:
    """Predict the part that judges a run, property by property."""
    model = load_model(run.folder / "model", device=device)
    found = collect(model, run.packed, run.which, progress)
    outcomes = []
    for target in model.targets:
        predicted, labels = (
            dict(zip(run.names.values(), map(float, part), strict=True))
            for part in found[target.name, target.unit]
        )
        known = run.tested(target.name)
        outcomes.append(
            Outcome(
                run=run,
                card=model.card,
                target=target.name,
                predicted={name: predicted[name] for name in known},
                labels={name: labels[name] for name in known},
            )
        )
    return outcomes
