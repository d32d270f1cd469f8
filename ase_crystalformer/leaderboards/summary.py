"""Rows of a table: runs that differ by seed and fold alone, together."""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ase_crystalformer.data.official import FOLDS
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.leaderboards.judged import Judged
from ase_crystalformer.leaderboards.matbench import TASKS, fold_size
from ase_crystalformer.training.config import recipe_dict
from ase_crystalformer.training.rows import Published

LOGGER = logging.getLogger(__name__)

#: Runs by fold (None where there are none) and seed.
Tested = dict[int | None, dict[int, Judged]]

#: What two runs of one row may differ in; of ``machine``, all but what follows.
IDLE = ("name", "seed", "machine", "published")
SAME = ("devices", "nodes", "precision", "matmul")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One property, learned in one way.

    Attributes:
        data: The data set.
        target: The property.
        model: Name of the runs without fold and seed.
        encoder: Which network.
        metric: ``mae`` or ``rocauc``.
        unit: Of it.
        part: Which part of the data judges.
        value: Mean over seeds, then over folds; None if a run has no score.
        over_folds: Standard deviation over folds, as MatBench has it (divided by the number).
        over_seeds: Standard deviation over seeds, of means over the same folds.
        rmse: Likewise a mean, over seeds, then over folds.
        folds: Which folds are there; empty where there are none.
        seeds: Which seeds.
        n: Labels, of all folds together.
        official: How many labels the task has in these folds; None where nobody says.
        published: What others told of the same task.
        hours: Of all runs together.
        hardware: Of all runs.
        commits: Of the package, likewise.
        unfinished: Runs that have not made all epochs, with how many they made.
        flaws: Why there is no value.
    """

    data: str
    target: str
    model: str
    encoder: str
    metric: str
    unit: str
    part: str
    value: float | None
    over_folds: float | None
    over_seeds: float | None
    rmse: float | None
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    n: int
    official: int | None
    published: tuple[Published, ...]
    hours: float
    hardware: tuple[str, ...]
    commits: tuple[str, ...]
    unfinished: tuple[str, ...]
    flaws: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Say whether all folds are there, if it has any."""
        return not self.folds or len(self.folds) == FOLDS


def summarise(found: Iterable[Judged]) -> list[Row]:
    """Join runs that differ by seed and fold alone; order rows by data and property.

    Raises:
        BadRecipe: Two runs of one row have the same fold and seed.
    """
    alike: dict[str, list[Judged]] = defaultdict(list)
    for one in found:
        alike[_same(one)].append(one)
    rows = [_row(members) for members in alike.values()]
    return sorted(rows, key=lambda row: (row.data, row.target, row.part, row.model))


def _same(one: Judged) -> str:
    """Say what runs of one row have in common."""
    if one.members > 1:
        return repr((one.data, one.target.name, one.metric, one.unit, one.part, "ensemble"))
    told = {key: value for key, value in recipe_dict(one.recipe).items() if key not in IDLE}
    told["data"] = {
        key: value for key, value in told["data"].items() if key not in ("fold", "packed")
    }
    machine = [getattr(one.recipe.machine, name) for name in SAME]
    return repr((one.target.name, one.unit, one.part, machine, sorted(told.items())))


def _row(members: Sequence[Judged]) -> Row:
    first = members[0]
    runs = [run for one in members for run in one.of or (one,)]
    tested = _tested(members)
    folds = tuple(sorted(fold for fold in tested if fold is not None))
    counted = [tested[fold] for fold in folds or (None,)]
    by_fold = _by_fold(counted, lambda one: one.score)
    value = _finite(by_fold)
    return Row(
        data=first.data,
        target=first.target.name,
        model=_model(members),
        encoder=first.recipe.encoder,
        metric=first.metric,
        unit=first.unit,
        part=first.part,
        value=value,
        over_folds=None if value is None or len(by_fold) < 2 else float(np.std(by_fold)),
        over_seeds=None if value is None else _over_seeds(tested),
        rmse=_finite(_by_fold(counted, lambda one: one.rmse)),
        folds=folds,
        seeds=tuple(sorted({one.recipe.seed for one in runs})),
        n=sum(len(next(iter(by_seed.values())).ids) for by_seed in tested.values()),
        official=_official(first.data, folds),
        published=_published(first),
        hours=float(sum(one.training.get("hours", 0.0) for one in runs)),
        hardware=_all(runs, "hardware"),
        commits=_all(runs, "commit"),
        unfinished=tuple(filter(None, map(_unfinished, runs))),
        flaws=tuple(filter(None, (one.flaw for one in members))),
    )


