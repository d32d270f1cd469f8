"""Folders that public leaderboards take: results, who and how, and a program to redo them."""

import gzip
import json
import platform
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.leaderboards import jarvis, matbench
from ase_crystalformer.leaderboards.runs import Outcome
from ase_crystalformer.training.config import recipe_dict

AGAIN = '''\
"""Train what these results are of anew: python run.py, where the packed data of the recipes lie."""

import json
from pathlib import Path

from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.run import fit

for path in sorted(Path(__file__).parent.glob("recipes/*.json")):
    fit(check_recipe(json.loads(path.read_text(encoding="utf-8"))), Path("runs") / path.stem)
'''


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


def write_matbench(outcomes: Sequence[Outcome], about: About, out: Path) -> dict[str, list[float]]:
    """Write ``results.json.gz``, ``info.json``, ``run.py`` and the recipes of all folds.

    Args:
        outcomes: The five folds of every task.
        about: For ``info.json``.
        out: The folder; MatBench wants it called ``matbench_v0.1_NAME``.

    Returns:
        Mean absolute errors of the folds of every task.

    Raises:
        BadRecipe: Two runs are of the same fold, or one is of none, or of no task.
        MissingData: Rows or folds are missing.
    """
    found: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for one in outcomes:
        task, fold = _place(one)
        if fold in found[task]:
            raise BadRecipe(f"{one.run}: there is another run of fold {fold} of {task}. Drop one.")
        rows = {name: _row(one, task, name) for name in one.predicted}
        predicted = {rows[name]: value for name, value in one.predicted.items()}
        labels = {rows[name]: one.labels[name] for name in one.predicted}
        parameters = {**recipe_dict(one.recipe), "training": one.card.training}
        found[task][fold] = matbench.fold_result(task, fold, predicted, labels, parameters)
    told = matbench.record(found, {"algorithm": about.name, "notes": about.notes})
    _put(out / "results.json.gz", gzip.compress(json.dumps(told).encode(), mtime=0))
    _put_json(out / "info.json", _information(outcomes[0], about))
    _reproducible(outcomes, out)
    return {
        task: [folds[number]["scores"]["mae"] for number in sorted(folds)]
        for task, folds in found.items()
    }


def write_jarvis(
    outcomes: Sequence[Outcome], about: About, out: Path, benchmark: Path | None = None
) -> dict[str, float]:
    """Write one ``….csv.zip`` per property, ``metadata.json``, ``run.sh``, ``run.py`` and recipes.

    Args:
        outcomes: One or more properties of JARVIS-DFT.
        about: For ``metadata.json``.
        out: The folder, of any name.
        benchmark: A file of the leaderboard that holds the test set of the only property.

    Returns:
        Mean absolute error of every property.

    Raises:
        BadRecipe: A property is there twice, or a benchmark is given for more than one.
        MissingData: Predictions are not of the test set of the benchmark.
        UnknownName: The leaderboard has no such property.
    """
    names = [jarvis.file_name(one.target) for one in outcomes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadRecipe(f"{', '.join(twice)}: more than one run is of this. Drop the others.")
    if benchmark is not None and len(outcomes) != 1:
        raise BadRecipe("A benchmark is of one property. Give one run of one property with it.")
    errors = {one.target: _mean_error(one) for one in outcomes}
    if benchmark is not None:
        errors[outcomes[0].target] = jarvis.held_against(benchmark, outcomes[0].predicted)
    for name, one in zip(names, outcomes, strict=True):
        _put(out / f"{name}.zip", jarvis.zipped(one.target, one.predicted))
    _put_json(out / "metadata.json", _metadata(outcomes, about))
    _put(out / "run.sh", b"#!/bin/bash\npip install 'ase-crystalformer[train]'\npython run.py\n")
    _reproducible(outcomes, out)
    return errors


def _place(one: Outcome) -> tuple[str, int]:
    """Find task and fold of a run."""
    source, fold = Path(str(one.recipe.data.source)).name, one.recipe.data.fold
    if fold is None:
        raise BadRecipe(f"{one.run} was not trained on a fold. Set data.fold in its recipe.")
    tasks = {name: task for name, task in matbench.TASKS.items() if task.label == one.target}
    moduli = source == "matbench_log_kgvrh"
    for name, task in tasks.items():
        if name == source.partition(".")[0] or (moduli and task.log10):
            return name, fold
    raise BadRecipe(
        f"{one.run} learned {one.target} of {source!r}, which is no task of MatBench known here. "
        f"Those are {', '.join(matbench.TASKS)}."
    )


def _row(one: Outcome, task: str, name: str) -> str:
    """Name a crystal as MatBench does."""
    told = name if name.startswith("mb-") else one.remarks.get(name, {}).get("mb_id", "")
    number = told.rpartition("-")[2]
    return matbench.row_name(task, int(number)) if number.isdigit() else name


def _information(one: Outcome, about: About) -> dict[str, Any]:
    versions = one.card.training.get("versions", {})
    return {
        "authors": about.authors,
        "algorithm": about.name,
        "algorithm_long": f"Encoder {one.recipe.encoder} of ase_crystalformer. {about.url}".strip(),
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


def _mean_error(one: Outcome) -> float:
    return sum(abs(one.predicted[name] - label) for name, label in one.labels.items()) / len(
        one.labels
    )


def _reproducible(outcomes: Sequence[Outcome], out: Path) -> None:
    (out / "recipes").mkdir(exist_ok=True)
    for one in outcomes:
        _put_json(out / "recipes" / f"{one.run.name}.json", recipe_dict(one.recipe))
    _put(out / "run.py", AGAIN.encode())


def _put_json(path: Path, content: Any) -> None:
    _put(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
