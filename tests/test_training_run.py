"""A run: the loss falls, and what it leaves is what it says."""

import csv
import json
import logging
import math
from dataclasses import replace

import pytest
import torch
from small_runs import (
    TARGETS,
    assert_same_weights,
    crystals_with_properties,
    packed_set,
    potential_recipe,
    property_recipe,
)

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training import run
from ase_crystalformer.training.build import build_model, build_objective
from ase_crystalformer.training.module import Fitting
from ase_crystalformer.training.run import fit


def loss_on_training_data(recipe, model):
    packed = PackedCrystals(recipe.data.packed)
    which = packed.where("train")
    objective = build_objective(recipe, model, packed, which)
    return float(objective(model, *packed.batch(which)).detach())


@pytest.mark.parametrize(
    ("kind", "make", "factor"),
    [("properties", property_recipe, 0.6), ("potential", potential_recipe, 0.8)],
)
def test_the_loss_falls(request, tmp_path, kind, make, factor):
    optim = {"epochs": 12, "peak_lr": 0.03, "budget": 250}
    recipe = make(request.getfixturevalue(kind), optim=optim)
    packed = PackedCrystals(recipe.data.packed)
    before = loss_on_training_data(recipe, build_model(recipe, packed, packed.where("train")))
    after = loss_on_training_data(recipe, fit(recipe, tmp_path, progress=False))
    assert after < factor * before


def validation_loss(recipe, folder):
    """What a run has told of it, in the end."""
    fit(recipe, folder, progress=False)
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    return [float(row["val/loss"]) for row in rows if row["val/loss"]][-1]


@pytest.mark.parametrize("denoise", [None, {"weight": 0.3}])
@pytest.mark.parametrize(
    ("kind", "make"), [("properties", property_recipe), ("potential", potential_recipe)]
)
def test_the_validation_loss_is_a_mean_however_batches_are_cut(
    request, tmp_path, kind, make, denoise
):
    """Numbers of labels differ from crystal to crystal, and those of batches with them."""
    told = []
    for budget in (1, 300, 10**6):
        optim = {"epochs": 1, "peak_lr": 1e-12, "budget": budget, "ema": None}
        recipe = make(request.getfixturevalue(kind), optim=optim, denoise=denoise)
        told.append(validation_loss(recipe, tmp_path / str(budget)))
    assert told == pytest.approx([told[-1]] * 3, rel=1e-5)
    if denoise is None and kind == "properties":
        packed = PackedCrystals(recipe.data.packed)
        model = CrystalModel.load(tmp_path / "1" / "model")
        objective = build_objective(recipe, model, packed, packed.where("train"))
        whole = objective(model, *packed.batch(packed.where("val")))
        assert told[0] == pytest.approx(float(whole.detach()), rel=1e-5)


def test_the_card_tells_elements_errors_and_history(properties, tmp_path):
    fit(property_recipe(properties, seed=3), tmp_path, progress=False)
    model = CrystalModel.load(tmp_path / "model")
    packed = PackedCrystals(properties)
    graph, _ = packed.batch(packed.where("train"))
    assert set(model.card.elements) == set(graph.species.tolist())
    val, labels = packed.batch(packed.where("val"))
    known = ~labels["band_gap"].isnan()
    error = (model.properties(val)["band_gap"].detach() - labels["band_gap"])[known].abs()
    told = model.card.errors["band_gap"]
    assert told == {
        "mae": pytest.approx(float(error.mean()), rel=1e-4),
        "unit": "eV",
        "n": int(known.sum()),
        "on": "val",
    }
    assert set(model.card.errors) == {*TARGETS[:2], "log10 bulk_modulus"}
    history = model.card.training
    assert history["recipe"] == "small"
    assert history["seed"] == 3
    assert history["epochs"] == 2
    assert history["hours"] >= 0
    assert history["versions"]["torch"] == torch.__version__
    assert history["hardware"]


def test_the_folder_tells_what_was_run(properties, tmp_path):
    recipe = property_recipe(properties)
    fit(recipe, tmp_path, progress=False)
    assert json.loads((tmp_path / "recipe.json").read_text())["optim"]["epochs"] == 2
    assert json.loads((tmp_path / "run.json").read_text())["versions"]["python"]
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert "val/band_gap (eV)" in header
    assert len(rows) == 2


def test_a_run_is_quiet_and_its_bar_shows_errors_with_units(potential, tmp_path, capfd, caplog):
    recipe = potential_recipe(potential)
    fit(recipe, tmp_path / "silent", progress=False)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert logging.getLogger("lightning.pytorch").level == logging.INFO
    fit(recipe, tmp_path / "shown", progress=True)
    assert "val/forces (eV/Å)" in capfd.readouterr().out


