"""One training step of every encoder, in its published size."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ase_crystalformer.encoders import ENCODERS, modes
from ase_crystalformer.graph import CrystalGraph, collate
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.neighbours import build
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training.objective import EnergyObjective, Labels, PropertyObjective
from ase_crystalformer.training.settings import EnergyLoss
from benchmarks.crystals import random_crystals
from benchmarks.timing import Effort, Row, Way, compare

TARGET = TARGETS["formation_energy_per_atom"]

SCALE = "mp"


def run(effort: Effort) -> list[Row]:
    """Learn one property in paper mode; then energies, forces and stress in smooth mode."""
    count, atoms = (2, 2) if effort.small else (16, 10)
    crystals = random_crystals(count, atoms, atoms)
    rows = []
    for aim, mode, make in (
        ("one property, paper mode", "paper", _property_model),
        ("energy, forces and stress, smooth mode", "smooth", _potential),
    ):
        ways = []
        for encoder in (name for name, (_, config) in ENCODERS.items() if mode in modes(config)):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model, objective = make(encoder)
            graph = collate([build(crystal, model.encoder.rule) for crystal in crystals])
            ways.append(_way(encoder, model.train(), objective, graph.to(dtype=torch.float32)))
        case = f"{aim}, {count} crystals x {atoms} atoms"
        rows += compare(case, ways, effort, tolerance=0.0)
    return rows


def _property_model(encoder: str) -> tuple[CrystalModel, nn.Module]:
    model = CrystalModel(encoder, {"mode": "paper"}, targets=[TARGET])
    return model, PropertyObjective({})


def _potential(encoder: str) -> tuple[CrystalModel, nn.Module]:
    model = CrystalModel(encoder, {"mode": "smooth"}, energy_scale=SCALE)
    return model, EnergyObjective(EnergyLoss(scale=SCALE), [SCALE])


def _way(encoder: str, model: CrystalModel, objective: nn.Module, graph: CrystalGraph) -> Way:
    size = sum(weight.numel() for weight in model.parameters())
    return Way(
        name=f"{encoder}, {size:,} parameters",
        run=_step(model, objective, graph),
        items=(graph.edges, "edges"),
    )


def _step(model: CrystalModel, objective: nn.Module, graph: CrystalGraph) -> Callable[[], float]:
    """Make a training step at rate zero, so that all steps are the same; it returns the loss."""
    labels = _labels(graph)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0)

    def step() -> float:
        optimiser.zero_grad()
        loss = objective(model, graph, labels)
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step


def _labels(graph: CrystalGraph) -> Labels:
    """Random labels of everything there is to learn."""
    crystals, atoms = graph.crystals, graph.atoms
    labels: dict[str, Tensor] = {
        TARGET.name: torch.randn(crystals),
        "energy": torch.randn(crystals, dtype=torch.float64),
        "forces": torch.randn(atoms, 3),
        "stress": torch.randn(crystals, 3, 3),
        "group": torch.zeros(crystals, dtype=torch.int64),
    }
    return labels
