"""A model comes back from its files as it was, or not at all."""

import json

import pytest
import torch
from factories import tiny_potential, tiny_properties

from ase_crystalformer import CrystalModel
from ase_crystalformer.errors import BadModelFile, BadStructure, NoForces, UnseenElement
from ase_crystalformer.model_file import digest


@pytest.fixture
def files(tmp_path):
    weights = tiny_properties().save(tmp_path / "model")
    return weights, weights.with_suffix(".json")


@pytest.mark.parametrize("make", [tiny_potential, tiny_properties])
def test_saved_and_loaded_is_the_same_to_the_bit(make, tmp_path, rocksalt):
    model = make()
    again = CrystalModel.load(model.save(tmp_path / "model"))
    assert again.card == model.card
    assert again.targets == model.targets
    assert again.encoder.config == model.encoder.config
    assert str(again.predict([rocksalt])) == str(model.predict([rocksalt]))


def test_dots_in_names_are_kept(tmp_path):
    tiny_properties().save(tmp_path / "mp-1.0")
    tiny_properties().save(tmp_path / "mp-1.1.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {
        "mp-1.0.safetensors",
        "mp-1.0.json",
        "mp-1.1.safetensors",
        "mp-1.1.json",
    }


def test_the_digest_is_that_of_the_file(files):
    told = json.loads(files[1].read_text())
    assert digest(CrystalModel.load(files[0]).state_dict()) == told["sha256"]


def truncate(weights, card):
    weights.write_bytes(weights.read_bytes()[:-100])


def alter(weights, card):
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


def swap(weights, card):
    tiny_potential().save(weights.with_name("other"))
    weights.with_name("other.safetensors").replace(weights)


def lose_weights(weights, card):
    weights.unlink()


def lose_card(weights, card):
    card.unlink()


def break_card(weights, card):
    card.write_text(card.read_text()[:-10])


def empty_card(weights, card):
    card.write_text("[]")


def age_card(weights, card):
    change(card, format=99)


def misname_encoder(weights, card):
    change(card, encoder="crystalfarmer")


def enlarge(weights, card):
    told = json.loads(card.read_text())
    change(card, config=told["config"] | {"width": 32})


def misspell(weights, card):
    told = json.loads(card.read_text())
    change(card, config=told["config"] | {"widht": 16})


def change(card, **fields):
    card.write_text(json.dumps(json.loads(card.read_text()) | fields))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "sha256 differs"),
        (alter, "sha256 differs"),
        (swap, "sha256 differs"),
        (lose_weights, "does not exist"),
        (lose_card, "does not exist"),
        (break_card, "not the card of a model"),
        (empty_card, "not the card of a model"),
        (age_card, "has format 99; this version reads format 1"),
        (misname_encoder, "no encoder named 'crystalfarmer'"),
        (enlarge, "size mismatch"),
        (misspell, "widht"),
    ],
)
def test_damage_is_noticed_and_named(damage, said, files):
    damage(*files)
    with pytest.raises(BadModelFile, match=said):
        CrystalModel.load(files[0])


def test_a_pickle_is_never_loaded(tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "model.pt")  # noqa: TID251
    with pytest.raises(BadModelFile, match="never loaded"):
        CrystalModel.load(tmp_path / "model.pt")


def test_a_failed_save_leaves_the_old_model(files, monkeypatch):
    before = [file.read_bytes() for file in files]
    model = tiny_properties()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save(files[0])
    assert [file.read_bytes() for file in files] == before


def test_a_batch_predicts_what_singles_do(crystals):
    model = tiny_potential().double()
    together = model.predict(crystals)
    for atoms, found in zip(crystals, together, strict=True):
        alone = model.predict([atoms])[0]
        assert found["energy"] == pytest.approx(alone["energy"], rel=1e-12)
        assert found["forces"] == pytest.approx(alone["forces"], abs=1e-12)
        assert ("stress" in found) == atoms.pbc.all()


def test_one_bad_structure_fails_alone(rocksalt, diamond, fcc):
    rocksalt.symbols[0] = "Xe"
    found = dict(tiny_potential().each([diamond, None, rocksalt, fcc]))
    assert isinstance(found[1], BadStructure)
    assert isinstance(found[2], UnseenElement)
    assert found[0]["energy"] == pytest.approx(-280, abs=5)
    assert found[3]["energy"] == pytest.approx(-290, abs=5)
    with pytest.raises(BadStructure):
        tiny_potential().predict([diamond, None, fcc])


def test_a_property_model_has_no_energy(rocksalt):
    model = tiny_properties()
    with pytest.raises(NoForces, match="Use a potential"):
        model.energy(model.draw(rocksalt))
