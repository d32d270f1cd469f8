"""A mixer behind an encoder: nothing at first, then learned, saved, differentiated and moved."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from factories import tiny_potential, tiny_properties
from small_runs import crystals_with_forces, packed_set, potential_recipe
from test_objective import slope_along

from ase_crystalformer.calculator import CrystalformerCalculator
from ase_crystalformer.errors import BadModelFile, BadRecipe
from ase_crystalformer.graph import collate
from ase_crystalformer.mixer import MixedEncoder, MixerConfig
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.neighbours.moving import Mover, MovingBatch
from ase_crystalformer.structures import as_crystal
from ase_crystalformer.testing import randomised
from ase_crystalformer.training.build import build_model
from ase_crystalformer.training.config import check_recipe, recipe_dict
from ase_crystalformer.training.objective import EnergyObjective
from ase_crystalformer.training.prepare import prepare
from ase_crystalformer.training.run import fit
from ase_crystalformer.training.settings import EnergyLoss

MIXER = {"reach": 1.5, "heads": 2, "channels": 8, "features": 3}


@pytest.fixture
def plain():
    return tiny_potential()


@pytest.fixture
def mixed(plain):
    """A potential whose mixer has learned something."""
    return randomised(plain.with_mixer(MIXER)).eval()


def largest_change(given, expected):
    """Largest difference of any quantity of any structure."""
    return max(
        np.abs(np.asarray(one[name]) - np.asarray(other[name])).max()
        for one, other in zip(given, expected, strict=True)
        for name in ("energy", "forces")
    )


def test_a_new_mixer_changes_no_bit(plain, crystals):
    again = plain.with_mixer(MIXER)
    for given, expected in zip(again.predict(crystals), plain.predict(crystals), strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(given[name], value)
    assert not isinstance(plain.encoder, MixedEncoder)
    assert again.dtype == plain.dtype
    assert again.head.reference.dtype == torch.float64


def test_a_mixer_added_in_inference_mode_can_be_differentiated_through(plain, wurtzite):
    with torch.inference_mode():
        again = plain.with_mixer(MIXER)
    assert again.predict([wurtzite])[0]["forces"].any()


def test_a_mixer_that_has_learned_changes_energies_and_forces(plain, mixed, wurtzite):
    assert largest_change(mixed.predict([wurtzite]), plain.predict([wurtzite])) > 1e-3


def test_only_one_mixer_fits(mixed):
    with pytest.raises(ValueError, match=r"has a mixer already.*'reach': 1\.5"):
        mixed.with_mixer({})


def test_a_mixed_model_is_stored_and_loaded(mixed, wurtzite, tmp_path):
    mixed.save(tmp_path / "mixed")
    told = json.loads((tmp_path / "mixed.json").read_text())
    assert told["mixer"] == MIXER
    assert told["config"] == asdict(mixed.encoder.config.config)
    again = CrystalModel.load(tmp_path / "mixed")
    assert again.encoder.config == mixed.encoder.config
    assert again.state_dict().keys() == mixed.state_dict().keys()
    assert largest_change(again.predict([wurtzite]), mixed.predict([wurtzite])) < 1e-5


def test_a_model_without_a_mixer_is_stored_as_ever(plain, tmp_path):
    plain.save(tmp_path / "plain")
    told = json.loads((tmp_path / "plain.json").read_text())
    assert list(told) == [
        "format",
        "encoder",
        "config",
        "targets",
        "energy_scale",
        "card",
        "sha256",
    ]
    assert all(name.startswith(("encoder.", "head.")) for name in plain.state_dict())


def test_a_mixer_of_another_size_is_not_loaded(mixed, tmp_path):
    mixed.save(tmp_path / "mixed")
    path = tmp_path / "mixed.json"
    path.write_text(path.read_text().replace('"features": 3', '"features": 4'))
    with pytest.raises(BadModelFile, match="does not describe a model"):
        CrystalModel.load(tmp_path / "mixed")


def test_properties_can_be_mixed_too(wurtzite, rocksalt):
    plain = tiny_properties()
    mixed = plain.with_mixer(MIXER)
    assert mixed.predict([wurtzite, rocksalt]) == plain.predict([wurtzite, rocksalt])


def test_forces_of_a_batch_are_those_of_each(mixed, crystals):
    mixed.double()
    together = mixed.predict(crystals)
    singly = [mixed.predict([crystal])[0] for crystal in crystals]
    assert largest_change(together, singly) < 1e-10


def test_forces_and_stress_of_the_calculator_are_slopes(mixed, wurtzite):
    wurtzite.calc = CrystalformerCalculator(mixed, dtype="float64")
    step = 1e-3
    force = wurtzite.get_forces()[1, 2]
    stress = wurtzite.get_stress(voigt=False)

    def energy(move=0.0, strain=0.0):
        moved = wurtzite.copy()
        moved.calc = wurtzite.calc
        moved.positions[1, 2] += move
        shear = np.eye(3)
        shear[0, 1] = shear[1, 0] = strain / 2
        moved.set_cell(moved.cell @ shear, scale_atoms=True)
        return moved.get_potential_energy()

    slope = (energy(move=step) - energy(move=-step)) / (2 * step)
    assert force == pytest.approx(-slope, abs=1e-4)
    slope = (energy(strain=step) - energy(strain=-step)) / (2 * step)
    assert stress[0, 1] == pytest.approx(slope / wurtzite.get_volume(), abs=1e-6)


def test_crystals_in_motion_are_mixed_alike(mixed, slab, water, perovskite):
    """Batched relaxation completes the cells of slabs and molecules its own way."""
    mixed.double()
    rule = mixed.encoder.rule
    structures = [slab, water, perovskite]
    movers = [Mover.of(as_crystal(structure), rule.cutoff) for structure in structures]
    moving = MovingBatch(movers, rule.cutoff, torch.device("cpu")).graph(torch.float64)
    expected = mixed.energy(collate([mixed.draw(structure) for structure in structures]))
    given = mixed.energy(moving)
    torch.testing.assert_close(given.energy, expected.energy, rtol=0, atol=1e-8)
    torch.testing.assert_close(given.forces, expected.forces, rtol=0, atol=1e-8)


def test_the_loss_of_forces_and_stress_has_the_right_gradient(mixed, wurtzite, perovskite):
    mixed.double().train()
    graph = collate([mixed.draw(crystal) for crystal in (wurtzite, perovskite)])
    labels = {
        "energy": torch.full((2,), torch.nan),
        "forces": torch.randn(graph.atoms, 3, dtype=torch.float64),
        "stress": 0.1 * torch.randn(2, 3, 3, dtype=torch.float64),
        "group": torch.zeros(2, dtype=torch.int64),
    }
    objective = EnergyObjective(EnergyLoss(scale="none"), ["none"]).double()
    weights = list(mixed.encoder.mixer.parameters())

    def loss():
        return objective(mixed, graph, labels)

    slopes = torch.autograd.grad(loss(), weights, allow_unused=True)
    assert sum(slope is None for slope in slopes) == 0
    direction = [torch.randn_like(weight) for weight in weights]
    given = sum((slope * way).sum() for slope, way in zip(slopes, direction, strict=True))
    expected = slope_along(weights, loss, direction)
    assert float(given) == pytest.approx(expected, rel=1e-6)


# --------------------------------------------------------------------------------- in recipes


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "potential"
    packed_set(crystals_with_forces(), folder, "energy")
    return folder


def test_a_recipe_trains_a_mixer(packed, tmp_path):
    recipe = potential_recipe(packed, mixer=MIXER, optim={"epochs": 3})
    model = fit(recipe, tmp_path, progress=False)
    assert model.encoder.config.mixer == MixerConfig(**MIXER)
    assert model.encoder.mixer.gain.abs().max() > 0
    again = CrystalModel.load(tmp_path / "model")
    assert isinstance(again.encoder, MixedEncoder)
    assert again.encoder.mixer.gain.abs().max() > 0


def test_a_recipe_adds_a_mixer_to_the_model_it_starts_from(packed, tmp_path):
    start = tiny_potential(norm=True, degree=1)
    path = start.save(tmp_path / "start")
    recipe = potential_recipe(packed, start=str(path), mixer=MIXER)
    set_of = prepare(recipe)
    model = build_model(recipe, set_of, set_of.where("train"))
    assert model.encoder.config.mixer == MixerConfig(**MIXER)
    kept = start.encoder.state_dict()
    for name, weight in model.encoder.local.state_dict().items():
        torch.testing.assert_close(weight, kept[name], rtol=0, atol=0)

    mixed_path = model.save(tmp_path / "mixed")
    silent = potential_recipe(packed, start=str(mixed_path))
    for same in (silent, potential_recipe(packed, start=str(mixed_path), mixer=MIXER)):
        again = build_model(same, set_of, set_of.where("train"))
        assert again.encoder.config == model.encoder.config
    other = potential_recipe(packed, start=str(mixed_path), mixer=MIXER | {"reach": 3.0})
    with pytest.raises(BadRecipe, match=r"has a mixer of .*1\.5.*asks for .*3\.0.*Leave"):
        build_model(other, set_of, set_of.where("train"))


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        ({"reech": 3.0}, r"mixer\.reech: .*Did you mean 'reach'"),
        ({"reach": -1.0}, r"mixer: reach is -1\.0; a positive number"),
        ({"heads": 3}, r"mixer: heads must divide channels; 3 do not divide 32"),
        ({"heads": 0}, r"mixer: heads, channels and features are 0, 32 and 4; each is one or more"),
        ({"features": -1}, r"are 4, 32 and -1; each is one or more"),
        ({"heads": "two"}, r"mixer\.heads: .*integer.*'two'"),
    ],
)
def test_a_wrong_mixer_is_refused(mixer, message):
    with pytest.raises(BadRecipe, match=message):
        check_recipe({"name": "n", "data": {"packed": "p"}, "energy": {}, "mixer": mixer})


def test_an_empty_table_is_a_mixer_of_usual_size():
    recipe = check_recipe({"name": "n", "data": {"packed": "p"}, "energy": {}, "mixer": {}})
    assert recipe_dict(recipe)["mixer"] == asdict(MixerConfig())
    assert check_recipe(recipe_dict(recipe)) == recipe
