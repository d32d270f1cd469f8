"""What short arithmetic costs: the bundled models in bfloat16 where autocast takes it, and float32.

Weights stay as they are and products of matrices are short, as in training with
``machine.precision = "bf16-mixed"``. Crystals are labelled ones of the tests, every atom moved by
0.05 Å along each direction, so that forces are not zero.

    python -m benchmarks.precision            writes benchmarks/precision.md

TF32 (``machine.matmul = "high"``) exists on GPUs alone and is not measured here.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ase_crystalformer.data.readers import load
from ase_crystalformer.errors import CrystalformerError
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.pretrained import find_model
from ase_crystalformer.structures import Crystal
from benchmarks.crystals import SAMPLES

MOVED = 0.05
"""Å."""

SETS = ("mp_labelled", "matbench_log_kgvrh")

#: What is compared, per atom, per component or per crystal.
UNITS = {"energy": "meV/atom", "forces": "meV/Å", "stress": "meV/Å³"}


def moved_crystals(count: int, seed: int = 0) -> list[Crystal]:
    """Take labelled crystals in turn, and move their atoms."""
    random = np.random.default_rng(seed)
    rows = [row for name in SETS for row in load(name, SAMPLES)]
    rows = rows[:: max(1, len(rows) // count)][:count]
    return [
        Crystal(
            row.species,
            row.positions + random.normal(0, MOVED, np.shape(row.positions)),
            row.cell,
            row.periodic,
        )
        for row in rows
    ]


def compute(
    model: CrystalModel, crystals: list[Crystal], short: AbstractContextManager[Any]
) -> list[Any]:
    """Predict every crystal; one that cannot be computed is its error."""
    with short:
        return [found for _, found in sorted(model.each(crystals), key=lambda pair: pair[0])]


def differences(name: str, crystals: list[Crystal], short: Callable[[], Any]) -> list[str]:
    """Lines of a table: mean and largest difference, and how large the values are."""
    model = CrystalModel.load(find_model(name))
    exact = compute(model, crystals, nullcontext())
    rough = compute(model, crystals, short())
    pairs = [
        (one, other, len(np.atleast_1d(crystal.species)))
        for one, other, crystal in zip(exact, rough, crystals, strict=True)
        if not isinstance(one, CrystalformerError)
    ]
    units = UNITS if model.is_potential else {t.name: t.unit for t in model.targets}
    lines = []
    for key, unit in units.items():
        scale = 1e3 if model.is_potential else 1.0
        parts = [
            (np.ravel(one[key]) * scale, np.ravel(other[key]) * scale, atoms)
            for one, other, atoms in pairs
        ]
        per = [atoms if key == "energy" else 1 for *_, atoms in parts]
        error = np.concatenate([(b - a) / n for (a, b, _), n in zip(parts, per, strict=True)])
        spread = np.concatenate([a / n for (a, *_), n in zip(parts, per, strict=True)]).std()
        told = model.card.errors.get(key, {})
        mae = told.get("mae")
        own = "" if mae is None else f"{mae * scale:.3g}"
        lines.append(
            f"| {model.card.name} | {key} | {unit} | {len(parts)} | {np.abs(error).mean():.2g} | "
            f"{np.abs(error).max():.2g} | {spread:.3g} | {own} |"
        )
    return lines


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    asked = parser.parse_args()
    crystals = moved_crystals(asked.count)
    short = partial(torch.autocast, "cpu", torch.bfloat16)
    lines = [
        "# bfloat16 against float32",
        "",
        f"{len(crystals)} labelled crystals of the tests, atoms moved by {MOVED} Å; "
        f"torch {torch.__version__}, CPU autocast. Differences of the two, and for comparison the "
        "spread of the values and the model's own error on its test set.",
        "",
        "| model | quantity | unit | crystals | mean | largest | spread of values | own error |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in ("default", "default-properties"):
        lines += differences(name, crystals, short)
    print("\n".join(lines))
    asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
