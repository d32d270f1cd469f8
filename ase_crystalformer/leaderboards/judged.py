"""Predictions of runs for the part of the data that judges them, kept beside the model."""

import json
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_crystalformer.data.crystals import Split
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import MissingData
from ase_crystalformer.leaderboards.runs import open_run, outcomes_of
from ase_crystalformer.model_file import read_card
from ase_crystalformer.targets import Target
from ase_crystalformer.training.config import Recipe
from ase_crystalformer.training.objective import error_name
from ase_crystalformer.training.record import recipe_of, write_json

LOGGER = logging.getLogger(__name__)

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Judged:
    """One property of one run, or of several runs taken together.

    Attributes:
        name: Of the run.
        recipe: What was learned.
        training: What the card tells of the training.
        target: The property.
        part: Which part of the data judges it.
        ids: Names of its crystals that have a label.
        predicted: In the unit of tables: decimal logarithms of moduli.
        labels: Likewise.
        of: The runs it is the mean of; empty for a run alone.
    """

    name: str
    recipe: Recipe
    training: Mapping[str, Any]
    target: Target
    part: Split
    ids: tuple[str, ...]
    predicted: Values
    labels: Values
    of: tuple["Judged", ...] = ()

    @property
    def members(self) -> int:
        """How many runs it is the mean of."""
        return len(self.of) or 1

    @property
    def data(self) -> str:
        """Name of the data set."""
        source = self.recipe.data.source
        known = source if isinstance(source, str) else self.recipe.data.packed.name
        return Path(known).name.partition(".")[0]

    @property
    def metric(self) -> str:
        """What tables tell of it: ``mae``, or ``rocauc`` where yes or no is asked for."""
        return "rocauc" if self.target.kind == "chance" else "mae"

    @property
    def unit(self) -> str:
        """Of the metric."""
        return error_name(self.target)[1]

    @property
    def flaw(self) -> str:
        """Say why there is no score; empty where there is one."""
        if lost := int((~np.isfinite(self.predicted)).sum()):
            return f"{self.name} predicts no finite {self.target.name} for {lost} crystals"
        if self.metric == "rocauc" and len(np.unique(self.labels)) < 2:
            return f"all {self.part} labels of {self.target.name} that judge {self.name} are alike"
        return ""

    @property
    def score(self) -> float:
        """Mean absolute error, or area under the ROC curve of the answers; NaN if there is a flaw.

        An answer is yes where its chance is above one half. MatBench takes the curve of answers,
        too, not of chances: what it tells of its reference is equal to the balanced accuracy.
        """
        if self.flaw:
            return math.nan
        if self.metric == "rocauc":
            from sklearn.metrics import roc_auc_score

            return float(roc_auc_score(self.labels, self.predicted > 0.5))
        return float(np.abs(self.predicted - self.labels).mean())

    @property
    def rmse(self) -> float:
        """Root of the mean squared error."""
        return float(np.sqrt(((self.predicted - self.labels) ** 2).mean()))


def judge(
    folder: Path, part: Split | None = None, *, device: str = "auto", progress: bool = True
) -> list[Judged]:
    """Predict the part that judges a run; what was predicted before by the same weights is read.

    Args:
        folder: Of the run.
        part: Which one; None for the test part, or the validation part where there is no test.
        device: Where to predict.
        progress: Show a bar.

    Raises:
        MissingData: It is no finished run folder, its packed set is gone, or it has no such part.
        BadRecipe: It learned no property.
    """
    recipe = recipe_of(folder)
    if not (folder / "model.json").is_file():
        raise MissingData(f"{folder} has no model yet: its run has finished no epoch.")
    card = read_card(folder / "model")
    part = part or _judging(recipe.data.packed)
    kept = folder / f"predicted-{part}.json"
    told = _read(kept)
    # Where the packed set is gone, what is kept is all there is.
    run = open_run(folder, part) if (recipe.data.packed / "meta.json").is_file() else None
    by = {"weights": card["sha256"]} | ({"crystals": run.fingerprint()} if run else {})
    if {name: told.get(name) for name in by} != by:
        found = outcomes_of(run or open_run(folder, part), device=device, progress=progress)
        rows = {one.target: [one.predicted, one.labels] for one in found if one.labels}
        told = by | {"targets": rows}
        try:
            write_json(kept, told)
        except OSError as error:  # a folder that others own is read all the same
            LOGGER.warning("Predictions of %s are not kept: %s", folder, error)
    training = card["card"]["training"]
    learned = {one["name"]: Target(**one) for one in card["targets"]}
    if bare := [name for name in learned if name not in told["targets"]]:
        LOGGER.warning(
            "No crystal that judges %s (part %s) has a label of %s: the table has no row of it.",
            *(folder, part, ", ".join(bare)),
        )
    return [
        _judged(folder.name, recipe, training, part, learned[name], *pair)
        for name, pair in told["targets"].items()
    ]


def _read(kept: Path) -> dict[str, Any]:
    """Read predictions that were kept; nothing if there are none, or the file is damaged."""
    try:
        told = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) and isinstance(told.get("targets"), dict) else {}


def _judging(packed: Path) -> Split:
    """Name the part of a packed set that judges: its test part, if there is one."""
    if not (packed / "meta.json").is_file():
        return "test"
    return "test" if len(PackedCrystals(packed).where("test")) else "val"


def _judged(
    name: str,
    recipe: Recipe,
    training: Mapping[str, Any],
    part: Split,
    target: Target,
    predicted: Mapping[str, float],
    labels: Mapping[str, float],
) -> Judged:
    ids = tuple(labels)
    values = (np.array([told[one] for one in ids], dtype=float) for told in (predicted, labels))
    answers, truth = (np.log10(one) if target.kind == "log10" else one for one in values)
    return Judged(
        name=name,
        recipe=recipe,
        training=training,
        target=target,
        part=part,
        ids=ids,
        predicted=answers,
        labels=truth,
    )


def ensembles(found: Iterable[Judged]) -> list[Judged]:
    """Average the predictions of runs that are judged by the same crystals, in the same unit.

    Where there are folds, each fold has a mean of its own. Logarithms are averaged as such.

    Raises:
        MissingData: Runs of the same fold were tested on different crystals.
    """
    return [mean_of(members) for members in alike(found)]


def alike(found: Iterable[Judged]) -> list[list[Judged]]:
    """Group runs whose predictions may be averaged: of one property, unit, part and fold."""
    groups: dict[tuple[Any, ...], list[Judged]] = defaultdict(list)
    for one in found:
        fold = one.recipe.data.fold
        groups[one.data, one.target.name, one.metric, one.unit, one.part, fold].append(one)
    return [members for members in groups.values() if len(members) > 1]


def mean_of(members: Sequence[Judged]) -> Judged:
    """Average the predictions of runs.

    Raises:
        MissingData: They were tested on different crystals.
    """
    first = members[0]
    rows = {name: number for number, name in enumerate(first.ids)}
    parts = [first.predicted]
    for one in members[1:]:
        if set(one.ids) != set(rows):
            raise MissingData(
                f"{first.name} and {one.name} are judged by different crystals of {first.data}. "
                "Runs of one ensemble need the same split: leave --ensemble out, or one of them."
            )
        order = np.argsort([rows[name] for name in one.ids])
        parts.append(one.predicted[order])
    hours = sum(one.training.get("hours", 0.0) for one in members)
    return replace(
        first,
        name=f"mean of {len(members)} models",
        training={**first.training, "hours": hours},
        predicted=np.mean(parts, axis=0),
        of=tuple(members),
    )
