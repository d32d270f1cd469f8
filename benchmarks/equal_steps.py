"""Every encoder, the same optimiser steps on the same batches of real data: what does it learn?

    python benchmarks/equal_steps.py train --data data
    python benchmarks/equal_steps.py table

The recipes are workflows/recipes/perovskites.toml (MatBench perovskites, training rows of fold 0)
and workflows/recipes/monbtaw.toml (energies, forces and stresses of an alloy), cut short as
equal_steps.toml says, which also has the size of each encoder. A run that is done is kept, so the
first command goes on where it stopped; give --only to several processes to share the work. The
second reads the runs, times every encoder on one batch, and writes equal_steps.json and .md.
"""

import argparse
import json
import multiprocessing
import resource
import time
import tomllib
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.loader import EdgeBudgetSampler, work
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import pack
from ase_crystalformer.neighbours import Radius
from ase_crystalformer.training.augment import orthogonal
from ase_crystalformer.training.build import build_model, build_objective
from ase_crystalformer.training.config import Recipe, check_recipe, read_recipe, recipe_dict
from ase_crystalformer.training.evaluate import evaluate
from ase_crystalformer.training.reading import crystals_of
from ase_crystalformer.training.run import fit
from benchmarks.timing import machine

HERE = Path(__file__).parent
RECIPES = HERE.parent / "workflows" / "recipes"
TOLD: dict[str, Any] = tomllib.loads((HERE / "equal_steps.toml").read_text(encoding="utf-8"))
SETS = tuple(TOLD["sets"])

#: What is judged of encoders that see how a crystal is turned: all validation crystals, turned.
TURNED = "crystals turned"
ENCODERS: dict[str, dict[str, Any]] = TOLD["encoders"]

#: What the table tells of each set: heading, quantity in scores.json, factor, digits.
COLUMNS = {
    "perovskites": [("formation energy, meV/cell", "formation_energy_per_cell", 1000.0)],
    "monbtaw": [
        ("energy, meV/atom", "energy", 1000.0),
        ("force, meV/Å", "forces", 1000.0),
        ("stress, meV/Å³", "stress", 1000.0),
    ],
}


def recipe(name: str, data_set: str, seed: int, out: Path, data: Path | None) -> Recipe:
    """Cut a recipe short and give it another encoder."""
    told = TOLD["sets"][data_set]
    model = dict(ENCODERS[name])
    whole = read_recipe(RECIPES / f"{data_set}.toml")
    plain = recipe_dict(whole) | {
        "name": f"{data_set}-{name}-{seed}",
        "encoder": model.pop("encoder", name),
        "model": model,
        "seed": seed,
    }
    plain["data"] |= {
        "packed": out / f"packed-{data_set}",
        "directory": data,
        "share": {plain["data"]["source"]: told["share"]},
    }
    plain["optim"] |= told["optim"]
    return check_recipe(plain)


def pack_once(chosen: Recipe) -> None:
    """Pack a set with every atom, for encoders of any kind; seed 0 draws the validation part."""
    folder = chosen.data.packed
    if not (folder / "meta.json").is_file():
        source = crystals_of(replace(chosen, seed=0))
        labels = list(chosen.targets) or ["energy"]
        rule, fold = Radius(TOLD["cutoff"]), chosen.data.fold
        pack(source, rule, folder, labels=labels, remembered={"fold": fold})
        again = crystals_of(replace(chosen, seed=0))
        turned = (turn(crystal) for crystal in again if crystal.split == "val")
        pack(turned, rule, turned_folder(chosen), labels=labels, remembered={"fold": fold})


def turned_folder(chosen: Recipe) -> Path:
    """Name the folder of the validation crystals, each turned."""
    return chosen.data.packed.with_name(chosen.data.packed.name + "-turned")


def turn(crystal: LabelledCrystal) -> LabelledCrystal:
    """Turn a crystal by a matrix drawn by its name, its forces and stress with it."""
    matrix = orthogonal(1, (zlib.crc32(crystal.id.encode()),))[0].numpy()
    labels = dict(crystal.labels)
    if "forces" in labels:
        labels["forces"] = labels["forces"] @ matrix.T
    if "stress" in labels:
        labels["stress"] = matrix @ labels["stress"] @ matrix.T
    places = {"positions": crystal.positions @ matrix.T, "cell": crystal.cell @ matrix.T}
    return replace(crystal.labelled(labels), **places)


def train(name: str, data_set: str, seed: int, out: Path, data: Path) -> None:
    """Train and judge one encoder, unless that is done."""
    chosen = recipe(name, data_set, seed, out, data)
    folder = out / chosen.name
    if (folder / "scores.json").is_file():
        return
    pack_once(chosen)
    start = time.process_time()
    model = fit(chosen, folder, progress=False)
    (folder / "seconds.json").write_text(json.dumps(time.process_time() - start))
    if model.encoder.claims.rotation is not True:
        evaluate(model, turned_folder(chosen), split="val", out=folder / TURNED, progress=False)
    evaluate(model, chosen.data.packed, split="val", out=folder, progress=False)
    print(chosen.name, (folder / "scores.json").read_text(encoding="utf-8"), flush=True)


