"""Rows of tables that could mislead: told, left out with a reason, or named."""

import json
import math
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from command import run
from small_runs import crystals_with_properties, packed_set, property_recipe
from test_table import told

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.leaderboards import judged
from ase_crystalformer.leaderboards.judged import ensembles, judge
from ase_crystalformer.leaderboards.summary import summarise
from ase_crystalformer.leaderboards.table import markdown, write_table
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training.config import check_recipe, read_recipe
from ase_crystalformer.training.objective import error_name
from ase_crystalformer.training.record import recipe_of
from ase_crystalformer.training.run import fit

RECIPES = sorted((Path(__file__).parents[1] / "workflows" / "recipes").glob("*.toml"))
ONE = {"by": "a", "value": 150.0, "unit": "meV", "source": "s"}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run on two properties, of which one has no label in the part that judges."""
    folder = tmp_path_factory.mktemp("judged")
    names = ("band_gap", "bulk_modulus")
    rows = [
        row if row.split == "train" else row.labelled({"band_gap": row.labels["band_gap"]})
        for row in crystals_with_properties()
        if "band_gap" in row.labels
    ]
    packed_set(rows, folder / "packed", *names)
    recipe = property_recipe(folder / "packed", targets=names, optim={"epochs": 1})
    fit(recipe, folder / "run", progress=False)
    return folder / "run"


def published_in(path):
    """Published numbers of a recipe file with the units of what they stand for."""
    rows = tomllib.loads(path.read_text()).get("rows") or {None: None}
    for row in rows:
        recipe = read_recipe(path, row=row)
        for one in recipe.published:
            name = one.target or recipe.targets[0]
            target = TARGETS[name]
            yield one, replace(target, kind=recipe.kinds.get(name, target.kind))


def test_all_recipes_that_come_along_hold_numbers_in_the_units_of_the_table():
    found = [pair for path in RECIPES for pair in published_in(path)]
    assert len(found) > 100
    for one, target in found:
        assert one.unit == error_name(target)[1], (one, target)


def test_a_number_in_another_unit_does_not_stand_beside_ours(tmp_path, caplog):
    rows = summarise([told(published=[ONE, {**ONE, "by": "b", "value": 0.2, "unit": "eV"}])])
    assert [one.by for one in rows[0].published] == ["b"]
    assert "What a published for band_gap is left out: it is in meV, and the table in eV" in (
        caplog.text
    )
    cell = {**ONE, "unit": "eV per cell of five atoms"}
    [row] = summarise([told("formation_energy_per_cell", published=[cell])])
    assert len(row.published) == 1
    alone = summarise([told(published=[ONE])])
    write_table(rows, tmp_path)
    assert (tmp_path / "table.png").is_file()
    write_table(alone, tmp_path)
    assert not (tmp_path / "table.png").exists()


def test_a_number_of_what_is_not_learned_is_refused_but_for_runs_of_before(done, tmp_path):
    wrong = {**ONE, "target": "bandgap"}
    with pytest.raises(
        BadRecipe, match=r"no target of this recipe .published\.target. named 'bandgap'"
    ):
        told(published=[wrong])
    with pytest.raises(BadRecipe, match="this recipe learns no property: leave it out"):
        check_recipe({"name": "x", "energy": {}, "data": {"packed": "p"}, "published": [wrong]})
    shutil.copytree(done, tmp_path / "run")
    recipe = json.loads((done / "recipe.json").read_text())
    (tmp_path / "run" / "recipe.json").write_text(json.dumps({**recipe, "published": [wrong]}))
    assert recipe_of(tmp_path / "run").published == ()


def test_a_property_without_labels_is_named(done, caplog):
    for _ in range(2):  # predicted, and read from what was kept
        caplog.clear()
        assert [one.target.name for one in judge(done, progress=False)] == ["band_gap"]
        assert "(part val) has a label of bulk_modulus: the table has no row" in caplog.text


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '{"targets": 1}', "\xff"])
def test_predictions_that_are_damaged_are_made_anew(done, content):
    before = judge(done, progress=False)
    kept = done / "predicted-val.json"
    whole = kept.read_text()
    kept.write_bytes(content.encode("latin-1"))
    assert [one.score for one in judge(done, progress=False)] == [one.score for one in before]
    assert kept.read_text() == whole


def test_ensembles_of_unequal_size_say_so():
    sizes = {0: 3, 1: 2, 2: 2}
    found = [told(fold=fold, seed=seed) for fold, size in sizes.items() for seed in range(size)]
    [row] = summarise(ensembles(found))
    assert row.model == "mean of 2 to 3 models"
    [row] = summarise(ensembles(found[3:]))
    assert row.model == "mean of 2 models"


def test_rmse_is_a_mean_over_folds_as_the_error_is():
    errors = {(0, 0): 1.0, (0, 1): 3.0, (1, 0): 5.0}
    found = [
        told(fold=fold, seed=seed, predicted=(1 + error, 1 - error))
        for (fold, seed), error in errors.items()
    ]
    [row] = summarise(found)
    assert row.value == row.rmse == pytest.approx(3.5)


@pytest.mark.filterwarnings("error")
def test_one_class_alone_has_no_curve(tmp_path):
    one = told("is_metal", (0.9, 0.2), (1.0, 1.0), fold=0)
    both = told("is_metal", (0.9, 0.2), (1.0, 0.0), fold=1)
    rows = summarise([one, both])
    assert (rows[0].value, rows[0].over_folds) == (None, None)
    assert "| – |" in markdown(rows)
    assert "No value: all test labels of is_metal that judge run are alike." in markdown(rows)
    write_table(rows, tmp_path)
    [read] = json.loads((tmp_path / "table.json").read_text(), parse_constant=pytest.fail)
    assert read["value"] is None
    assert summarise([both])[0].value == 1.0


def test_predictions_that_are_no_numbers_have_no_value(tmp_path):
    published = [{**ONE, "unit": "eV"}]
    [row] = rows = summarise([told(predicted=(1.0, math.nan), published=published)])
    assert (row.value, row.rmse) == (None, None)
    assert "No value: run predicts no finite band_gap for 1 crystals." in markdown(rows)
    write_table(rows, tmp_path)
    assert not (tmp_path / "table.png").exists()


def test_runs_that_cannot_be_averaged_are_named_and_the_rest_told(done, tmp_path, monkeypatch):
    runs = {
        "one": [told(name="one"), told("band_gap_mbj", name="one")],
        "two": [told(name="two", ids="ac", seed=1), told("band_gap_mbj", name="two", seed=1)],
    }
    monkeypatch.setattr(judged, "judge", lambda folder, *_, **__: runs[folder.name])
    result = run("table", tmp_path / "one", tmp_path / "two", "--ensemble", code=1)
    assert "No mean of one, two (band_gap): one and two are judged by diff" in result.stderr
    assert "| band_gap | one |" in result.stdout
    assert "| band_gap_mbj | mean of 2 models |" in result.stdout
