"""Runs to what public leaderboards take: checked first, then predicted, then written."""

import gzip
import json
import platform
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ase_crystalformer.errors import BadRecipe, MissingData
from ase_crystalformer.leaderboards import jarvis, matbench
from ase_crystalformer.leaderboards.folder import begin, check_ours, put, put_json, put_recipes
from ase_crystalformer.leaderboards.runs import Outcome, TrainedRun, outcomes_of
from ase_crystalformer.training.config import recipe_dict

#: How JARVIS-DFT names its crystals.
JARVIS_ID = re.compile("JVASP-[0-9]+")


@dataclass(frozen=True, kw_only=True)
class About:
    """What a leaderboard shows beside numbers.

    Attributes:
        name: Of the algorithm.
        authors: Names, or of the team.
        url: Of the project.
        email: To ask questions.
        notes: Whatever else should be known.
    """

    name: str
    authors: str
    url: str = ""
    email: str = ""
    notes: str = ""


def write_matbench(
    runs: Sequence[TrainedRun],
    about: About,
    out: Path,
    *,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, list[float]]:
    """Write ``results.json.gz``, ``info.json``, ``run.py`` and the recipes of all folds.

    Args:
        runs: The five folds of every task. They are checked before anything is predicted.
        about: For ``info.json``.
        out: The folder; MatBench wants it called ``matbench_v0.1_NAME``. What an earlier
            contribution left there goes.
        device: Where to predict.
        progress: Show bars.

    Returns:
        Mean absolute errors of the folds of every task.

    Raises:
        BadRecipe: Two runs are of the same fold, or one is of none, or of no whole task; or the
            folder holds something else.
        MissingData: Rows or folds are missing.
    """
    places = _places(runs)
    check_ours(out)
    found: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    outcomes = []
    for (task, fold), run in places.items():
        label = matbench.TASKS[task].label
        told = outcomes_of(run, device=device, progress=progress)
        one = next(one for one in told if one.target == label)
        parameters = {**recipe_dict(run.recipe), "training": one.card.training}
        found[task][fold] = matbench.fold_result(task, fold, one.predicted, one.labels, parameters)
        outcomes.append(one)
    record = matbench.record(found, {"algorithm": about.name, "notes": about.notes})
    begin(out)
    put(out / "results.json.gz", gzip.compress(json.dumps(record).encode(), mtime=0))
    put_json(out / "info.json", _information(outcomes[0], about))
    put_recipes(out, {f"{task}-fold-{fold}": run.recipe for (task, fold), run in places.items()})
    return {
        task: [folds[number]["scores"]["mae"] for number in sorted(folds)]
        for task, folds in found.items()
    }


