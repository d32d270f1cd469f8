"""Records of MatBench v0.1: five folds of a task, as the package ``matbench`` 0.6 writes them.

Source: A. Dunn et al., npj Computational Materials 6, 138 (2020); https://matbench.materialsproject.org.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import numpy as np

from ase_crystalformer.data import official
from ase_crystalformer.data.official import FOLDS
from ase_crystalformer.errors import BadRecipe, MissingData, unknown_name

BENCHMARK = "matbench_v0.1"
VERSION = "0.6"
SMALLEST_LABEL = 1e-5
"""Smaller labels are left out of relative errors."""


@dataclass(frozen=True)
class Task:
    """A task of MatBench that takes structures.

    Attributes:
        rows: How many there are.
        label: What this package calls the property.
        log10: Whether its decimal logarithm is asked for.
        classes: Whether yes or no is asked for: by the chance of yes.
    """

    rows: int
    label: str
    log10: bool = False
    classes: bool = False


#: All of them; numbers of rows as in matminer's metadata.
TASKS = {
    "matbench_dielectric": Task(4764, "refractive_index"),
    "matbench_jdft2d": Task(636, "exfoliation_energy"),
    "matbench_log_gvrh": Task(10987, "shear_modulus", log10=True),
    "matbench_log_kvrh": Task(10987, "bulk_modulus", log10=True),
    "matbench_mp_e_form": Task(132752, "formation_energy_per_atom"),
    "matbench_mp_gap": Task(106113, "band_gap"),
    "matbench_mp_is_metal": Task(106113, "is_metal", classes=True),
    "matbench_perovskites": Task(18928, "formation_energy_per_cell"),
    "matbench_phonons": Task(1265, "last_phonon_peak"),
}


def row_name(task: str, number: int) -> str:
    """Name a row of a task as MatBench does; the first is 1.

    Raises:
        UnknownName: There is no such task.
    """
    return official.row_name(task, _known(task).rows, number)


def fold_rows(task: str, fold: int) -> list[str]:
    """Name the rows that a fold of a task tests, in MatBench's order.

    Raises:
        UnknownName: There is no such task.
        BadRecipe: Its folds depend on its labels: yes or no is asked for.
    """
    if _known(task).classes:
        raise BadRecipe(
            f"{task} asks for yes or no; records of such tasks are not written here. "
            "crystalformer table tells its ROC-AUC."
        )
    tested = np.flatnonzero(official.folds(_known(task).rows) == fold)
    return [row_name(task, number + 1) for number in tested.tolist()]


def fold_size(task: str, fold: int) -> int:
    """Count the rows that a fold of a task tests; of classes, up to one more or less.

    Raises:
        UnknownName: There is no such task.
    """
    each, left = divmod(_known(task).rows, FOLDS)
    return each + (fold < left)


def check_rows(task: str, fold: int, tested: Collection[str]) -> None:
    """Refuse a test part that is not the whole fold.

    Raises:
        UnknownName: There is no such task.
        MissingData: Rows of the fold are missing, or others are there: such a record is refused.
    """
    rows = set(fold_rows(task, fold))
    missing, strange = rows - set(tested), set(tested) - rows
    if missing or strange:
        raise MissingData(
            f"Fold {fold} of {task} has {len(rows):,} rows. The test part of the run lacks "
            f"{_some(missing)}, and has {_some(strange)} too many. MatBench takes whole folds only."
        )


def check_folds(task: str, folds: Iterable[int]) -> None:
    """Refuse a task that lacks folds.

    Raises:
        MissingData: One or more are missing.
    """
    if lacking := sorted(set(range(FOLDS)) - set(folds)):
        raise MissingData(f"{task} lacks folds {lacking}. A record holds all five of a task.")


def fold_result(
    task: str,
    fold: int,
    predicted: Mapping[str, float],
    labels: Mapping[str, float],
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Write down one fold.

    Args:
        task: A key of ``TASKS``.
        fold: 0 to 4.
        predicted: Value of every row of the fold, by its name, in the unit of its label here.
        labels: The true ones.
        parameters: Whatever describes the model; plain values.

    Raises:
        BadRecipe: A prediction or a label is no number, or has no logarithm where one is asked for.
    """
    rows = fold_rows(task, fold)
    answers, truth = (
        np.array([float(values[row]) for row in rows]) for values in (predicted, labels)
    )
    if _known(task).log10:
        with np.errstate(divide="ignore", invalid="ignore"):
            answers, truth = np.log10(answers), np.log10(truth)
    for kind, values in (("Predictions", answers), ("Labels", truth)):
        if lost := [row for row, value in zip(rows, values, strict=True) if not isfinite(value)]:
            raise BadRecipe(f"{kind} of {_some(lost)} are no numbers. Train the fold again.")
    return {
        "data": dict(zip(rows, answers.tolist(), strict=True)),
        "parameters": dict(parameters),
        "scores": scores(truth, answers),
        "uncertainty": None,
    }


def scores(labels: Any, predicted: Any) -> dict[str, float]:
    """Compare predictions with labels as MatBench does; ``mape`` is a share, not per cent."""
    error = np.abs(np.asarray(predicted) - np.asarray(labels))
    large = np.abs(labels) > SMALLEST_LABEL
    return {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "mape": float((error[large] / np.abs(labels)[large]).mean()),
        "max_error": float(error.max()),
    }


def record(
    results: Mapping[str, Mapping[int, dict[str, Any]]],
    about: Mapping[str, Any],
    when: datetime | None = None,
) -> dict[str, Any]:
    """Join the folds of tasks into a record, signed.

    Args:
        results: Of every task, its five folds by number.
        about: What to say of the algorithm; plain values.
        when: Time of the record; now.
    """
    told = {
        "@module": "matbench.bench",
        "@class": "MatbenchBenchmark",
        "version": VERSION,
        "tasks": {task: _task(task, folds) for task, folds in results.items()},
        "user_metadata": dict(about),
        "benchmark_name": BENCHMARK,
        "datestamp": (when or datetime.now(UTC)).strftime("%Y.%m.%d %H:%M.%S"),
    }
    return {**told, "hash": signature(told)}


def _task(task: str, folds: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    return {
        "@module": "matbench.task",
        "@class": "MatbenchTask",
        "benchmark_name": BENCHMARK,
        "dataset_name": task,
        "results": {f"fold_{fold}": folds[fold] for fold in range(FOLDS)},
    }


def signature(told: Mapping[str, Any]) -> str:
    """Hash a record without its hash: JSON with sorted keys, SHA-256."""
    rest = {key: value for key, value in told.items() if key != "hash"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _known(task: str) -> Task:
    if task not in TASKS:
        raise unknown_name("task of MatBench that can be learned here", task, TASKS)
    return TASKS[task]


def _some(names: Iterable[str]) -> str:
    shown = sorted(names)
    if not shown:
        return "none"
    return f"{len(shown):,} ({', '.join(shown[:3])}{', …' if len(shown) > 3 else ''})"