def _tested(members: Sequence[Judged]) -> Tested:
    """Sort runs by fold and seed.

    Raises:
        BadRecipe: Two have the same.
    """
    tested: Tested = defaultdict(dict)
    for one in members:
        by_seed = tested[one.recipe.data.fold]
        if one.recipe.seed in by_seed:
            raise _twice(one, members)
        by_seed[one.recipe.seed] = one
    return tested


def _by_fold(folds: Sequence[dict[int, Judged]], told: Callable[[Judged], float]) -> list[float]:
    """Average a number over the seeds of every fold."""
    return [float(np.mean([told(one) for one in by_seed.values()])) for by_seed in folds]


def _finite(by_fold: Sequence[float]) -> float | None:
    """Average over folds; None where a run has no number."""
    mean = float(np.mean(by_fold))
    return mean if np.isfinite(mean) else None


def _model(members: Sequence[Judged]) -> str:
    """Name what the runs of a row have in common; of ensembles, of how many models they are."""
    sizes = {one.members for one in members}
    if len(sizes) > 1:
        return f"mean of {min(sizes)} to {max(sizes)} models"
    return _without_numbers(members[0].name)


def _twice(one: Judged, members: Sequence[Judged]) -> BadRecipe:
    """Name the runs that say the same of themselves."""
    fold, seed = one.recipe.data.fold, one.recipe.seed
    same = [run.name for run in members if (run.recipe.data.fold, run.recipe.seed) == (fold, seed)]
    told = "" if fold is None else f"fold {fold} and "
    return BadRecipe(
        f"{', '.join(same)} are runs of one recipe with the same {told}seed {seed}. Leave all but "
        "one of them out."
    )


def _official(data: str, folds: Sequence[int]) -> int | None:
    """Count the labels of folds of a task of MatBench."""
    task = data.replace("-", "_")
    if task not in TASKS or not folds:
        return None
    return sum(fold_size(task, fold) for fold in folds)


def _over_seeds(tested: Tested) -> float | None:
    """Sample standard deviation over the seeds that have all folds of the row."""
    common = set.intersection(*(set(by_seed) for by_seed in tested.values()))
    if len(common) < 2:
        return None
    means = [
        np.mean([by_seed[seed].score for by_seed in tested.values()]) for seed in sorted(common)
    ]
    return float(np.std(means, ddof=1))


def _published(one: Judged) -> tuple[Published, ...]:
    """Choose the published numbers of this property, the best first.

    Those in another unit than the table's cannot stand beside it; a warning names them.
    """
    alone = len(one.recipe.targets) == 1
    fitting = [
        told
        for told in one.recipe.published
        if told.metric == one.metric
        and (told.target == one.target.name or (told.target is None and alone))
    ]
    other = [told for told in fitting if told.unit.strip() != one.unit]
    for told in other:
        LOGGER.warning(
            "What %s published for %s is left out: it is in %s, and the table in %s. Write it in "
            "that unit in the recipe of %s.",
            *(told.by, one.target.name, told.unit, one.unit, one.name),
        )
    beside = (told for told in fitting if told not in other)
    return tuple(sorted(beside, key=lambda told: told.value, reverse=one.metric == "rocauc"))


def _without_numbers(name: str) -> str:
    return re.sub(r"-(fold|seed)-\d+", "", name)


def _unfinished(one: Judged) -> str:
    done, wanted = one.training.get("epochs", 0), one.recipe.optim.epochs
    return f"{one.name}: {done} of {wanted} epochs" if done < wanted else ""


def _all(members: Sequence[Judged], fact: str) -> tuple[str, ...]:
    found: list[Any] = [one.training.get(fact) for one in members]
    return tuple(sorted({str(value) for value in found if value}))
