"""Small models with random weights: every law of the interfaces holds for them too."""

from typing import Any

import torch

from ase_crystalformer.model import Card, CrystalModel
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.uncertainty import UncertaintyHead

CONFIG: dict[str, Any] = {
    "cutoff": 4.0,
    "width": 16,
    "heads": 2,
    "blocks": 1,
    "feedforward": 32,
    "basis": 8,
    "basis_radius": 4.0,
    "norm": True,
    "degree": 2,
}

#: H, O, Na, Al, Si, Cl, Ti, Cu, Zn, Sr
ELEMENTS = (1, 8, 11, 13, 14, 17, 22, 29, 30, 38)


def tiny_potential(**config: Any) -> CrystalModel:
    """A smooth potential that knows the elements of the test crystals, always the same."""
    card = Card(name="tiny-potential", elements=ELEMENTS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CrystalModel("crystalformer", CONFIG | config, energy_scale="none", card=card)
    for number in ELEMENTS:
        model.head.reference[number] = -10.0 * number
    return model.eval()


def calibrated_potential(**config: Any) -> CrystalModel:
    """The same with an uncertainty head of random weights, which calls nothing strange."""
    model = tiny_potential(**config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        head = UncertaintyHead(model.encoder.width)
        head.usual.normal_()
    head.limit.fill_(50.0)
    model.uncertainty = head.requires_grad_(False)
    return model


def tiny_properties(**config: Any) -> CrystalModel:
    """A property model of two targets, always the same."""
    card = Card(name="tiny-properties", elements=ELEMENTS)
    targets = [TARGETS["band_gap"], TARGETS["bulk_modulus"]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CrystalModel("crystalformer", CONFIG | config, targets=targets, card=card).eval()
