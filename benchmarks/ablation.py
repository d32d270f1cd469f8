"""What each improvement is worth: one recipe, one thing changed at a time, several seeds.

    python -m benchmarks.ablation run angular-mp-2018.toml --row band_gap --data data --out ablated
    python -m benchmarks.ablation table --out ablated

Every variant is trained with every seed on the same packed crystals, of a MatBench set on as many
official folds as ``--folds`` says; what is done is not trained again, and what was cut off goes on.
The table tells the error of each variant on the validation part (``--split test``: the test part),
and how it differs from the recipe as it is, run by run. The mean of the predictions of all seeds of
the recipe as it is is told as an ensemble.
``--start NAME=MODEL`` adds a variant that takes over the encoder of a trained model, such as one of
all properties together (``--row together``) or one that was pretrained.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ase_crystalformer.data.crystals import Split
from ase_crystalformer.leaderboards.judged import Judged, ensembles, judge
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training.config import Recipe, read_recipe
from ase_crystalformer.training.folds import is_done
from ase_crystalformer.training.run import fit
from ase_crystalformer.writing import whole
from benchmarks.timing import machine

BASE = "as it is"

#: Fold and seed.
Run = tuple[int, int]

#: What is changed, as ``--set`` takes it.
VARIANTS: dict[str, tuple[str, ...]] = {
    BASE: (),
    "without angular invariants": ("model.degree=0",),
    "without averaged weights": ("optim.ema=0",),
    "plain mean of the weights of the last fifth": ("optim.ema=0", "optim.swa_last=0.2"),
    "squared errors": ("loss='squared'",),
    "Muon for matrices": ("optim.optimizer='muon'",),
    "weight decay of 0.1": ("optim.weight_decay=0.1",),
    "displacements told beside": ("denoise.weight=0.1",),
}

#: Added where a gap is learned; and where atoms count by attention, or do not.
PLAIN_GAP = "gap as a plain number"
POOLED = {"mean": "plain mean over atoms", "attention": "attention over atoms"}


def variants(recipe: Recipe, starts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """List the variants of a recipe, with the encoders to start from as ``NAME=MODEL``."""
    found = dict(VARIANTS)
    gaps = [name for name in recipe.targets if TARGETS[name].kind == "gap"]
    if gaps:
        found[PLAIN_GAP] = tuple(f"kinds.{name}='linear'" for name in gaps)
    for pooling, name in POOLED.items():
        others = [one for one in recipe.targets if recipe.pooling.get(one, "mean") != pooling]
        if others:
            found[name] = tuple(f"pooling.{one}='{pooling}'" for one in others)
    for start in starts:
        name, _, model = start.partition("=")
        found[f"encoder from {name}"] = (f"start_encoder={json.dumps(model)}",)
    return found


def run(asked: argparse.Namespace) -> None:
    """Train what is not done."""
    base = _one(asked, BASE)
    chosen = variants(base, asked.start)
    if unknown := sorted(set(asked.variants) - set(chosen)):
        raise SystemExit(f"No variant {', '.join(unknown)}; there are {', '.join(chosen)}.")
    folds = range(asked.folds) if asked.folds else [base.data.fold]
    for fold, seed, name in product(folds, range(asked.seeds), asked.variants or chosen):
        one = _one(asked, name, chosen[name], fold, seed)
        place = "" if fold is None else f"fold-{fold}-"
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower())
        folder = asked.out / f"{slug}-{place}seed-{seed}"
        if not is_done(folder, one):
            begun = (folder / "checkpoints" / "last.ckpt").is_file()
            fit(one, folder, resume=begun, progress=False)


def _one(
    asked: argparse.Namespace,
    variant: str,
    changed: Sequence[str] = (),
    fold: int | None = None,
    seed: int = 0,
) -> Recipe:
    """Name a run after its variant, and its packed set after what is in it."""
    atoms = any(override.startswith("denoise") for override in changed)
    packed = "packed" + "-atoms" * atoms + ("" if fold is None else f"-fold-{fold}")
    overrides = [
        f"data.packed={json.dumps(str(asked.out / packed))}",
        f"data.directory={json.dumps(str(asked.data))}",
        *asked.set,
        *changed,
        *([] if fold is None else [f"data.fold={fold}"]),
        f"seed={seed}",
        f"name={json.dumps(variant)}",
    ]
    return read_recipe(asked.recipe, overrides, row=asked.row)


def collect(out: Path, part: Split) -> dict[str, dict[str, dict[Run, Judged]]]:
    """Judge the runs that are done: property to variant to fold and seed."""
    found: dict[str, dict[str, dict[Run, Judged]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted(out.glob("*/recipe.json")):
        recipe_done = (path.parent / "model.json").is_file()
        for one in judge(path.parent, part, progress=False) if recipe_done else ():
            recipe = one.recipe
            if one.training.get("epochs", 0) >= recipe.optim.epochs:
                found[one.target.name][recipe.name][recipe.data.fold or 0, recipe.seed] = one
    return found


def compare(runs: dict[str, dict[Run, Judged]]) -> list[dict[str, Any]]:
    """Compare every variant of one property with the recipe as it is, run by run."""
    base = runs.get(BASE, {})
    rows = []
    for name in sorted(runs, key=lambda name: (name != BASE, name)):
        scores = {run: one.score for run, one in runs[name].items()}
        gains = [scores[run] - base[run].score for run in sorted(set(scores) & set(base))]
        rows.append(_row(name, list(scores.values()), gains, list(runs[name].values())))
    if means := ensembles(base.values()):
        gains = [mean.score - float(np.mean([one.score for one in mean.of])) for mean in means]
        name = f"mean of {means[0].members} models"
        rows.append(_row(name, [mean.score for mean in means], gains, means))
    return rows


def _row(
    name: str, scores: list[float], gains: list[float], judged: Sequence[Judged]
) -> dict[str, Any]:
    one = judged[0]
    return {
        "variant": name,
        "score": float(np.mean(scores)),
        "spread": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "change": float(np.mean(gains)) if gains else None,
        "change spread": float(np.std(gains, ddof=1)) if len(gains) > 1 else None,
        "runs": len(scores),
        "metric": one.metric,
        "unit": one.unit,
        "part": one.part,
        "n": len({name for each in judged for name in each.ids}),
        "epochs": one.training["epochs"],
        "hours": round(float(np.mean([each.training["hours"] for each in judged])), 3),
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Write the table of one property."""
    first = rows[0]
    what = f"{first['metric']}, {first['unit']} ({first['part']}, n = {first['n']:,})"
    lines = [["", what, "change", "runs", "epochs", "hours each"], ["---", *["--:"] * 5]]
    for row in rows:
        base = row["variant"] == BASE
        change = "" if base or row["change"] is None else f"{row['change']:+.3g}"
        lines.append(
            [
                row["variant"],
                f"{row['score']:.4g}{_spread(row['spread'])}",
                change + (_spread(row["change spread"]) if change else ""),
                *(f"{row[key]:g}" for key in ("runs", "epochs", "hours")),
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _spread(value: float | None) -> str:
    return "" if value is None else f" ± {value:.2g}"


def record(out: Path, part: Split) -> str:
    """Write ``ablation.json`` and ``ablation.md`` into the folder of the runs."""
    found = {target: compare(seeds) for target, seeds in collect(out, part).items()}
    tables = "\n\n".join(f"## {target}\n\n{markdown(rows)}" for target, rows in found.items())
    told = {"machine": machine(), "properties": found}
    for name, text in (("md", tables), ("json", json.dumps(told, indent=1, ensure_ascii=False))):
        with whole(out / f"ablation.{name}") as path:
            path.write_text(text + "\n", encoding="utf-8")
    return tables


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("recipe", nargs="?", type=Path, help="a recipe for properties")
    parser.add_argument("--row", help="of a recipe with rows")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as train")
    parser.add_argument("--start", action="append", default=[], metavar="NAME=MODEL")
    parser.add_argument("--variants", nargs="+", default=[], help="all, if not given")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--folds", type=int, choices=range(1, 6), help="of a MatBench set")
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("ablated"), help="folder of the runs")
    asked = parser.parse_args()
    if asked.what == "run":
        if asked.recipe is None:
            parser.error("run needs a recipe")
        run(asked)
    print(record(asked.out, asked.split))


if __name__ == "__main__":
    main()
