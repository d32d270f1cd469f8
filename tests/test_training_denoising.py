"""Displacements of crystals at rest are learned: alone, to pretrain an encoder, or beside."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import (
    MODEL,
    TARGETS,
    crystals_with_forces,
    crystals_with_properties,
    made_up,
    packed_set,
    potential_recipe,
    property_recipe,
)

from ase_crystalformer.data.packing import pack
from ase_crystalformer.errors import BadRecipe, NoForces
from ase_crystalformer.heads import mean_over_atoms
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.neighbours import Radius
from ase_crystalformer.training.augment import orthogonal, turned
from ase_crystalformer.training.batches import PackedData
from ase_crystalformer.training.build import build_model, build_objective
from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.denoising import NOISE, Displacements, Rattle, at_rest, rattled
from ase_crystalformer.training.objective import Errors
from ase_crystalformer.training.run import fit
from ase_crystalformer.training.steps import StepSampler


@pytest.fixture(scope="module")
def properties(tmp_path_factory):
    """Relaxed crystals with properties."""
    folder = tmp_path_factory.mktemp("packed") / "properties"
    return packed_set(crystals_with_properties(), folder, *TARGETS)


@pytest.fixture(scope="module")
def potential(tmp_path_factory):
    """Crystals with forces; those of tantalum are far from rest."""
    folder = tmp_path_factory.mktemp("packed") / "potential"
    return packed_set(crystals_with_forces(), folder, "energy")


def pretraining(packed, **sections):
    """A recipe that learns displacements alone."""
    recipe = property_recipe(packed.folder, denoise={}, **sections)
    return replace(recipe, targets=())


def moved(packed, which, spread=0.1, epoch=1):
    quiet = np.ones(len(packed), dtype=bool)
    return Rattle(quiet, spread, 0, epoch)(which, packed.batch(which))


def test_displacements_follow_from_seed_epoch_and_crystal(properties):
    graph, labels = moved(properties, [3, 8])
    alone, own = moved(properties, [8])
    assert torch.equal(labels[NOISE][-alone.atoms :], own[NOISE])
    assert not torch.equal(moved(properties, [8], epoch=2)[1][NOISE], own[NOISE])
    assert mean_over_atoms(labels[NOISE], graph).abs().max() < 1e-7
    wide = torch.cat([moved(properties, [8], 0.3, epoch)[1][NOISE] for epoch in range(100)])
    assert wide.std() == pytest.approx(0.3 * (1 - 1 / alone.atoms) ** 0.5, rel=0.1)


def test_only_crystals_at_rest_are_moved(tmp_path):
    crystals = made_up()
    for crystal, force in zip(crystals, [0.0, 0.06, -0.07, 0.04], strict=True):
        crystal.labels["forces"] = np.zeros((crystal.atoms, 3))
        crystal.labels["forces"][-1, 1] = force
    bare = made_up()[:1]
    packed = packed_set([*crystals, *bare], tmp_path / "set")
    quiet = at_rest(packed, 0.05)
    assert quiet.tolist() == [True, False, False, True, True]
    graph, labels = Rattle(quiet, 0.1, 0, 1)(list(range(5)), packed.batch(range(5)))
    still = labels[NOISE].isnan().all(1)
    assert torch.equal(still, torch.from_numpy(~quiet)[graph.crystal])


def test_rattled_edges_join_the_moved_atoms(properties):
    graph, labels = moved(properties, [2, 5, 9])
    after = rattled(graph, labels[NOISE])
    again = graph.moved(graph.positions + labels[NOISE], graph.cell)
    torch.testing.assert_close(after.vector, again.vector, atol=1e-5, rtol=0)


def test_vectors_turn_with_the_crystal(properties):
    head = Displacements(16).double()
    graph, labels = properties.batch([1, 4, 6])
    graph = graph.to(dtype=torch.float64)
    x = torch.randn(graph.atoms, 16, dtype=torch.float64)
    turn = orthogonal(graph.crystals, (5,))
    labels = {NOISE: head(x, graph)}
    after, along = turned((graph, labels), turn)
    found = head(x, after)
    assert found.abs().max() > 0.01
    torch.testing.assert_close(found, along[NOISE], atol=1e-10, rtol=0)


def loss_of(recipe, packed, model, objective, epoch=0):
    data = PackedData(packed, recipe)
    which = data.train.tolist()
    errors = Errors()
    batch = data._rattle(epoch)(which, packed.batch(which))
    loss = objective(model, *batch, errors)
    return float(loss.detach()), errors


def test_an_encoder_learns_displacements_it_has_not_seen(properties, tmp_path, monkeypatch):
    recipe = pretraining(properties, optim={"epochs": 40, "peak_lr": 0.01, "budget": 10**6})
    kept = []
    built = build_objective
    monkeypatch.setattr(
        "ase_crystalformer.training.run.build_objective",
        lambda *args: kept.append(built(*args)) or kept[0],
    )
    model = fit(recipe, tmp_path, progress=False)
    loss, errors = loss_of(recipe, properties, model, kept[0], epoch=10**6)
    assert loss < 0.7
    assert errors.total[NOISE] / errors.count[NOISE] < 0.08 * 0.8
    with torch.no_grad():
        kept[0].displacements.last.weight.zero_()
        kept[0].displacements.last.bias.zero_()
    silent, _ = loss_of(recipe, properties, model, kept[0], epoch=10**6)
    assert 0.5 < silent < 1


def test_a_pretrained_encoder_starts_a_run(properties, tmp_path):
    told = fit(pretraining(properties), tmp_path / "first", progress=False).card
    assert set(told.errors) == {NOISE}
    assert told.errors[NOISE]["unit"] == "Å"
    first = CrystalModel.load(tmp_path / "first" / "model")
    recipe = property_recipe(properties.folder)
    fresh = build_model(recipe, properties, properties.where("train"))
    recipe = replace(recipe, start_encoder=str(tmp_path / "first" / "model"))
    model = build_model(recipe, properties, properties.where("train"))
    for name, weight in model.encoder.state_dict().items():
        assert torch.equal(weight, first.encoder.state_dict()[name])
    for name, weight in model.head.state_dict().items():
        assert torch.equal(weight, fresh.head.state_dict()[name])
    assert model.card.summary == ""
    fit(recipe, tmp_path / "second", progress=False)


def test_an_encoder_alone_predicts_nothing_and_says_so(properties):
    model = build_model(pretraining(properties), properties, properties.where("train"))
    with pytest.raises(NoForces, match="an encoder alone"):
        model.energy(properties.batch([0])[0])
    assert "start_encoder" in model.card.summary


def test_other_encoders_are_not_taken_over(properties, tmp_path):
    model = CrystalModel("crystalformer", MODEL | {"width": 8}, energy_scale="mp")
    model.save(tmp_path / "narrow")
    start = {"start_encoder": str(tmp_path / "narrow")}
    with pytest.raises(BadRecipe, match=r"width = 16 \(it has 8\)"):
        fit(property_recipe(properties.folder, **start), tmp_path / "run", progress=False)
    with pytest.raises(BadRecipe, match="drop start_encoder"):
        property_recipe(properties.folder, start="default", **start)


def test_a_mixer_stays_where_only_the_encoder_is_taken_over(properties, tmp_path):
    given = CrystalModel("crystalformer", MODEL, energy_scale="mp")
    given.save(tmp_path / "plain")
    recipe = property_recipe(properties.folder, mixer={}, start_encoder=str(tmp_path / "plain"))
    model = build_model(recipe, properties, properties.where("train"))
    for name, weight in model.encoder.local.state_dict().items():
        assert torch.equal(weight, given.encoder.state_dict()[name])


def test_an_auxiliary_task_is_added(potential):
    recipe = potential_recipe(potential.folder, denoise={"weight": 0.3})
    which = potential.where("train")
    model = build_model(recipe, potential, which)
    both = build_objective(recipe, model, potential, which)
    plain = build_objective(replace(recipe, denoise=None), model, potential, which)
    loss, errors = loss_of(recipe, potential, model, both)
    main, _ = loss_of(recipe, potential, model, plain)
    alone = check_recipe(
        {"name": "alone", "data": {"packed": potential.folder}, "denoise": {}, "model": MODEL}
    )
    other = build_objective(alone, model, potential, which)
    noise, _ = loss_of(recipe, potential, model, other)
    assert loss == pytest.approx(main + 0.3 * noise)
    assert noise > 0.1
    assert set(errors.total) == {"energy", "forces", "stress", NOISE}


def test_ragged_batches_of_a_step_count_as_one(potential):
    recipe = potential_recipe(potential.folder, denoise={}, optim={"budget": 220})
    data = PackedData(potential, recipe)
    data.trainer = type("Alone", (), {"global_rank": 0, "world_size": 1})()
    model = build_model(recipe, potential, data.train)
    objective = build_objective(recipe, model, potential, data.train)
    sampler = data._sampler(training=True)
    rattle = data._rattle(1)
    number = len(sampler)
    losses = []
    for which, known in StepSampler(sampler, data.known, number):
        graph, labels = rattle(which, potential.batch(which))
        losses.append(float(objective(model, graph, labels | known).detach()))
    whole = loss_of(recipe, potential, model, objective, epoch=1)[0]
    assert np.mean(losses) == pytest.approx(whole, rel=1e-5)


def test_orbits_cannot_be_moved(tmp_path):
    pack(
        crystals_with_properties(),
        Radius(cutoff=4.0),
        tmp_path / "set",
        labels=TARGETS,
        by_symmetry=True,
    )
    with pytest.raises(BadRecipe, match="neither forces nor atoms that can be moved"):
        fit(property_recipe(tmp_path / "set", denoise={}), tmp_path / "run", progress=False)
