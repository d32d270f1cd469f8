"""A small version of every encoder in every mode, with weights that hide nothing."""

from collections.abc import Callable
from dataclasses import fields

import pytest
import torch

from ase_crystalformer.encoders import ENCODERS, Encoder, modes
from ase_crystalformer.mixer import make_encoder
from ase_crystalformer.testing import laws_for, randomised

#: Values for whichever of these fields a configuration has.
SMALL = {
    "cutoff": 4.0,
    "nearest": 12,
    "width": 16,
    "heads": 2,
    "blocks": 2,
    "layers": 2,
    "feedforward": 24,
    "basis": 16,
    "moments": 4,
    "scalars": 8,
    "vectors": 2,
    "multivectors": 4,
    "token": 16,
    "reach": 1.5,
    "anchors": 12,
    "degrees": (8, 6, 4),
}

#: Further flavours worth a run of their own.
FLAVOURS = {
    "gatr-joins": ("gatr", {"joins": True}),
    "gatr-projective": ("gatr", {"algebra": "projective"}),
    "crystalformer-angular": ("crystalformer", {"norm": True, "degree": 3}),
    "crystalformer-mixed": ("crystalformer", {"mixer": {"reach": 1.5, "heads": 2}}),
    "e2former-nodes": ("e2former", {"convolution": "nodes"}),
    "equiformer-handed": ("equiformer", {"degrees": (4, 6, 4, 2), "handed": True}),
}

CASES = {
    f"{name}-{mode}": (name, {"mode": mode})
    for name, (_, config) in ENCODERS.items()
    for mode in modes(config)
} | FLAVOURS


def small(case: str) -> Encoder:
    """Build the small encoder of a case."""
    name, special = CASES[case]
    known = {field.name for field in fields(ENCODERS[name][1])}
    options = {key: value for key, value in SMALL.items() if key in known} | special
    mixer = options.pop("mixer", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return randomised(make_encoder(name, options, mixer).double())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Hold every encoder to every law that can be asked of it."""
    if {"case", "law"} <= set(metafunc.fixturenames):
        asked = [(case, law) for case in CASES for law in laws_for(small(case))]
        metafunc.parametrize(("case", "law"), asked)


@pytest.fixture
def build_small() -> Callable[[str], Encoder]:
    """The factory of small encoders."""
    return small


@pytest.fixture
def honest() -> Encoder:
    """An encoder that keeps all it claims, to be spoiled."""
    return small("crystalformer-smooth")
