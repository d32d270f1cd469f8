"""Properties of many crystals: in batches and one by one, equivalent atoms always and once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from ase_crystalformer.batching import in_batches
from ase_crystalformer.errors import CrystalformerError
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.neighbours import build
from ase_crystalformer.orbits import reduce
from ase_crystalformer.quantities import Quantities, property_quantities
from benchmarks.crystals import random_crystals, real_crystals, spinel
from benchmarks.models import bundled_or_random
from benchmarks.timing import Effort, Row, Way, compare


def run(effort: Effort) -> list[Row]:
    """Predict every property of real, symmetric crystals, and of random ones without symmetry."""
    count, large = (4, 1) if effort.small else (100, 20)
    model = bundled_or_random("default-properties")
    work: dict[str, Sequence[Atoms]] = {
        "real crystals of 2-8 atoms": real_crystals(count),
        "random crystals of 2-20 atoms": random_crystals(count, 2, 20),
        "spinels of 56 atoms": [spinel(8.08 + 0.01 * number) for number in range(large)],
    }
    return [
        row
        for name, crystals in work.items()
        for row in _one(f"{len(crystals)} {name}, {model.card.name}", model, crystals, effort)
    ]


def _one(case: str, model: CrystalModel, crystals: Sequence[Atoms], effort: Effort) -> list[Row]:
    runs = {
        "in batches": lambda: model.predict(crystals),
        "one by one": lambda: [model.predict([atoms])[0] for atoms in crystals],
        "in batches, equivalent atoms once": lambda: predict_orbits(model, crystals),
    }
    ways = [
        Way(name=name, run=predict, read=_numbers, items=(len(crystals), "crystals"))
        for name, predict in runs.items()
    ]
    return compare(case, ways, effort, tolerance=1e-3)


def predict_orbits(model: CrystalModel, crystals: Sequence[Atoms]) -> list[Quantities]:
    """Predict in batches, computing one atom of those that are equal by symmetry."""

    def compute(graph: CrystalGraph) -> list[Quantities | CrystalformerError]:
        with torch.no_grad():
            return property_quantities(model.properties(graph.to(model.device, model.dtype)))

    found: list[Any] = [None] * len(crystals)

    def draw(atoms: Atoms) -> CrystalGraph:
        return reduce(build(atoms, model.encoder.rule))

    for number, result in in_batches(crystals, draw, compute, model.device):
        found[number] = result
    return found


def _numbers(rows: list[Quantities]) -> NDArray[np.float64]:
    return np.array([list(row.values()) for row in rows])
