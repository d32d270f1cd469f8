"""A recipe that is wrong is refused before anything starts, with the key and the remedy."""

import tomllib
from pathlib import Path

import pytest

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.training.config import check_recipe, read_recipe, recipe_dict

GOOD = {"name": "mine", "data": {"packed": "somewhere"}, "targets": ["band_gap"]}

ALL = sorted((Path(__file__).parents[1] / "workflows" / "recipes").glob("*.toml"))
RECIPES = [path for path in ALL if "[rows." not in path.read_text()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim": {"epoch": 3}}, r"optim\.epoch: .*Did you mean 'epochs'.*peak_lr"),
        ({"taregts": ["band_gap"]}, r"taregts: .*Did you mean 'targets'.*Known here: name"),
        ({"optim": {"epochs": "ten"}}, r"optim\.epochs: .*integer.*given was 'ten'"),
        ({"optim": {"epochs": 0}}, r"optim\.epochs: .*greater than or equal to 1; given was 0"),
        ({"optim": {"ema": 1.5}}, r"optim\.ema: .*less than 1; given was 1\.5"),
        ({"machine": {"precision": "8-bit"}}, r"machine\.precision: .*'bf16-mixed'.*'8-bit'"),
        ({"encoder": "crystalfomer"}, r"no encoder named 'crystalfomer'\. Did you mean 'crystalf"),
        ({"targets": ["bandgap"]}, r"no target named 'bandgap'\. Did you mean 'band_gap'"),
        ({"weights": {"bulk_modulus": 2.0}}, r"no target of this recipe named 'bulk_modulus'"),
        ({"energy": {}}, r"either targets = .* or a table \[energy\]"),
        ({"targets": []}, r"either targets = .* or a table \[energy\]"),
        ({"data": {}}, r"data\.packed: .*required"),
    ],
)
def test_a_wrong_recipe_names_the_key_and_the_remedy(change, message):
    with pytest.raises(BadRecipe, match=message):
        check_recipe(GOOD | change)


def test_every_mistake_is_told_at_once():
    with pytest.raises(BadRecipe, match=r"optim\.epochs.*machine\.threads"):
        check_recipe(GOOD | {"optim": {"epochs": 0}, "machine": {"threads": 0}})


@pytest.fixture
def recipe(tmp_path):
    """A recipe file."""
    path = tmp_path / "mine.toml"
    path.write_text('targets = ["band_gap"]\n[data]\npacked = "somewhere"\n[optim]\nepochs = 3\n')
    return path


def test_a_recipe_is_named_after_its_file(recipe):
    assert read_recipe(recipe).name == "mine"
    assert read_recipe(recipe).optim.epochs == 3


def test_entries_can_be_set(recipe):
    overrides = ["optim.epochs=7", "name='other'", "model.width=32", "data.largest.mp_labelled=4"]
    read = read_recipe(recipe, overrides)
    assert read.optim.epochs == 7
    assert read.name == "other"
    assert read.model == {"width": 32}
    assert read.data.largest == {"mp_labelled": 4}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name=other", r"strings need quotes: --set name='\"other\"'"),
        ("optim.epochs", r"takes section\.key=value, not 'optim\.epochs'"),
        ("optim.epochs.more=1", "'epochs' is a value, not a section"),
        ("optim.speed=1", r"optim\.speed: there is no such key"),
    ],
)
def test_a_wrong_override_names_the_remedy(recipe, override, message):
    with pytest.raises(BadRecipe, match=message):
        read_recipe(recipe, [override])


@pytest.mark.parametrize("content", [None, b"epochs = = 3", b"\xff\xfe"])
def test_a_file_that_is_no_recipe_is_named(tmp_path, content):
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadRecipe, match=r"mine\.toml cannot be read as a TOML recipe"):
        read_recipe(path)


def test_a_recipe_survives_being_written(recipe):
    read = read_recipe(recipe)
    assert check_recipe(recipe_dict(read)) == read


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_we_ship_are_valid(path):
    assert read_recipe(path).name == path.stem
    assert tomllib.loads(path.read_text())["data"]["packed"]


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"weights": {"band_gap": -1.0}}, r"weights\.band_gap"),
        ({"weights": {"band_gap": float("nan")}}, r"weights\.band_gap"),
        ({"targets": ["band_gap", "band_gap"]}, "targets names one twice"),
    ],
)
def test_weights_and_targets_that_cannot_be_are_refused(told, named):
    recipe = {"name": "gaps", "targets": ["band_gap"], "data": {"packed": "packed"}}
    with pytest.raises(BadRecipe, match=named):
        check_recipe(recipe | told)
