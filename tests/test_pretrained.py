"""Models by name and from files."""

import pytest
import torch
from factories import tiny_potential, tiny_properties

from ase_crystalformer import list_models, load_model, pretrained
from ase_crystalformer.errors import BadModelFile, UnknownName
from ase_crystalformer.pretrained import describe, shared_model


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of bundled models, with the names the real ones have."""
    tiny_potential().save(tmp_path / "crystalformer-potential")
    tiny_properties().save(tmp_path / "crystalformer-properties")
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    return tmp_path


def test_models_are_listed_with_what_they_predict(shelf):
    potential, properties = list_models()
    assert potential.name == "tiny-potential"
    assert potential.units["stress"] == "eV/Å³"
    assert properties.units == {"band_gap": "eV", "bulk_modulus": "GPa"}
    assert properties.licence == "not stated"
    assert potential.elements[:3] == ("H", "O", "Na")
    assert len(repr(properties)) < 200


@pytest.mark.parametrize("name", ["default", "crystalformer-potential"])
def test_models_load_by_name(shelf, name):
    model = load_model(name)
    assert model.card.name == "tiny-potential"
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("ending", ["", ".safetensors", ".json"])
def test_models_load_from_either_file_or_their_stem(tmp_path, ending):
    tiny_properties().save(tmp_path / "mine.v2")
    assert load_model(tmp_path / f"mine.v2{ending}").targets[0].name == "band_gap"
    assert load_model(str(tmp_path / f"mine.v2{ending}")).targets[0].name == "band_gap"


def test_precision_is_as_asked_and_references_keep_theirs(shelf):
    assert load_model("default").dtype == torch.float32
    assert load_model("default").head.reference.dtype == torch.float64
    double = load_model("default", dtype="float64")
    assert double.dtype == torch.float64
    assert shared_model(double, dtype="float32").head.reference.dtype == torch.float64


def test_bundled_models_are_loaded_once_and_files_as_they_are_now(shelf, tmp_path):
    assert shared_model("default") is shared_model("crystalformer-potential", "cpu")
    path = tmp_path / "elsewhere" / "mine"
    tiny_potential().save(path)
    before = shared_model(path)
    tiny_properties().save(path)
    assert before.is_potential
    assert not shared_model(path).is_potential


def test_a_loaded_model_is_the_users_own(shelf):
    load_model("default").head.scale.fill_(7.0)
    assert load_model("default").head.scale == 1
    assert shared_model("default").head.scale == 1


def test_unknown_names_get_a_hint(shelf):
    with pytest.raises(UnknownName, match=r"Did you mean .crystalformer-properties"):
        load_model("crystalformer-propertis")
    with pytest.raises(UnknownName, match=r"Known: accurate.*default-properties"):
        load_model("alignn")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(BadModelFile, match=r"nothing\.safetensors does not exist"):
        load_model(tmp_path / "nothing")
    with pytest.raises(BadModelFile, match="never loaded"):
        load_model("checkpoint.pt")


def test_a_card_is_read_without_its_weights(shelf):
    (shelf / "crystalformer-potential.safetensors").write_bytes(b"no weights")
    assert describe("default").name == "tiny-potential"


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(UnknownName, match=r"There is no device named 'gpu'.*Known: auto, cpu"):
        load_model("default", device="gpu")
