"""Which encoder learns most in the same time? Formation energies, equal minutes on one thread.

    python benchmarks/equal_cost.py --data data --minutes 2

Every encoder is timed for one pass over the same small crystals of Materials Project, then trained
for as many passes as fit the minutes, with the same optimiser, and judged on the official
validation part. Prints a Markdown table. Takes (number of encoders) x (minutes + about one).
"""

import argparse
import time
from pathlib import Path

from ase_crystalformer.training.config import Recipe, check_recipe
from ase_crystalformer.training.evaluate import evaluate
from ase_crystalformer.training.run import fit

#: Sizes of comparable cost; all in smooth mode.
ENCODERS = {
    "crystalformer": {"cutoff": 5.0, "basis": 20, "basis_radius": 5.0, "norm": True},
    "crystalformer, degree 2": {
        "cutoff": 5.0,
        "basis": 20,
        "basis_radius": 5.0,
        "norm": True,
        "degree": 2,
    },
    "icomformer": {"cutoff": 5.0, "width": 128},
    "ecomformer": {"cutoff": 5.0, "width": 128},
}
TARGET = "formation_energy_per_atom"
LARGEST = 4
HEAD = """| encoder | parameters | passes | crystals/s | validation MAE (meV/atom) |
| --- | --: | --: | --: | --: |"""


def recipe(name: str, data: Path, out: Path, epochs: int) -> Recipe:
    """Describe one run."""
    encoder = name.partition(",")[0]
    return check_recipe(
        {
            "name": f"{name}-{epochs}",
            "encoder": encoder,
            "model": ENCODERS[name],
            "targets": [TARGET],
            "data": {
                "packed": out / f"packed-{encoder}",
                "source": "mp_labelled",
                "directory": data,
                "largest": {"mp_labelled": LARGEST},
            },
            "optim": {"epochs": epochs, "budget": 10_000, "peak_lr": 1e-3, "ema": 0.99},
            "machine": {"accelerator": "cpu", "devices": 1, "threads": 1},
        }
    )


def compare(name: str, data: Path, out: Path, minutes: float) -> str:
    """Train one encoder for so many minutes; return its row of the table."""
    from ase_crystalformer.training.prepare import prepare

    crystals = len(prepare(recipe(name, data, out, 1)).where("train"))
    start = time.perf_counter()
    fit(recipe(name, data, out, 1), out / f"{name}-timing", progress=False)
    seconds = time.perf_counter() - start
    epochs = max(1, round(60 * minutes / seconds))
    chosen = recipe(name, data, out, epochs)
    model = fit(chosen, out / name, progress=False)
    scores = evaluate(model, chosen.data.packed, split="val", out=out / name, progress=False)
    parameters = sum(weight.numel() for weight in model.parameters())
    error = 1000 * scores[TARGET].mae
    return f"| {name} | {parameters:,} | {epochs} | {crystals / seconds:.0f} | {error:.0f} |"


def main() -> None:
    """Compare all encoders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--minutes", type=float, default=2.0, help="training time of each encoder")
    parser.add_argument("--out", type=Path, default=Path("runs/comparison"))
    parser.add_argument("--only", choices=ENCODERS, nargs="+", default=list(ENCODERS))
    chosen = parser.parse_args()
    print(HEAD, flush=True)
    for name in chosen.only:
        print(compare(name, chosen.data, chosen.out, chosen.minutes), flush=True)


if __name__ == "__main__":
    main()
