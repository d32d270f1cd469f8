"""Rows of tables: one recipe file, a run for each row and fold, each in a place of its own."""

import json
import tomllib
from pathlib import Path

import pytest
from small_runs import MODEL, SAMPLES

from ase_crystalformer.data.registry import DATA_SETS
from ase_crystalformer.errors import BadRecipe, UnknownName
from ase_crystalformer.leaderboards import matbench
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training.config import check_recipe, read_recipe, recipe_dict
from ase_crystalformer.training.folds import is_done, train_folds
from ase_crystalformer.training.objective import error_name
from ase_crystalformer.training.record import changed_since, write_record

RECIPES = Path(__file__).parents[1] / "workflows" / "recipes"
ROWS = [
    (path, row)
    for path in sorted(RECIPES.glob("*.toml"))
    for row in tomllib.loads(path.read_text()).get("rows", {})
]

TEXT = """
seed = 0
[data]
packed = "packed/small"
fold = 0
[optim]
epochs = 7
budget = 900
[rows.gap]
targets = ["band_gap"]
optim.budget = 100
published = [{ by = "somebody", value = 0.2, unit = "eV", source = "a paper" }]
[rows.modulus]
name = "mine"
targets = ["bulk_modulus"]
data.packed = "elsewhere"
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(TEXT)
    return path


def test_a_row_is_laid_over_the_rest(recipe):
    read = read_recipe(recipe, row="gap")
    assert read.targets == ("band_gap",)
    assert (read.optim.epochs, read.optim.budget) == (7, 100)
    assert read.published[0].value == 0.2
    assert check_recipe(json.loads(json.dumps(recipe_dict(read)))) == read


def test_names_tell_row_fold_and_seed(recipe):
    read = read_recipe(recipe, row="gap")
    assert (read.name, read.data.packed) == ("small-gap-fold-0", Path("packed/small-gap-fold-0"))
    read = read_recipe(recipe, ["data.fold=3", "seed=2"], row="gap")
    assert read.name == "small-gap-fold-3-seed-2"
    assert read.data.packed == Path("packed/small-gap-fold-3")  # seeds share it
    read = read_recipe(recipe, row="modulus")
    assert (read.name, read.data.packed) == (
        "mine-modulus-fold-0",
        Path("elsewhere-modulus-fold-0"),
    )
    told = ["name='other'", "data.packed='there'"]
    read = read_recipe(recipe, told, row="gap")
    assert (read.name, read.data.packed) == ("other", Path("there"))


def test_a_recipe_without_rows_is_named_after_its_file_as_ever(tmp_path):
    path = tmp_path / "plain.toml"
    path.write_text("targets = ['band_gap']\nseed = 4\n[data]\npacked = 'p'\nfold = 1\n")
    read = read_recipe(path)
    assert (read.name, read.data.packed) == ("plain", Path("p"))
    read = read_recipe(path, fold=2)
    assert (read.name, read.data.fold) == ("plain-fold-2-seed-4", 2)
    assert read.data.packed == Path("p-fold-2")


def test_rows_that_are_not_there_are_named(recipe, tmp_path):
    with pytest.raises(BadRecipe, match=r"--row gap \| modulus"):
        read_recipe(recipe)
    with pytest.raises(UnknownName, match=r"'gab'.*Did you mean 'gap'"):
        read_recipe(recipe, row="gab")
    path = tmp_path / "plain.toml"
    path.write_text("targets = ['band_gap']\n[data]\npacked = 'p'\n")
    with pytest.raises(BadRecipe, match="has no tables"):
        read_recipe(path, row="gap")
    with pytest.raises(BadRecipe, match=r"published\.0\.valeu.*Did you mean 'value'"):
        read_recipe(path, ["published=[{by='a', valeu=1.0, value=1.0, unit='eV', source='b'}]"])


def test_a_published_number_is_no_part_of_what_is_learned(recipe, tmp_path):
    read = read_recipe(recipe, row="gap")
    write_record(read, tmp_path / "run")
    other = read_recipe(recipe, ["published=[]"], row="gap")
    assert changed_since(tmp_path / "run", other) == []
    other = read_recipe(recipe, ["optim.epochs=9"], row="gap")
    assert changed_since(tmp_path / "run", other) == ["optim"]


@pytest.mark.parametrize(("path", "row"), ROWS, ids=lambda one: getattr(one, "stem", one))
def test_every_row_we_ship_is_whole(path, row):
    read = read_recipe(path, row=row)
    assert read.name.startswith(f"{path.stem}-{row}")
    assert read.published
    for told in read.published:
        name = told.target or read.targets[0]
        assert name in read.targets
        metric = "rocauc" if TARGETS[name].kind == "chance" else "mae"
        assert (told.metric, told.unit) == (metric, error_name(TARGETS[name])[1])
    source = DATA_SETS[read.data.source]
    assert set(read.targets) <= {label.name for label in source.labels}
    task = str(read.data.source).replace("-", "_")
    assert (read.data.fold is None) == (task not in matbench.TASKS)


def test_the_recipes_cover_the_tables():
    found = {(path.stem, row) for path, row in ROWS}
    tasks = {"e_form", "perovskites", "kvrh", "gvrh", "dielectric", "phonons", "jdft2d"}
    crystals = {"formation_energy_per_atom", "band_gap", "bulk_modulus", "shear_modulus"}
    jarvis = {"formation_energy_per_atom", "energy_per_atom", "band_gap", "band_gap_mbj"}
    for encoder in ("icomformer", "ecomformer", "crystalformer"):
        rows = [("mp-2018", crystals), ("jarvis", {*jarvis, "energy_above_hull"})]
        for data, wanted in [*rows, ("matbench", tasks)]:
            assert {(f"{encoder}-{data}", row) for row in wanted} <= found


def test_folds_are_trained_one_after_another_and_not_twice(tmp_path, monkeypatch):
    path = tmp_path / "tiny.toml"
    model = "\n".join(f"{key} = {json.dumps(value)}" for key, value in MODEL.items())
    path.write_text(
        f"[data]\npacked = '{tmp_path / 'packed'}'\nsource = 'matbench_perovskites'\n"
        f"directory = '{SAMPLES}'\n[model]\n{model}\n"
        "[optim]\nepochs = 1\nbudget = 4000\n[machine]\naccelerator = 'cpu'\ndevices = 1\n"
        "[rows.perovskites]\ntargets = ['formation_energy_per_cell']\n"
    )
    monkeypatch.setattr("ase_crystalformer.training.folds.FOLDS", 2)
    told = {"row": "perovskites", "runs": tmp_path / "runs", "progress": False}
    first, second = train_folds(path, **told)
    assert [one.name for one in (first, second)] == [f"tiny-perovskites-fold-{n}" for n in range(2)]
    assert json.loads((second / "recipe.json").read_text())["data"]["fold"] == 1
    assert is_done(second, read_recipe(path, row="perovskites", fold=1))
    calls = []
    monkeypatch.setattr(
        "ase_crystalformer.training.folds.fit",
        lambda _, folder, *, resume, progress: calls.append((folder, resume)),
    )
    assert list(train_folds(path, **told)) == [first, second]
    assert calls == []
    (first / "model.json").unlink()  # cut off before the first epoch was over
    (second / "model.json").unlink()
    (second / "checkpoints" / "last.ckpt").unlink()
    assert list(train_folds(path, **told)) == [first, second]
    assert calls == [(first, True), (second, False)]
