"""Crystalformer of published size: our flat edges against the lattice sums of the paper."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ase_crystalformer.graph import collate
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.neighbours import build
from ase_crystalformer.targets import TARGETS
from benchmarks.crystals import random_crystals
from benchmarks.published import Published, cells_within, lattice_distances
from benchmarks.timing import Effort, Row, Way, compare

TARGET = TARGETS["formation_energy_per_atom"]

Predict = Callable[[], Float[Tensor, "crystals 1"]]


def published_model() -> CrystalModel:
    """Make the published Crystalformer with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CrystalModel("crystalformer", {"mode": "paper"}, targets=[TARGET])


def run(effort: Effort) -> list[Row]:
    """Predict, and make a training step, for 16 crystals of 10 atoms."""
    count, atoms = (2, 3) if effort.small else (16, 10)
    crystals = random_crystals(count, atoms, atoms)
    model = published_model()
    rule = model.encoder.rule
    graph = collate([build(crystal, rule) for crystal in crystals]).to(dtype=torch.float32)
    cells = cells_within(crystals, rule.cutoff)
    species = torch.tensor(np.array([crystal.numbers for crystal in crystals]))
    distance = lattice_distances(crystals, cells, rule.cutoff).float()

    ours, dense, lean = (deepcopy(model) for _ in range(3))
    written, sums_first = Published(dense), Published(lean, sums_first=True)
    contenders: dict[str, tuple[nn.Module, Predict]] = {
        "flat edges": (ours, lambda: ours(graph)[TARGET.name]),
        "lattice sums as written": (written, lambda: written(species, distance)),
        "lattice sums before W": (sums_first, lambda: sums_first(species, distance)),
    }
    size = sum(weight.numel() for weight in model.parameters())
    work = (
        f"{count} crystals x {atoms} atoms, {size:,} parameters; {graph.edges:,} edges, "
        f"lattice sums over ±{cells} cells ({distance.numel():,} images)"
    )
    infer = [
        Way(name=name, run=torch.no_grad()(predict), read=_numbers, items=(count, "crystals"))
        for name, (_, predict) in contenders.items()
    ]
    train = [
        Way(name=name, run=_step(network, predict), read=_numbers, items=(count, "crystals"))
        for name, (network, predict) in contenders.items()
    ]
    return [
        *compare(f"inference, {work}", infer, effort, tolerance=1e-4),
        *compare(f"training step, {work}", train, effort, tolerance=1e-4),
    ]


def _step(network: nn.Module, predict: Predict) -> Callable[[], Float[Tensor, " parameters"]]:
    """Make a training step at rate zero: all are the same. It returns the gradient."""
    weights = list(network.parameters())
    optimiser = torch.optim.AdamW(weights, lr=0.0)

    def step() -> Float[Tensor, " parameters"]:
        optimiser.zero_grad()
        given = predict()
        aim = torch.linspace(-1, 1, len(given))[:, None]
        functional.l1_loss(given, aim).backward()
        optimiser.step()
        return torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])

    return step


def _numbers(result: Tensor) -> NDArray[np.float64]:
    return result.detach().double().numpy()
