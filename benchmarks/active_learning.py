"""Is asking worth it? Errors of forces after the same labels, picked where in doubt or at random.

    python -m benchmarks.active_learning run --seeds 3
    python -m benchmarks.active_learning table

Runs workflows/active_learning.py on an alloy of copper and gold, labelled by EMT, for every seed
twice: frames on which the committee disagrees most, and frames at random. Both begin with the same
frames and are tested on the same ones. What is done is kept, so the first command goes on where it
stopped. The second writes active_learning.json and .md from what is there.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk
from ase.io import write

from benchmarks.timing import machine

HERE = Path(__file__).parent
PROGRAM = HERE.parent / "workflows" / "active_learning.py"
PICKS = ("uncertain", "random")
SETTINGS = {"rounds": 4, "start": 6, "picked": 6, "members": 3, "epochs": 60, "temperature": 800}

Errors = dict[str, dict[int, list[float]]]
"""Way of picking to seed to error of the test frames in every round, eV/Å."""


def crystal(path: Path) -> None:
    """Write an alloy of 32 atoms, half copper and half gold in layers."""
    atoms = bulk("Cu", cubic=True, a=3.87).repeat(2)
    layers = np.round(atoms.positions[:, 2] / 1.935).astype(int)
    atoms.symbols[layers % 2 == 1] = "Au"
    write(path, atoms)


def run(folder: Path, seeds: Sequence[int], settings: dict[str, float]) -> None:
    """Run what is not done yet."""
    folder.mkdir(parents=True, exist_ok=True)
    crystal(folder / "alloy.extxyz")
    told = [f"--{key}={value}" for key, value in settings.items()]
    for seed in seeds:
        for pick in PICKS:
            out = folder / f"{pick}-{seed}"
            command = [sys.executable, str(PROGRAM), str(folder / "alloy.extxyz"), *told]
            command += ["--labels=emt", f"--pick={pick}", f"--seed={seed}", f"--out={out}"]
            subprocess.run(command, check=True)


def collect(folder: Path) -> tuple[Errors, list[int], dict[str, Any]]:
    """Read the studies that are there: errors, numbers of labels, and the plan they share."""
    errors: Errors = {pick: {} for pick in PICKS}
    labels: list[int] = []
    plan: dict[str, Any] = {}
    for pick in PICKS:
        for path in sorted(folder.glob(f"{pick}-*/active_learning.json")):
            told = json.loads(path.read_text(encoding="utf-8"))
            errors[pick][told["plan"]["seed"]] = [one["test_error"] for one in told["rounds"]]
            plan = {key: told["plan"][key] for key in told["plan"] if key not in ("seed", "pick")}
            if len(told["rounds"]) > len(labels):
                labels = [one["frames"] for one in told["rounds"]]
    return errors, labels, plan


def compare(errors: Errors, labels: list[int]) -> list[dict[str, float]]:
    """Mean and standard deviation over seeds by round, and of the paired differences.

    Only seeds count for which both ways have come so far.
    """
    rows = []
    for number, learned in enumerate(labels):
        found = {
            pick: {seed: row[number] for seed, row in errors[pick].items() if len(row) > number}
            for pick in PICKS
        }
        seeds = sorted(set(found["uncertain"]) & set(found["random"]))
        if not seeds:
            break
        values = {pick: np.array([found[pick][seed] for seed in seeds]) for pick in PICKS}
        gain = values["random"] - values["uncertain"]
        row: dict[str, float] = {"labels": learned, "seeds": len(seeds)}
        for name, numbers in [*values.items(), ("gain", gain)]:
            row[f"{name} mean"] = float(numbers.mean())
            row[f"{name} spread"] = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, float]], plan: dict[str, Any], where: str) -> str:
    """Set the comparison as a table."""
    lines = [
        "# Active learning: asking against chance",
        "",
        f"Made by `python -m benchmarks.active_learning` ({where}). CuAu, 32 atoms, labels of EMT;",
        f"a committee of {plan['members']}, {plan['epochs']} epochs from scratch in each round,",
        f"walks at {plan['temperature']:g} K. Mean absolute error of force components on",
        f"{plan['test']} frames of EMT's own dynamics, meV/Å: mean and standard deviation over",
        "seeds. Last column: random less uncertain, seed by seed; positive where asking pays.",
        "",
        "| labels | seeds | most uncertain | random | gain |",
        "|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [
            f"{1000 * row[f'{name} mean']:.1f} ± {1000 * row[f'{name} spread']:.1f}"
            for name in (*PICKS, "gain")
        ]
        lines.append(f"| {row['labels']:g} | {row['seeds']:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run studies, or set what they found as a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.active_learning")
    parser.description, parser.formatter_class = __doc__, argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument("--folder", type=Path, default=Path("runs/active_learning"))
    parser.add_argument("--rounds", type=int, default=SETTINGS["rounds"])
    parser.add_argument("--epochs", type=int, default=SETTINGS["epochs"])
    parser.add_argument("--out", type=Path, default=HERE, help="for the table")
    asked = parser.parse_args(arguments)
    if asked.what == "run":
        settings = SETTINGS | {"rounds": asked.rounds, "epochs": asked.epochs}
        run(asked.folder, range(asked.seeds), settings)
        return
    errors, labels, plan = collect(asked.folder)
    rows = compare(errors, labels)
    if not rows:
        raise SystemExit(f"{asked.folder} holds no seed done both ways. Run it first.")
    plan["recipe"] = Path(plan["recipe"]).name
    told = {"machine": machine(), "plan": plan, "errors": errors, "rows": rows}
    name = "active_learning"
    for suffix, text in (
        ("json", json.dumps(told, indent=1) + "\n"),
        ("md", markdown(rows, plan, f"{len(errors['random'])} seeds")),
    ):
        partial = asked.out / f"{name}.{suffix}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(asked.out / f"{name}.{suffix}")
    print(markdown(rows, plan, f"{len(errors['random'])} seeds"))


if __name__ == "__main__":
    main()