def test_a_run_changes_no_global_state(properties, tmp_path):
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        fit(property_recipe(properties, machine={"threads": 1}), tmp_path, progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_gradient_that_is_not_finite_is_dropped(properties, tmp_path, monkeypatch, caplog):
    step = Fitting.training_step

    def ruined(self, batch, number):
        loss = step(self, batch, number)
        return loss * math.nan if self.global_step == 2 else loss

    monkeypatch.setattr(Fitting, "training_step", ruined)
    model = fit(property_recipe(properties), tmp_path, progress=False)
    assert all(weight.isfinite().all() for weight in model.parameters())
    assert "step 2 is left out" in caplog.text


def test_energies_of_other_scales_start_from_fitted_references(potential):
    recipe = potential_recipe(potential)
    packed = PackedCrystals(potential)
    which = packed.where("train")
    model = build_model(recipe, packed, which)
    assert model.energy_scale == "mp"
    assert set(model.card.elements) == {73}
    model.head.tower[-1].weight.data.zero_()
    model.head.tower[-1].bias.data.zero_()
    fitted = build_objective(recipe, model, packed, which)
    errors = run_errors(fitted, model, packed, which)
    assert errors["energy"] < 0.5
    fitted.shift.data.zero_()
    assert run_errors(fitted, model, packed, which)["energy"] > 1


def run_errors(objective, model, packed, which):
    from ase_crystalformer.training.objective import Errors

    errors = Errors()
    objective(model, *packed.batch(which), errors)
    return {name: errors.total[name] / errors.count[name] for name in errors.total}


def test_training_can_start_from_a_model(properties, potential, tmp_path):
    recipe = property_recipe(properties, optim={"epochs": 1})
    first = fit(recipe, tmp_path / "first", progress=False)
    second = replace(recipe, start=str(tmp_path / "first" / "model"), name="second")
    packed = PackedCrystals(properties)
    model = build_model(second, packed, packed.where("train"))
    assert_same_weights(model, first)
    assert model.card.name == "second"
    with pytest.raises(BadRecipe, match=r"model of \['formation.*to learn energies"):
        fit(potential_recipe(potential, start=second.start), tmp_path / "third", progress=False)


def test_data_that_cannot_serve_are_refused(properties, potential, tmp_path):
    with pytest.raises(BadRecipe, match="its scales are mp, other"):
        fit(potential_recipe(potential, energy={"scale": "mine"}), tmp_path, progress=False)
    others = replace(property_recipe(properties), targets=("shear_modulus",))
    with pytest.raises(BadRecipe, match="'shear_modulus' is none of them"):
        fit(others, tmp_path, progress=False)
    with pytest.raises(BadRecipe, match=r"was packed with .*4\.0.* asks for .*5\.0"):
        fit(property_recipe(properties, model={"cutoff": 5.0}), tmp_path, progress=False)
    with pytest.raises(BadRecipe, match=r"does not fit encoder.*Its keys: .*cutoff"):
        fit(property_recipe(properties, model={"depth": 5}), tmp_path, progress=False)
    small = property_recipe(properties, data={"largest_crystal": 1})
    with pytest.raises(BadRecipe, match=r"none to train on.*data\.largest_crystal"):
        fit(small, tmp_path, progress=False)
    with pytest.raises(BadRecipe, match="names nothing to pack"):
        fit(property_recipe(tmp_path / "nowhere"), tmp_path, progress=False)


def test_labels_that_cannot_be_are_named(tmp_path):
    crystals = crystals_with_properties()
    crystals[5].labels["bulk_modulus"] = -3.0
    packed_set(crystals, tmp_path / "set", *TARGETS)
    with pytest.raises(BadRecipe, match=rf"-3\.0 GPa of {crystals[5].id}"):
        fit(property_recipe(tmp_path / "set"), tmp_path, progress=False)


def test_settings_reach_lightning(properties, tmp_path):
    recipe = property_recipe(
        properties, optim={"clip": 0.3, "epochs": 4}, machine={"precision": "bf16-mixed"}
    )
    saver = run.SaveModel(tmp_path, {})
    trainer = run._trainer(recipe, tmp_path, saver, progress=False)
    assert trainer.gradient_clip_val == 0.3
    assert trainer.max_epochs == 4
    assert trainer.precision == "bf16-mixed"
    spread = replace(recipe.machine, devices=2, strategy="ddp")
    trainer = run._trainer(replace(recipe, machine=spread), tmp_path, saver, progress=False)
    assert trainer.num_devices == 2


def test_mixed_precision_gives_nearly_the_same(potential, tmp_path):
    optim = {"epochs": 1}
    exact = fit(potential_recipe(potential, optim=optim), tmp_path / "exact", progress=False)
    short = {"precision": "bf16-mixed"}
    recipe = potential_recipe(potential, optim=optim, machine=short)
    mixed = fit(recipe, tmp_path / "mixed", progress=False)
    for name, error in exact.card.errors.items():
        assert mixed.card.errors[name]["mae"] == pytest.approx(error["mae"], rel=0.02)
    assert mixed.card.errors["stress"]["mae"] != exact.card.errors["stress"]["mae"]
