"""Forces alone are learned; energies are then as right as composition can make them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import (
    broken_and_resumed,
    crystals_with_forces,
    made_up,
    packed_set,
    potential_recipe,
)

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.build import build_model, build_objective
from ase_crystalformer.training.config import check_recipe, recipe_dict
from ase_crystalformer.training.force_only import MEANINGLESS, fit_energies
from ase_crystalformer.training.run import fit

OPTIM = {"epochs": 3, "budget": 250, "peak_lr": 0.01, "ema": 0.5}


def on_one_scale():
    """Crystals of several elements whose energies stand on one scale."""
    return [row.in_group("mp") for row in crystals_with_forces()]


@pytest.fixture(scope="module")
def one_scale(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "one"
    packed_set(on_one_scale(), folder, "energy")
    return folder


@pytest.fixture(scope="module")
def two_scales(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "two"
    packed_set(crystals_with_forces(), folder, "energy")
    return folder


def recipe_for(folder, **sections):
    sections = {"optim": OPTIM, "energy": {"preset": "forces-only"}} | sections
    return potential_recipe(folder, **sections)


def errors_per_atom(model, packed, which):
    """Energy errors, eV/atom, and the share of every element in every crystal."""
    graph, labels = packed.batch(which)
    error = (model.energy(graph).energy - labels["energy"]).numpy()
    counts = np.zeros((len(which), 99))
    np.add.at(counts, (graph.crystal.numpy(), graph.species.numpy()), 1)
    atoms = counts.sum(1)
    return error / atoms, counts / atoms[:, None]


def improvement(error, shares):
    """By how much energies of elements could still lower the sum of squares, relative to it."""
    fitted, *_ = np.linalg.lstsq(shares, error, rcond=None)
    return 1 - ((error - shares @ fitted) ** 2).sum() / (error**2).sum()


def test_energies_are_the_best_composition_can_make_them(one_scale, tmp_path):
    recipe = recipe_for(one_scale)
    packed = PackedCrystals(one_scale)
    train = packed.where("train")
    fit(recipe, tmp_path, progress=False)
    saved = CrystalModel.load(tmp_path / "model")
    error, shares = errors_per_atom(saved, packed, train)
    assert improvement(error, shares) == pytest.approx(0, abs=1e-6)
    assert error.mean() == pytest.approx(0, abs=1e-5)
    assert (error**2).sum() > 0
    # What a fit before training leaves could be improved a lot.
    untrained = build_model(recipe, packed, train).eval()
    untrained.encoder.load_state_dict(saved.encoder.state_dict())
    untrained.head.tower.load_state_dict(saved.head.tower.state_dict())
    assert improvement(*errors_per_atom(untrained, packed, train)) > 0.01
    assert "forces alone" in saved.card.summary


def test_the_card_tells_the_error_after_the_fit(one_scale, tmp_path):
    fitted = fit(recipe_for(one_scale), tmp_path, progress=False)
    packed = PackedCrystals(one_scale)
    error, _ = errors_per_atom(fitted, packed, packed.where("val"))
    told = CrystalModel.load(tmp_path / "model").card.errors["energy"]
    assert told["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)


def test_every_scale_gets_its_own_fit(two_scales):
    recipe = recipe_for(two_scales)
    packed = PackedCrystals(two_scales)
    train = packed.where("train")
    model = build_model(recipe, packed, train).eval()
    objective = build_objective(recipe, model, packed, train)
    before = model.energy(packed.batch(train)[0])
    start = model.head.reference.clone()
    fit_energies(model, objective, packed, train)
    after = model.energy(packed.batch(train)[0])
    assert torch.equal(before.forces, after.forces)
    assert torch.equal(before.stress, after.stress)
    group = np.asarray(packed.arrays["group"])
    own = train[group[train] == packed.meta["names"]["group"].index("mp")]
    error, shares = errors_per_atom(model, packed, own)
    assert improvement(error, shares) == pytest.approx(0, abs=1e-6)
    # The model's own scale knows tantalum alone.
    assert torch.nonzero(model.head.reference != start).flatten().tolist() == [73]
    number = 1 - packed.meta["names"]["group"].index("mp")
    others = train[group[train] == number]
    error, shares = errors_per_atom(model, packed, others)
    error = error + shares @ objective.shift[number].detach().numpy()[:99]
    assert improvement(error, shares) == pytest.approx(0, abs=1e-6)


def test_the_loss_has_forces_alone(one_scale):
    recipe = recipe_for(one_scale)
    packed = PackedCrystals(one_scale)
    train = packed.where("train")
    model = build_model(recipe, packed, train)
    objective = build_objective(recipe, model, packed, train)
    graph, labels = packed.batch(train)
    loss = objective(model, graph, labels)
    others = {name: torch.zeros_like(labels[name]) for name in ("energy", "stress")}
    assert torch.equal(objective(model, graph, labels | others), loss)
    assert not torch.equal(objective(model, graph, labels | {"forces": graph.positions}), loss)


def test_a_broken_run_ends_with_the_same_energies(one_scale, tmp_path, monkeypatch):
    recipe = recipe_for(one_scale, machine={"checkpoint_minutes": 1e-6})
    unbroken = fit(recipe, tmp_path / "unbroken", progress=False)
    resumed = broken_and_resumed(recipe, tmp_path / "broken", monkeypatch, after=3)
    for name, weight in unbroken.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_without_validation_energies_are_fitted_too(tmp_path):
    rows = [row.in_split("train") for row in on_one_scale()]
    packed = packed_set(rows, tmp_path / "set", "energy")
    fit(recipe_for(tmp_path / "set"), tmp_path / "run", progress=False)
    saved = CrystalModel.load(tmp_path / "run" / "model")
    error, shares = errors_per_atom(saved, packed, packed.where("train"))
    assert improvement(error, shares) == pytest.approx(0, abs=1e-6)


def with_forces(crystal, number):
    forces = np.random.default_rng(number).normal(size=(crystal.atoms, 3))
    split = "val" if number == 3 else "train"
    return replace(crystal, labels={"forces": forces}, split=split)


def test_without_any_energy_the_card_says_that_energies_mean_nothing(tmp_path):
    rows = [with_forces(row, number) for number, row in enumerate(made_up())]
    packed_set(rows, tmp_path / "set", "energy")
    fit(recipe_for(tmp_path / "set"), tmp_path / "run", progress=False)
    saved = CrystalModel.load(tmp_path / "run" / "model")
    assert saved.card.summary == MEANINGLESS
    assert saved.energy_scale == "none"
    assert set(saved.card.errors) == {"forces"}
    assert 0.5 < saved.head.scale < 2
    graph, _ = PackedCrystals(tmp_path / "set").batch([0, 1])
    assert saved.energy(graph).forces.abs().max() > 0


def test_without_energies_and_forces_there_is_nothing_to_learn(tmp_path):
    packed_set(made_up(), tmp_path / "set", "energy")
    with pytest.raises(BadRecipe, match="has an energy or forces"):
        fit(recipe_for(tmp_path / "set"), tmp_path / "run", progress=False)


def test_the_preset_is_shorthand_for_weights():
    told = {"name": "mine", "data": {"packed": "set"}}
    recipe = check_recipe(told | {"energy": {"preset": "forces-only", "force": 2.0}})
    assert (recipe.energy.energy, recipe.energy.stress, recipe.energy.force) == (0, 0, 2)
    assert check_recipe(recipe_dict(recipe)) == recipe
    with pytest.raises(BadRecipe, match=r"stress = 5\.0 contradicts preset = 'forces-only'"):
        check_recipe(told | {"energy": {"preset": "forces-only", "stress": 5.0}})
    with pytest.raises(BadRecipe, match=r"energy\.preset.*'forces-only'; given was 'forces'"):
        check_recipe(told | {"energy": {"preset": "forces"}})
