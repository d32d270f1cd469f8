"""Small sets and recipes: a run of a second, with everything in it that a long one has."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import pack
from ase_crystalformer.data.readers import load
from ase_crystalformer.neighbours import Radius
from ase_crystalformer.testing.crystals import diamond, perovskite, rattled, rocksalt, wurtzite
from ase_crystalformer.training.config import Recipe, check_recipe
from ase_crystalformer.training.module import Fitting
from ase_crystalformer.training.run import fit

SAMPLES = Path(__file__).parent / "samples"

RULE = Radius(cutoff=4.0)

MODEL: dict[str, Any] = {
    "cutoff": RULE.cutoff,
    "width": 16,
    "heads": 2,
    "blocks": 1,
    "feedforward": 32,
    "basis": 8,
    "basis_radius": 4.0,
    "norm": True,
    "degree": 1,
}

TARGETS = ("formation_energy_per_atom", "band_gap", "bulk_modulus")

#: Every fourth crystal judges.
PARTS = ("train", "train", "train", "val")


def crystals_with_properties() -> list[LabelledCrystal]:
    """Real crystals; not every one has every label."""
    rows = [row for row in load("mp_labelled", SAMPLES) if row.atoms <= 4][:16]
    return [row.in_split(PARTS[number % 4]) for number, row in enumerate(rows)]


def crystals_with_forces() -> list[LabelledCrystal]:
    """Real frames on two scales of energy; those of the second have no stress and no split."""
    tantalum = list(load("monbtaw", SAMPLES))[:12]
    bulk = [row for row in load("eos_vasp_pbe", SAMPLES) if row.atoms <= 2][:12]
    return [
        row.in_split(PARTS[number % 4]).in_group("mp" if row in tantalum else "other")
        for number, row in enumerate([*tantalum, *bulk])
    ]


def made_up(**labels: Any) -> list[LabelledCrystal]:
    """Crystals of four shapes, each with these labels."""
    return [
        LabelledCrystal(
            species=crystal.species,
            positions=crystal.positions,
            cell=crystal.cell,
            periodic=crystal.periodic,
            labels=dict(labels),
            id=f"made-up/{number}",
            split="train",
            source="tests",
            group="tests",
        )
        for number, crystal in enumerate([wurtzite(), rocksalt(), rattled(perovskite()), diamond()])
    ]


def packed_set(crystals: Iterable[LabelledCrystal], folder: Path, *labels: str) -> PackedCrystals:
    """Pack crystals with every atom."""
    assert pack(crystals, RULE, folder, labels=labels) == []
    return PackedCrystals(folder)


def property_recipe(packed: Path, **sections: Any) -> Recipe:
    """A recipe for the crystals with properties."""
    return _recipe(packed, {"targets": TARGETS}, sections)


def potential_recipe(packed: Path, **sections: Any) -> Recipe:
    """A recipe for the crystals with forces."""
    return _recipe(packed, {"energy": {}}, sections)


def _recipe(packed: Path, task: dict[str, Any], sections: dict[str, Any]) -> Recipe:
    usual = {
        "name": "small",
        "data": {"packed": packed},
        "model": MODEL,
        "optim": {"epochs": 2, "budget": 500, "ema": 0.5},
        "machine": {"accelerator": "cpu", "devices": 1, "checkpoint_minutes": 60},
    }
    merged = {
        key: {**value, **sections.pop(key, {})} if isinstance(value, dict) else value
        for key, value in (usual | task).items()
    }
    return check_recipe(merged | sections)


def labels_of(packed: PackedCrystals, name: str) -> np.ndarray:
    """One label of the training crystals that have it."""
    labels = packed.label(name)[packed.where("train")]
    return labels[~np.isnan(labels)]


class Stopped(Exception):
    """The machine went down."""


def broken_and_resumed(recipe, folder, monkeypatch, *, after):
    """Stop a run after some steps, and go on with it."""
    step = Fitting.training_step

    def broken(self, batch, number):
        if self.trainer.global_step == after:
            raise Stopped
        return step(self, batch, number)

    with monkeypatch.context() as patch:
        patch.setattr(Fitting, "training_step", broken)
        with pytest.raises(Stopped):
            fit(recipe, folder, progress=False)
    return fit(recipe, folder, resume=True, progress=False)


def assert_same_weights(one, other):
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name
