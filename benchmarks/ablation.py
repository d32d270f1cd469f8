"""What each improvement is worth: one recipe, one thing changed at a time, several seeds.

    python -m benchmarks.ablation run angular-mp-2018.toml --row band_gap --data data --out ablated
    python -m benchmarks.ablation table --out ablated

Every variant is trained with every seed on the same packed crystals; what is done is not trained
again, and what was cut off goes on. The table tells the error of each variant on the validation
part (``--split test``: the test part), and how it differs from the recipe as it is, seed by seed.
The mean of the predictions of all seeds of the recipe as it is is told as an ensemble.
``--start NAME=MODEL`` adds a variant that takes over the encoder of a trained model, such as one of
all properties together (``--row together``) or one that was pretrained.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
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

#: What is changed, as ``--set`` takes it.
VARIANTS: dict[str, tuple[str, ...]] = {
    BASE: (),
    "without angular invariants": ("model.degree=0",),
    "without averaged weights": ("optim.ema=0",),
    "plain mean of the weights of the last fifth": ("optim.ema=0", "optim.swa_last=0.2"),
    "squared errors": ("loss='squared'",),
    "Muon for matrices": ("optim.optimizer='muon'",),
}

#: Added where a gap is learned.
PLAIN_GAP = "gap as a plain number"


def variants(recipe: Recipe, starts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """List the variants of a recipe, with the encoders to start from as ``NAME=MODEL``."""
    found = dict(VARIANTS)
    gaps = [name for name in recipe.targets if TARGETS[name].kind == "gap"]
    if gaps:
        found[PLAIN_GAP] = tuple(f"kinds.{name}='linear'" for name in gaps)
    for start in starts:
        name, _, model = start.partition("=")
        found[f"encoder from {name}"] = (f"start_encoder={json.dumps(model)}",)
    return found


def run(asked: argparse.Namespace) -> None:
    """Train what is not done."""
    shared = [
        f"data.packed={json.dumps(str(asked.out / 'packed'))}",
        f"data.directory={json.dumps(str(asked.data))}",
        *asked.set,
    ]
    recipe = read_recipe(asked.recipe, shared, row=asked.row)
    chosen = variants(recipe, asked.start)
    if unknown := sorted(set(asked.variants) - set(chosen)):
        raise SystemExit(f"No variant {', '.join(unknown)}; there are {', '.join(chosen)}.")
    for seed in range(asked.seeds):
        for name in asked.variants or chosen:
            overrides = [*shared, *chosen[name], f"seed={seed}", f"name={json.dumps(name)}"]
            one = read_recipe(asked.recipe, overrides, row=asked.row)
            folder = asked.out / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}-seed-{seed}"
            if not is_done(folder, one):
                begun = (folder / "checkpoints" / "last.ckpt").is_file()
                fit(one, folder, resume=begun, progress=False)


def collect(out: Path, part: Split) -> dict[str, dict[str, dict[int, Judged]]]:
    """Judge the runs that are done: property to variant to seed."""
    found: dict[str, dict[str, dict[int, Judged]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted(out.glob("*/recipe.json")):
        recipe_done = (path.parent / "model.json").is_file()
        for one in judge(path.parent, part, progress=False) if recipe_done else ():
            if one.training.get("epochs", 0) >= one.recipe.optim.epochs:
                found[one.target.name][one.recipe.name][one.recipe.seed] = one
    return found


def compare(seeds: dict[str, dict[int, Judged]]) -> list[dict[str, Any]]:
    """Compare every variant of one property with the recipe as it is, seed by seed."""
    base = seeds.get(BASE, {})
    rows = []
    for name in sorted(seeds, key=lambda name: (name != BASE, name)):
        scores = {seed: one.score for seed, one in seeds[name].items()}
        gains = [scores[seed] - base[seed].score for seed in sorted(set(scores) & set(base))]
        rows.append(_row(name, list(scores.values()), gains, next(iter(seeds[name].values()))))
    for mean in ensembles(base.values()):
        gain = [mean.score - float(np.mean([one.score for one in base.values()]))]
        rows.append(_row(f"mean of {mean.members} models", [mean.score], gain, mean))
    return rows


def _row(name: str, scores: list[float], gains: list[float], one: Judged) -> dict[str, Any]:
    return {
        "variant": name,
        "score": float(np.mean(scores)),
        "spread": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "change": float(np.mean(gains)) if gains else None,
        "change spread": float(np.std(gains, ddof=1)) if len(gains) > 1 else None,
        "seeds": len(scores),
        "metric": one.metric,
        "unit": one.unit,
        "part": one.part,
        "n": len(one.ids),
        "epochs": one.training["epochs"],
        "hours": one.training["hours"],
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Write the table of one property."""
    first = rows[0]
    what = f"{first['metric']}, {first['unit']} ({first['part']}, n = {first['n']:,})"
    lines = [["", what, "change", "seeds", "epochs", "hours"], ["---", *["--:"] * 5]]
    for row in rows:
        base = row["variant"] == BASE
        change = "" if base or row["change"] is None else f"{row['change']:+.3g}"
        lines.append(
            [
                row["variant"],
                f"{row['score']:.4g}{_spread(row['spread'])}",
                change + (_spread(row["change spread"]) if change else ""),
                *(f"{row[key]:g}" for key in ("seeds", "epochs", "hours")),
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
