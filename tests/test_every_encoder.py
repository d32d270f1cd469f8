"""What a training run, on one device or on many, asks of every encoder in every mode."""

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from ase_crystalformer.encoders import ENCODERS
from ase_crystalformer.graph import CrystalGraph, collate
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.testing.crystals import fcc, wurtzite
from ase_crystalformer.training.objective import EnergyObjective, PropertyObjective
from ase_crystalformer.training.settings import EnergyLoss
from tests.laws.conftest import CASES, SMALL

GAP = "band_gap"

PURPOSES = {"potential": {"energy_scale": "any"}, "properties": {"targets": [TARGETS[GAP]]}}

#: Forces are for smooth energies.
RUNS = [
    (case, purpose)
    for case in CASES
    for purpose in PURPOSES
    if purpose == "properties" or not case.endswith("paper")
]

#: A crystal of one atom, where all vectors vanish, and one of four.
BATCHES = ([fcc()], [fcc(), wurtzite()])

#: What bfloat16, of eight bits, may change a loss by.
SHORTENING = 0.1


@pytest.fixture
def model(case, purpose):
    """A small model with the weights it starts from."""
    name, special = CASES[case]
    known = {field.name for field in fields(ENCODERS[name][1])}
    options = {key: value for key, value in SMALL.items() if key in known} | special
    mixer = options.pop("mixer", None)
    torch.manual_seed(0)
    return CrystalModel(name, options, mixer=mixer, **PURPOSES[purpose]).train()


@pytest.fixture(params=[1, 2])
def graph(model, request):
    drawn = [model.draw(crystal) for crystal in BATCHES[request.param - 1]]
    return collate(drawn).to(dtype=torch.float32)


def loss_of(model: CrystalModel, graph: CrystalGraph, short: torch.dtype | None = None) -> Tensor:
    labels = {
        GAP: torch.linspace(1, 2, graph.crystals),
        "energy": torch.linspace(1, 2, graph.crystals),
        "forces": torch.arange(3.0 * graph.atoms).sin().view(-1, 3),
        "stress": torch.full((graph.crystals, 3, 3), 0.1),
        "group": torch.zeros(graph.crystals, dtype=torch.long),
    }
    potential = EnergyObjective(EnergyLoss(scale="any"), ["any"])
    with torch.autocast("cpu", short, enabled=short is not None):
        return (potential if model.is_potential else PropertyObjective({}))(model, graph, labels)


@pytest.mark.parametrize(("case", "purpose"), RUNS)
def test_every_weight_has_a_part_in_the_loss(model, graph):
    """Where one has none, torch refuses to train on more than one device."""
    loss_of(model, graph).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("short", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("case", "purpose"), RUNS)
def test_mixed_precision_trains(model, graph, short):
    exact, mixed = loss_of(model, graph).detach(), loss_of(model, graph, short)
    mixed.backward()
    assert abs(mixed.detach() - exact) < SHORTENING * exact
    slopes = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert all(slope.isfinite().all() for slope in slopes)
