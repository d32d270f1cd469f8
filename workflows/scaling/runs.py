"""One run: a recipe written, trained through the package's own door, and measured."""

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import write
from torch import nn

from ase_crystalformer import load_model, train
from scaling.plan import Plan, Run

Point = dict[str, Any]


def write_crystals(parts: tuple[list[Atoms], list[Atoms]], plan: Plan, folder: Path) -> None:
    """Write one file per amount of data: smaller ones are part of larger ones."""
    learned, judged = parts
    folder.mkdir(parents=True, exist_ok=True)
    for number in {*plan.crystals, plan.base["crystals"]}:
        rows = []
        for name, part in (("train", learned[:number]), ("val", judged)):
            for atoms in part:
                row = atoms.copy()
                row.calc = atoms.calc
                row.info["split"] = name
                rows.append(row)
        write(folder / f"{number}.extxyz", rows, format="extxyz")


def perform(run: Run, plan: Plan, folder: Path) -> Point:
    """Train one model and measure it.

    Returns:
        The run; parameters, element tables left out; seconds (of the processor, where that
        computes); mean absolute errors on the validation crystals.
    """
    name = "-".join(map(str, asdict(run).values()))
    recipe = folder / "recipes" / f"{name}.toml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(_toml(_recipe(run, plan, folder)), encoding="utf-8")
    shutil.rmtree(folder / "runs" / name, ignore_errors=True)
    clock = time.process_time if plan.machine.get("accelerator") == "cpu" else time.perf_counter
    start = clock()
    trained = train(recipe, runs=folder / "runs", progress=False)
    seconds = clock() - start
    model = load_model(trained / "model")
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    parameters = sum(weight.numel() for weight in model.parameters())
    parameters -= sum(table.weight.numel() for table in tables)
    errors = {key: told["mae"] for key, told in model.card.errors.items()}
    return {**asdict(run), "parameters": parameters, "seconds": round(seconds, 2), **errors}


def _recipe(run: Run, plan: Plan, folder: Path) -> dict[str, Any]:
    (contender,) = (one for one in plan.contenders if one.name == run.contender)
    return {
        "encoder": contender.encoder,
        "seed": run.seed,
        "data": {
            "packed": str(folder / f"packed-{contender.name}-{run.crystals}"),
            "source": str(folder / "crystals" / f"{run.crystals}.extxyz"),
            "augment": contender.augment,
        },
        "model": {"cutoff": plan.cutoff, **contender.sizes[run.size]},
        "energy": plan.energy,
        "optim": {**plan.optim, "epochs": run.epochs},
        "machine": plan.machine,
    }


def _toml(told: dict[str, Any]) -> str:
    """Write plain values and one level of tables; JSON writes values as TOML does."""
    plain = {key: value for key, value in told.items() if not isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for name in told.keys() - plain.keys():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in told[name].items()]
    return "\n".join(lines) + "\n"