def cost(chosen: Recipe) -> dict[str, float]:
    """Time and memory of one batch on one thread, in a process of its own."""
    torch.set_num_threads(1)
    packed = PackedCrystals(chosen.data.packed)
    which = packed.where("train")
    sampler = EdgeBudgetSampler(work(packed), which, budget=chosen.optim.budget, seed=0)
    graph, labels = packed.batch(next(iter(sampler)))
    model = build_model(chosen, packed, which)
    objective = build_objective(chosen, model, packed, which)

    def step() -> None:
        objective(model.train(), graph, labels).backward()

    def infer() -> None:
        model.eval()
        if model.is_potential:
            model.energy(graph)
        else:
            with torch.no_grad():
                model.properties(graph)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "atoms": graph.atoms,
        "edges": graph.edges,
        "train_us": 1e6 * _seconds(step) / graph.atoms,
        "infer_us": 1e6 * _seconds(infer) / graph.atoms,
        "memory_kib": (peak - before) / graph.atoms,
    }


def _seconds(run: Callable[[], None], rounds: int = 7) -> float:
    """Least CPU time of some rounds."""
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        spent.append(time.process_time() - start)
    return min(spent)


def costs(out: Path, data: Path | None) -> dict[str, dict[str, dict[str, float]]]:
    """Measure every encoder on every set, one process after the other."""
    spawn = multiprocessing.get_context("spawn")
    found: dict[str, dict[str, dict[str, float]]] = {}
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for data_set in SETS:
            for name in ENCODERS:
                chosen = recipe(name, data_set, 0, out, data)
                found.setdefault(data_set, {})[name] = pool.submit(cost, chosen).result()
    return found


def scores(out: Path) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Read the errors of the runs that are done, one entry per seed."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {data_set: {} for data_set in SETS}
    for data_set, rows in found.items():
        for name in ENCODERS:
            runs = [out / f"{data_set}-{name}-{seed}" for seed in TOLD["seeds"]]
            rows[name] = _errors(runs)
            rows[f"{name}, {TURNED}"] = _errors([run / TURNED for run in runs])
    return found


def _errors(runs: list[Path]) -> list[dict[str, float]]:
    files = [run / "scores.json" for run in runs]
    told = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    return [{key: value["mae"] for key, value in one.items()} for one in told]


def table(data_set: str, found: dict[str, Any], spent: dict[str, Any]) -> str:
    """Write the table of one set, the encoder with the least error first."""
    heads = [head for head, _, _ in COLUMNS[data_set]]
    head = ["encoder", "parameters", *heads, "train, µs/atom", "infer, µs/atom", "KiB/atom"]
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    last = COLUMNS[data_set][-1 if len(heads) == 1 else 1][1]
    done = {name: runs for name, runs in found.items() if runs}
    for name in sorted(done, key=lambda name: float(np.mean([run[last] for run in done[name]]))):
        cells = [
            _spread([scale * run[key] for run in done[name]]) for _, key, scale in COLUMNS[data_set]
        ]
        own = spent[name.partition(",")[0]]
        figures = [f"{own[key]:,.0f}" for key in ("train_us", "infer_us", "memory_kib")]
        lines.append([name, f"{own['parameters']:,}", *cells, *figures])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _spread(values: list[float]) -> str:
    """Mean of the seeds and half their range."""
    return f"{np.mean(values):.3g} ± {(max(values) - min(values)) / 2:.2g}"


def write(out: Path, data: Path | None) -> None:
    """Write the tables and all they were made of."""
    found, spent = scores(out), costs(out, data)
    told = {"machine": machine(), "told": TOLD, "errors": found, "costs": spent}
    text = json.dumps(told, indent=1, ensure_ascii=False)
    (HERE / "equal_steps.json").write_text(text + "\n", encoding="utf-8")
    page = HERE / "equal_steps.md"
    before = page.read_text(encoding="utf-8") if page.is_file() else ""
    parts = [f"<!-- {name} -->\n{table(name, found[name], spent[name])}" for name in SETS]
    prose = before.partition("<!-- ")[0] or "# Encoders after equal steps\n\n"
    page.write_text(prose + "\n\n".join(parts) + "\n", encoding="utf-8")


def main() -> None:
    """Train, or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "table"))
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/equal_steps"))
    parser.add_argument("--only", choices=ENCODERS, nargs="+", default=list(ENCODERS))
    chosen = parser.parse_args()
    if chosen.what == "table":
        write(chosen.out, chosen.data)
        return
    for seed in TOLD["seeds"]:
        for data_set in SETS:
            for name in chosen.only:
                train(name, data_set, seed, chosen.out, chosen.data)


if __name__ == "__main__":
    main()