def write_jarvis(
    runs: Sequence[TrainedRun],
    about: About,
    out: Path,
    benchmark: Path | None = None,
    *,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, float]:
    """Write one ``….csv.zip`` per property, ``metadata.json``, ``run.sh``, ``run.py`` and recipes.

    Args:
        runs: Of one or more properties of JARVIS-DFT, checked before anything is predicted.
        about: For ``metadata.json``.
        out: The folder, of any name. What an earlier contribution left there goes.
        benchmark: A file of the leaderboard that holds the test set of the only property.
        device: Where to predict.
        progress: Show bars.

    Returns:
        Mean absolute error of every property, in its unit: GPa of moduli.

    Raises:
        BadRecipe: A property is there twice, or a benchmark is given for more than one; or the
            folder holds something else.
        MissingData: A crystal of a test part is none of JARVIS-DFT, or the test part is not the
            test set of the benchmark.
        UnknownName: The leaderboard has no such property.
    """
    names = [jarvis.file_name(target) for run in runs for target in run.recipe.targets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadRecipe(f"{', '.join(twice)}: more than one run is of this. Drop the others.")
    if benchmark is not None and len(names) != 1:
        raise BadRecipe("A benchmark is of one property. Give one run of one property with it.")
    for run in runs:
        _check_tested(run)
    truth = None
    if benchmark is not None:
        truth = jarvis.test_set(benchmark, runs[0].tested(runs[0].recipe.targets[0]))
    check_ours(out)
    outcomes = [one for run in runs for one in outcomes_of(run, device=device, progress=progress)]
    begin(out)
    for one in outcomes:
        name = jarvis.file_name(one.target)
        put(out / f"{name}.zip", jarvis.zipped(one.target, one.predicted))
    put_json(out / "metadata.json", _metadata(outcomes, about))
    put(out / "run.sh", b"#!/bin/bash\npip install 'ase-crystalformer[train]'\npython run.py\n")
    put_recipes(out, {"+".join(run.recipe.targets): run.recipe for run in runs})
    return {one.target: _mean_error(one.predicted, truth or one.labels) for one in outcomes}


def _check_tested(run: TrainedRun) -> None:
    """Refuse a run that was tested on crystals JARVIS-DFT does not have."""
    tested = {name for target in run.recipe.targets for name in run.tested(target)}
    if foreign := sorted(name for name in tested if not JARVIS_ID.fullmatch(name)):
        raise MissingData(
            f"{run.folder} was tested on {len(tested):,} crystals, of which {len(foreign):,} are "
            f"none of JARVIS-DFT, e.g. {foreign[0]!r}; its names are JVASP-1 and so on. Train on "
            "JARVIS-DFT, split as the leaderboard does, with these names."
        )


def _places(runs: Sequence[TrainedRun]) -> dict[tuple[str, int], TrainedRun]:
    """Find task and fold of every run; refuse what MatBench would refuse."""
    places: dict[tuple[str, int], TrainedRun] = {}
    for run in runs:
        task, fold = place = _place(run)
        if place in places:
            raise BadRecipe(
                f"{run.folder}: there is another run of fold {fold} of {task}. Drop one."
            )
        places[place] = run
    for task in {task for task, _ in places}:
        matbench.check_folds(task, (fold for name, fold in places if name == task))
    for (task, fold), run in places.items():
        matbench.check_rows(task, fold, run.tested(matbench.TASKS[task].label))
    return places


def _place(run: TrainedRun) -> tuple[str, int]:
    """Find task and fold of a run."""
    source, fold = run.recipe.data.source, run.recipe.data.fold
    name = Path(str(source)).name.partition(".")[0].replace("-", "_")
    if name not in matbench.TASKS or matbench.TASKS[name].label not in run.recipe.targets:
        raise BadRecipe(
            f"{run.folder} learned {', '.join(run.recipe.targets)} of {source!r}, which is no "
            f"whole task of MatBench. Its tasks, as data.source (or as a file of your own called "
            f"so): {', '.join(task.replace('_', '-') for task in matbench.TASKS)}."
        )
    if fold is None:
        raise BadRecipe(f"{run.folder} was not trained on a fold. Set data.fold in its recipe.")
    return name, fold


def _information(one: Outcome, about: About) -> dict[str, Any]:
    versions, encoder = one.card.training.get("versions", {}), one.run.recipe.encoder
    return {
        "authors": about.authors,
        "algorithm": about.name,
        "algorithm_long": f"Encoder {encoder} of ase_crystalformer. {about.url}".strip(),
        "bibtex_refs": list(one.card.citations),
        "notes": about.notes or None,
        "requirements": {
            "python": [f"{name}=={number}" for name, number in versions.items() if name != "python"]
        },
    }


def _metadata(outcomes: Sequence[Outcome], about: About) -> dict[str, Any]:
    """Say what the leaderboard asks; dates are month, day, year there."""
    training = [one.card.training for one in {one.run: one for one in outcomes}.values()]
    return {
        "model_name": about.name,
        "project_url": about.url,
        "date_submitted": datetime.now(UTC).strftime("%m-%d-%Y"),
        "author_email": about.email,
        "database_version": "12-12-2022",
        "team_name": about.authors,
        "time_taken_seconds": round(sum(3600 * one.get("hours", 0.0) for one in training), 1),
        "language": "python",
        "os": platform.system().lower(),
        "software_used": ", ".join(
            f"{name} {number}" for name, number in training[0].get("versions", {}).items()
        ),
        "hardware_used": training[0].get("hardware", ""),
        "git_url": [about.url],
        "notes": about.notes,
    }


def _mean_error(predicted: Mapping[str, float], labels: Mapping[str, float]) -> float:
    return sum(abs(predicted[name] - label) for name, label in labels.items()) / len(labels)
