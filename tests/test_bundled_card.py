"""What the cards of bundled models tell is what a command measures."""

import sys

import numpy as np
import pytest
from small_runs import MODEL, SAMPLES

from ase_crystalformer.assessment.benchmark import atoms_of
from ase_crystalformer.card import Card
from ase_crystalformer.data.mixtures import potential, properties
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import pack
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.targets import TARGETS
from benchmarks import bundled_card


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Measure a model on the validation part of a mixture, in place."""

    def measure(model, crystals, labels):
        pack(crystals, model.encoder.rule, tmp_path / "packed", labels=labels)
        model.save(tmp_path / "model")
        command = ["bundled_card", str(tmp_path / "model"), str(tmp_path / "packed")]
        monkeypatch.setattr(sys, "argv", command)
        bundled_card.main()
        assert (tmp_path / "model.png").stat().st_size > 10_000
        return CrystalModel.load(tmp_path / "model").card, PackedCrystals(tmp_path / "packed")

    return measure


def test_a_potential_is_measured_set_by_set(measured, monkeypatch):
    monkeypatch.setattr(bundled_card, "FEWEST", 2)
    crystals = [row.in_split("val") for row in potential(SAMPLES)]
    model = CrystalModel("crystalformer", MODEL, energy_scale="mp", card=Card(name="mine"))
    card, packed = measured(model.double(), crystals, ["energy"])
    assert {"energy", "forces", "stress", "forces, perturbed", "stress, compressed"} <= set(
        card.errors
    )
    names = packed.meta["names"]["source"]
    iron = [crystal for crystal in crystals if crystal.source == "polymlp_fe"]
    assert card.errors["forces, polymlp_fe"]["n"] == 3 * sum(row.atoms for row in iron)
    of_all = sum(card.errors[f"forces, {name}"]["n"] for name in bundled_card.DFT if name in names)
    assert card.errors["forces"]["n"] == of_all
    found = model.eval().predict([atoms_of(row) for row in iron])
    off = [one["forces"] - row.labels["forces"] for one, row in zip(found, iron, strict=True)]
    assert card.errors["forces, polymlp_fe"]["mae"] == pytest.approx(
        np.abs(np.concatenate(off)).mean(), rel=2e-3
    )
    by_element = card.training["force_error_by_element"]["values"]
    assert by_element
    assert max(by_element.values()) > 0
    assert card.name == "mine"


def test_a_property_model_is_measured_in_physical_units(measured):
    crystals = [row.in_split("val") for row in properties(SAMPLES)][:12]
    targets = [TARGETS[name] for name in ("formation_energy_per_atom", "bulk_modulus")]
    model = CrystalModel("crystalformer", MODEL, targets=targets, card=Card(name="mine"))
    card, packed = measured(model, crystals, [target.name for target in targets])
    errors = card.errors["formation_energy_per_atom"]
    labels = packed.label("formation_energy_per_atom")
    assert errors["n"] == np.isfinite(labels).sum()
    predicted = [
        one["formation_energy_per_atom"]
        for one in model.eval().predict(list(map(atoms_of, crystals)))
    ]
    assert errors["mae"] == pytest.approx(np.nanmean(np.abs(predicted - labels)), rel=2e-3)
    assert errors["unit"] == "eV/atom"
