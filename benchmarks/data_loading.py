"""How long a training step waits for its data, by the number of processes that load.

A potential learns from crystals of 4 to 24 atoms, packed in a scratch folder. The wait is the wall
time between a step's end and its batch's arrival. On a machine that is busy, processes that load
wait for their turn, too.

    python -m benchmarks.data_loading         writes benchmarks/data_loading.md
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.loader import EdgeBudgetSampler, loader, work
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import pack
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.defaults import NETWORK
from ase_crystalformer.training.objective import EnergyObjective
from ase_crystalformer.training.settings import EnergyLoss
from benchmarks.crystals import random_crystals
from benchmarks.timing import limited_threads, machine

SCALE = "mp"

WORKERS = (0, 1, 2)


def crystals(count: int) -> list[LabelledCrystal]:
    """Make crystals with random labels."""
    random = np.random.default_rng(0)
    return [
        LabelledCrystal(
            species=atoms.numbers,
            positions=atoms.positions,
            cell=np.asarray(atoms.cell),
            periodic=atoms.pbc,
            labels={
                "energy": float(random.normal()),
                "forces": random.normal(size=(len(atoms), 3)),
                "stress": random.normal(size=(3, 3)),
            },
            id=str(number),
            split="train",
            source="made up",
            group=SCALE,
        )
        for number, atoms in enumerate(random_crystals(count, 4, 24))
    ]


def wait(packed: PackedCrystals, workers: int, budget: int, steps: int) -> tuple[float, float]:
    """Median seconds of a step, and of waiting for its batch, after the first three."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CrystalModel("crystalformer", NETWORK, energy_scale=SCALE).train()
    objective = EnergyObjective(EnergyLoss(scale=SCALE), [SCALE])
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0)
    sampler = EdgeBudgetSampler(work(packed), np.arange(len(packed)), budget=budget, seed=0)
    batches = iter(loader(packed, sampler, workers))
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(batches)
        arrived = time.perf_counter()
        optimiser.zero_grad()
        objective(model, *batch).backward()
        optimiser.step()
        times.append((time.perf_counter() - arrived, arrived - start))
    step, waited = np.median(times[3:], axis=0).tolist()
    return step, waited


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_loading", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--count", type=int, default=600, help="crystals")
    parser.add_argument("--budget", type=int, default=10_000, help="work per batch")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    asked = parser.parse_args()
    with TemporaryDirectory() as folder, limited_threads(1):
        rule = CrystalModel("crystalformer", NETWORK, energy_scale=SCALE).encoder.rule
        pack(crystals(asked.count), rule, Path(folder) / "set", labels=["energy"])
        packed = PackedCrystals(Path(folder) / "set")
        cost = EdgeBudgetSampler(
            work(packed), np.arange(len(packed)), budget=asked.budget, seed=0, world=2
        )
        sums = np.array([work(packed)[batch].sum() for batch in cost.batches_of_all()[:-1]])
        lines = [
            "# Waiting for data",
            "",
            ", ".join(f"{key} {value}" for key, value in machine().items()),
            "",
            f"{asked.count} crystals of 4 to 24 atoms, batches of {asked.budget:,} edges + 20 "
            f"atoms, one thread; medians of {asked.steps - 3} steps. The largest crystal has "
            f"{work(packed).max() / asked.budget:.0%} of a batch; batches but the last hold "
            f"{sums.min() / sums.max():.0%} to 100% of the fullest, "
            f"{sums.mean() / sums.max():.0%} on average.",
            "",
            "| processes that load | step, ms | wait, ms | share of the time |",
            "| --- | --- | --- | --- |",
        ]
        for workers in WORKERS:
            step, waited = wait(packed, workers, asked.budget, asked.steps)
            lines.append(
                f"| {workers} | {1e3 * step:.0f} | {1e3 * waited:.1f} | "
                f"{waited / (step + waited):.1%} |"
            )
    print("\n".join(lines))
    asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
