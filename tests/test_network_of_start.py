"""A recipe that starts from a model need not repeat its network."""

import json
from dataclasses import asdict, fields

import pytest
from small_runs import MODEL, SAMPLES

from ase_crystalformer.encoders import ENCODERS
from ase_crystalformer.errors import BadModelFile, UnknownName
from ase_crystalformer.mixer import MixedEncoder
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.pretrained import load_model
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training.build import build_model
from ase_crystalformer.training.config import read_recipe
from ase_crystalformer.training.prepare import prepare
from tests.laws.conftest import CASES, SMALL

GAP, ENERGY = [TARGETS["band_gap"]], [TARGETS["formation_energy_per_cell"]]
NARROW = {"width": 8, "layers": 2, "cutoff": 4.0}


@pytest.fixture
def recipe(tmp_path):
    """A recipe without a network, and its overrides."""
    path = tmp_path / "mine.toml"
    path.write_text("targets = ['formation_energy_per_cell']\n[data]\nfold = 0\n")
    told = [
        f"data.packed='{tmp_path / 'packed'}'",
        "data.source='matbench_perovskites'",
        f"data.directory='{SAMPLES}'",
    ]
    return lambda *more: read_recipe(path, [*told, *more])


def test_the_encoder_of_a_bundled_potential_starts_a_property(recipe):
    read = recipe("start_encoder='crystalformer-potential'")
    packed = prepare(read)
    model = build_model(read, packed, packed.where("train"))
    potential = load_model("crystalformer-potential", device="cpu")
    assert packed.meta["rule"]["cutoff"] == potential.encoder.config.cutoff
    assert model.encoder.config == potential.encoder.config
    for own, given in zip(model.encoder.parameters(), potential.encoder.parameters(), strict=True):
        assert own.equal(given)


@pytest.mark.parametrize("key", ["start", "start_encoder"])
def test_kind_size_and_mixer_are_those_of_the_model(recipe, tmp_path, key):
    plain = CrystalModel("et", NARROW | {"heads": 2}, targets=GAP)
    plain.save(tmp_path / "plain")
    plain.with_mixer({"heads": 2}).save(tmp_path / "mixed")
    read = recipe(f"{key}='{tmp_path / 'plain'}'")
    assert (read.encoder, read.model["width"], read.mixer) == ("et", 8, None)
    mixed = recipe(f"{key}='{tmp_path / 'mixed'}'")
    assert (mixed.encoder, mixed.model, mixed.mixer.heads) == ("et", read.model, 2)


def test_a_mixed_encoder_is_taken_over_whole(recipe, tmp_path):
    mixed = CrystalModel("et", NARROW | {"heads": 2}, targets=GAP).with_mixer({"heads": 2})
    mixed.save(tmp_path / "mixed")
    read = recipe(f"start_encoder='{tmp_path / 'mixed'}'")
    packed = prepare(read)
    model = build_model(read, packed, packed.where("train"))
    assert isinstance(model.encoder, MixedEncoder)
    for own, given in zip(model.encoder.parameters(), mixed.encoder.parameters(), strict=True):
        assert own.equal(given)


@pytest.mark.parametrize("name", CASES)
def test_every_encoder_is_gone_on_with(recipe, tmp_path, name):
    encoder, special = CASES[name]
    known = {field.name for field in fields(ENCODERS[encoder][1])}
    config = {key: value for key, value in SMALL.items() if key in known} | special
    mixer = config.pop("mixer", None)
    CrystalModel(encoder, config, mixer=mixer, targets=ENERGY).save(tmp_path / "first")
    read = recipe(f"start='{tmp_path / 'first'}'")
    packed = prepare(read)
    assert build_model(read, packed, packed.where("train")).encoder_name == encoder


def test_what_is_told_besides_changes_what_differs(recipe, tmp_path):
    first = CrystalModel("crystalformer", MODEL, targets=ENERGY)
    first.save(tmp_path / "first")
    read = recipe(f"start='{tmp_path / 'first'}'", "model.blocks=3")
    assert read.model == {**asdict(first.encoder.config), "blocks": 3}
    packed = prepare(read)
    assert len(build_model(read, packed, packed.where("train")).encoder.blocks) == 3
    assert recipe("start_encoder='default'", "encoder='et'").model == {}


def test_a_network_in_the_file_stays(tmp_path):
    path = tmp_path / "own.toml"
    told = "targets = ['band_gap']\nstart_encoder = 'default'\n[data]\npacked = 'p'\n"
    path.write_text(told + "[model]\nwidth = 12\n")
    assert read_recipe(path).model == {"width": 12}


def test_a_card_without_a_network_is_damaged(recipe, tmp_path):
    CrystalModel("crystalformer", MODEL, targets=GAP).save(tmp_path / "first")
    card = json.loads((tmp_path / "first.json").read_text())
    del card["encoder"]
    (tmp_path / "first.json").write_text(json.dumps(card))
    with pytest.raises(BadModelFile, match="lacks 'encoder'"):
        recipe(f"start='{tmp_path / 'first'}'")


def test_a_model_that_is_not_there_is_named(recipe, tmp_path):
    with pytest.raises(UnknownName, match="no model named 'nonsense'"):
        recipe("start='nonsense'")
    with pytest.raises(BadModelFile, match="gone"):
        recipe(f"start='{tmp_path / 'gone'}'")
