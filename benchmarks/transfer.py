"""Is the embedding of the shipped model worth having where data are few? Folds of MatBench.

    nice python -m benchmarks.transfer run matbench_phonons --data data --out transferred
    python -m benchmarks.transfer table --out transferred

Refractive indices (matbench_dielectric) and highest phonon frequencies (matbench_phonons) are
learned by scikit-learn from the embeddings of the bundled models, from matminer's features, and
from both. Each set of features gets the regressor that does best inside the training folds: the
test fold chooses nothing. Cut off, the first command goes on; the second writes transfer.json and
transfer.md.
"""

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.readers import load
from ase_crystalformer.writing import whole
from benchmarks.timing import limited_threads, machine
from benchmarks.transfer_features import Table, features, fingerprint, structure_of
from benchmarks.transfer_regressors import REGRESSORS, chosen

HERE = Path(__file__).parent
FOLDS = 5

#: Behind this line the prose of transfer.md ends.
MARK = "<!-- tables -->"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of MatBench that the bundled models know no label of.

    Attributes:
        label: Of the data set.
        unit: Of the label.
        rows: How many the official task has.
        published: What leaderboard entries reach on the official folds, with their names.
    """

    label: str
    unit: str
    rows: int
    published: str


#: Moduli are not among them: the bundled property model was trained on moduli.
TASKS = {
    "matbench_phonons": Task(
        label="last_phonon_peak", unit="1/cm", rows=1265, published="MegNet (kgcnn) 28.8"
    ),
    "matbench_dielectric": Task(
        label="refractive_index", unit="1", rows=4764, published="MODNet 0.271"
    ),
}

#: Features that are compared, by name.
SETS: dict[str, tuple[str, ...]] = {
    "Magpie": ("magpie",),
    "Magpie + structural": ("magpie", "structural"),
    "embedding": ("embedding",),
    "embedding, with spread over atoms": ("embedding", "spread"),
    "embedding of the potential": ("potential",),
    "both embeddings": ("embedding", "potential"),
    "embedding + Magpie": ("embedding", "magpie"),
    "both embeddings + Magpie": ("embedding", "potential", "magpie"),
    "both embeddings + Magpie + structural": ("embedding", "potential", "magpie", "structural"),
}

#: What needs no training of ours, and is held against the rest.
PLAIN = ("Magpie", "Magpie + structural")

Results = dict[str, dict[str, dict[str, Any]]]
"""Set of features to fold to what was found there."""


def rows_of(task: str, data: Path, *, limit: int | None = None) -> list[LabelledCrystal]:
    """Read the rows of a task that have a label and an official fold."""
    label = TASKS[task].label
    found = [row for row in load(task, data) if label in row.labels and "fold_test" in row.info]
    return found[:limit]


def run(
    task: str,
    data: Path,
    out: Path,
    *,
    sets: Iterable[str] = tuple(SETS),
    limit: int | None = None,
) -> None:
    """Learn every fold from every set of features, unless it is done with these rows and models."""
    rows = rows_of(task, data, limit=limit)
    structures = [structure_of(row) for row in rows]
    labels = np.array([row.labels[TASKS[task].label] for row in rows], dtype=float)
    folds = np.array([int(row.info["fold_test"]) for row in rows])
    ids = [row.id for row in rows]
    for name in sets:
        prints = [fingerprint(kind, ids) for kind in SETS[name]]
        kinds = [
            features(kind, structures, out / task / "features" / of)
            for kind, of in zip(SETS[name], prints, strict=True)
        ]
        table = np.hstack(kinds)
        for fold in range(FOLDS):
            done = read(out / task)
            if done.get(name, {}).get(str(fold), {}).get("of") == prints:
                continue
            found = one_fold(table, labels, folds == fold)
            done.setdefault(name, {})[str(fold)] = found | {"of": prints}
            write(out / task, done)


def one_fold(
    table: Table, labels: NDArray[np.float64], tested: NDArray[np.bool_]
) -> dict[str, Any]:
    """Choose a regressor on the training rows, learn all of them, and judge the test rows."""
    begun = time.process_time()
    name, inner = chosen(table[~tested], labels[~tested])
    model = REGRESSORS[name](table.shape[1]).fit(table[~tested], labels[~tested])
    error = model.predict(table[tested]) - labels[tested]
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "n": int(tested.sum()),
        "learned": int((~tested).sum()),
        "columns": int(table.shape[1]),
        "regressor": name,
        "inner": inner,
        "seconds": round(time.process_time() - begun, 1),
    }


def read(folder: Path) -> Results:
    """Read what is done of a task."""
    path = folder / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write(folder: Path, results: Results) -> None:
    """Write what is done of a task, whole or not at all."""
    _put(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def table_of(results: Results, task: Task) -> str:
    """Write the table of a task; sets that lack folds say so."""
    head = ["features", "columns", f"MAE, {task.unit}", "beside the better plain set, by fold"]
    head += ["regressors chosen"]
    lines = [head, ["---", "--:", "--:", "---", "---"]]
    plain = best_plain(results)
    for name in (name for name in SETS if name in results):
        folds = results[name]
        errors = np.array([folds[fold]["mae"] for fold in sorted(folds)])
        told = f"{errors.mean():.4g} ± {errors.std():.2g}"
        if len(folds) < FOLDS:
            told += f" ({len(folds)} of {FOLDS} folds)"
        beside = "" if name in PLAIN or plain is None else _beside(folds, results[plain])
        used = sorted({folds[fold]["regressor"] for fold in folds})
        lines.append([name, str(folds[min(folds)]["columns"]), told, beside, ", ".join(used)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def best_plain(results: Results) -> str | None:
    """Name the set without training of ours that errs least over all folds."""
    whole = [name for name in PLAIN if len(results.get(name, {})) == FOLDS]
    means = {name: np.mean([fold["mae"] for fold in results[name].values()]) for name in whole}
    return min(whole, key=lambda name: means[name], default=None)


def _beside(ours: dict[str, Any], plain: dict[str, Any]) -> str:
    """Say how much lower the error is, in how many folds."""
    both = sorted(set(ours) & set(plain))
    pairs = np.array([[ours[fold]["mae"], plain[fold]["mae"]] for fold in both])
    change = pairs[:, 0].mean() / pairs[:, 1].mean() - 1
    return f"{change:+.0%}; lower in {(pairs[:, 0] < pairs[:, 1]).sum()} of {len(both)}"


def record(out: Path, to: Path = HERE) -> str:
    """Write ``transfer.json`` and the tables of ``transfer.md``; return the tables."""
    found = {task: read(out / task) for task in TASKS}
    found = {task: results for task, results in found.items() if results}
    told = {"machine": machine(), "tasks": found}
    _put(to / "transfer.json", json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    path = to / "transfer.md"
    prose = path.read_text(encoding="utf-8").partition(MARK)[0] if path.is_file() else ""
    parts = []
    for task, results in found.items():
        folds = max(results.values(), key=len)
        rows = sum(fold["n"] for fold in folds.values())
        line = f"{rows:,} of {TASKS[task].rows:,} rows. Leaderboard: {TASKS[task].published}."
        parts.append(f"## {task}\n\n{line}\n\n{table_of(results, TASKS[task])}")
    tables = "\n\n".join(parts)
    _put(path, f"{prose}{MARK}\n\n{tables}\n")
    return tables


def _put(path: Path, text: str) -> None:
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("transferred"), help="what is computed")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.tasks) - set(TASKS)):
        parser.error(f"no task {', '.join(unknown)}; there are {', '.join(TASKS)}")
    if asked.what == "table":
        print(record(asked.out))
        return
    with limited_threads(1):
        for task in asked.tasks or TASKS:
            run(task, asked.data, asked.out, sets=asked.sets)


if __name__ == "__main__":
    main()
