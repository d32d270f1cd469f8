"""The table of runs: numbers by hand, spreads over what is said, and nothing hidden."""

import csv
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from small_runs import TARGETS as LEARNED
from small_runs import crystals_with_properties, packed_set, property_recipe
from typer.testing import CliRunner

from ase_crystalformer.cli import app
from ase_crystalformer.errors import BadRecipe, MissingData
from ase_crystalformer.leaderboards.judged import Judged, ensembles, judge
from ase_crystalformer.leaderboards.summary import summarise
from ase_crystalformer.leaderboards.table import markdown, write_table
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training.commit import commit_of
from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.run import fit

PUBLISHED = [
    {"by": "worse", "value": 0.5, "unit": "eV", "source": "a", "target": "band_gap"},
    {"by": "better", "value": 0.1, "unit": "eV", "source": "b", "target": "band_gap"},
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same recipe with two seeds, on crystals without a test part."""
    folder = tmp_path_factory.mktemp("table")
    packed_set(crystals_with_properties(), folder / "packed", *LEARNED)
    found = []
    for seed in (0, 1):
        told = {"seed": seed, "published": PUBLISHED, "optim": {"epochs": 1, "budget": 500}}
        recipe = property_recipe(folder / "packed", name=f"small-seed-{seed}", **told)
        fit(recipe, folder / recipe.name, progress=False)
        found.append(folder / recipe.name)
    return found


def told(target="band_gap", predicted=(1.0, 2.0), labels=(1.0, 1.0), ids="ab", **recipe):
    """A run as it was judged."""
    data = {"packed": "p", "source": "matbench-mp-gap", "fold": recipe.pop("fold", None)}
    name = recipe.pop("name", "run")
    learned = check_recipe({"name": name, "targets": [target], "data": data, **recipe})
    return Judged(
        name=name,
        recipe=learned,
        training={"hours": 0.5, "epochs": 10, "hardware": "a machine", "commit": "abc"},
        target=TARGETS[target],
        part="test",
        ids=tuple(ids),
        predicted=np.array(predicted),
        labels=np.array(labels),
    )


def test_a_row_tells_mean_and_spread_of_what_the_runs_score(runs, tmp_path):
    done = CliRunner().invoke(app, ["table", *map(str, runs), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    rows = {row["target"]: row for row in json.loads((tmp_path / "out/table.json").read_text())}
    assert set(rows) == set(LEARNED)
    cards = [CrystalModel.load(run / "model").card.errors for run in runs]
    for target, name in [("band_gap", "band_gap"), ("bulk_modulus", "log10 bulk_modulus")]:
        errors = [card[name]["mae"] for card in cards]
        assert rows[target]["value"] == pytest.approx(np.mean(errors), rel=1e-4)
        assert rows[target]["over_seeds"] == pytest.approx(np.std(errors, ddof=1), rel=1e-3)
        assert rows[target]["n"] == cards[0][name]["n"]
    gap = rows["band_gap"]
    assert (gap["part"], gap["seeds"], gap["over_folds"]) == ("val", [0, 1], None)
    assert [one["by"] for one in gap["published"]] == ["better", "worse"]
    assert gap["hardware"]
    assert rows["bulk_modulus"]["published"] == []
    assert "better 0.1; worse 0.5" in done.stdout
    assert "log10(GPa)" in done.stdout


def test_predictions_are_kept_until_the_weights_change(runs, monkeypatch):
    first = {one.target.name: one for one in judge(runs[0], progress=False)}
    kept = runs[0] / "predicted-val.json"
    content = kept.read_text()
    monkeypatch.setattr("ase_crystalformer.leaderboards.judged.outcomes_of", None)
    again = {one.target.name: one for one in judge(runs[0], progress=False)}
    assert again["band_gap"].score == first["band_gap"].score
    monkeypatch.undo()
    model = CrystalModel.load(runs[1] / "model")
    judge(runs[1], progress=False)
    before = (runs[1] / "predicted-val.json").read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ase_crystalformer.leaderboards.judged.outcomes_of", None)
        model.head.towers["band_gap"][-1].bias.data += 1
        model.save(runs[1] / "model")
        with pytest.raises(TypeError):
            judge(runs[1], progress=False)
        model.head.towers["band_gap"][-1].bias.data -= 1
        model.save(runs[1] / "model")
    assert content == kept.read_text()
    assert before


def test_what_cannot_be_judged_is_named_and_the_rest_told(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(app, ["table", str(tmp_path / "empty"), str(runs[0])])
    assert done.exit_code == 1
    assert "empty is no run folder" in done.stderr
    assert "| band_gap |" in done.stdout
    done = CliRunner().invoke(app, ["table", str(runs[0]), "--split", "test"])
    assert done.exit_code == 1
    assert "has no test part" in done.stderr


def test_folds_are_averaged_over_seeds_first():
    errors = {(0, 0): 1.0, (0, 1): 3.0, (1, 0): 5.0, (1, 1): 6.0, (2, 0): 7.0}
    found = [
        told(fold=fold, seed=seed, predicted=(1 + error, 1 - error), name=f"x-fold-{fold}")
        for (fold, seed), error in errors.items()
    ]
    [row] = summarise(found)
    by_fold = [2.0, 5.5, 7.0]
    assert row.value == pytest.approx(np.mean(by_fold))
    assert row.over_folds == pytest.approx(np.std(by_fold))
    assert (row.folds, row.seeds, row.n, row.model) == ((0, 1, 2), (0, 1), 6, "x")
    assert row.over_seeds is None  # fold 2 lacks a seed: no two seeds have the same folds
    assert row.hours == 2.5
    assert not row.complete
    assert "| 3 of 5 folds |" in markdown([row])
    assert "| test, 6 of 63,669 |" in markdown([row])  # of 106,113 rows, in three folds
    [whole] = summarise([told(fold=fold) for fold in range(5)])
    assert whole.complete
    assert "| 5 |" in markdown([whole])


def test_only_seed_fold_and_machine_may_differ_in_a_row():
    alike = [told(), told(seed=1, name="b", machine={"workers": 2})]
    assert len(summarise(alike)) == 1
    assert len(summarise([*alike, told(optim={"epochs": 11})])) == 2
    assert len(summarise([*alike, told(model={"width": 64})])) == 2


def test_runs_of_other_precision_or_devices_have_rows_of_their_own():
    for machine in ({"precision": "bf16-mixed"}, {"matmul": "high"}, {"devices": 4}, {"nodes": 2}):
        assert len(summarise([told(), told(seed=1, machine=machine)])) == 2


def test_two_runs_of_one_fold_and_seed_are_refused_by_name():
    with pytest.raises(BadRecipe, match="one, two are runs of one recipe with the same fold 3"):
        summarise([told(name="one", fold=3), told(name="two", fold=3), told(name="three", fold=2)])


def test_a_folder_that_is_named_twice_counts_once(runs):
    once = CliRunner().invoke(app, ["table", *map(str, runs)])
    again = CliRunner().invoke(app, ["table", *map(str, runs), f"{runs[0]}/../{runs[0].name}"])
    assert again.exit_code == 0, again.output
    assert again.stdout == once.stdout


def test_the_kind_is_that_of_the_model(runs, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(runs[0], copied)
    recipe = json.loads((copied / "recipe.json").read_text())
    recipe["kinds"] = {"bulk_modulus": "linear"}  # as a run with start once left it
    (copied / "recipe.json").write_text(json.dumps(recipe))
    [found] = [one for one in judge(copied, progress=False) if one.target.name == "bulk_modulus"]
    assert found.unit == "log10(GPa)"


def test_runs_that_are_not_done_say_so():
    [row] = summarise([told(optim={"epochs": 30})])
    assert "Not finished: run: 10 of 30 epochs." in markdown([row])


def test_an_ensemble_is_the_mean_of_predictions_of_the_same_crystals():
    first = told(predicted=(1.0, 4.0), labels=(2.0, 3.0), ids="ab")
    second = told(predicted=(1.0, 2.0), labels=(3.0, 2.0), ids="ba", seed=1)
    [mean] = ensembles([first, second])
    np.testing.assert_allclose(mean.predicted, [1.5, 2.5])
    assert mean.score == 0.5
    assert mean.members == 2
    assert [row.model for row in summarise([first, second, mean])] == ["mean of 2 models", "run"]
    assert ensembles([first, told(target="band_gap_mbj")]) == []
    assert ensembles([told(fold=0), told(fold=1)]) == []
    plain = replace(first, target=replace(TARGETS["bulk_modulus"], kind="linear"))
    logarithm = replace(first, target=TARGETS["bulk_modulus"])
    assert ensembles([plain, logarithm]) == []
    pairs = [[one, replace(one, recipe=second.recipe)] for one in (plain, logarithm)]
    means = [mean for pair in pairs for mean in ensembles(pair)]
    assert {row.unit for row in summarise(means)} == {"GPa", "log10(GPa)"}
    with pytest.raises(MissingData, match="judged by different crystals"):
        ensembles([first, told(ids="ac", seed=1)])


def test_an_ensemble_hides_nothing_of_its_members():
    short = told(seed=4, name="short", optim={"epochs": 30})
    other = {"hours": 2.0, "epochs": 30, "hardware": "another", "commit": "def+"}
    [mean] = ensembles([replace(short, training=other), told(name="whole"), short])
    [row] = summarise([mean])
    assert row.unfinished == ("short: 10 of 30 epochs",)
    assert (row.hardware, row.commits) == (("a machine", "another"), ("abc", "def+"))
    assert (row.seeds, row.hours) == ((0, 4), 3.0)


def test_metals_are_told_by_the_curve_of_answers():
    from sklearn.metrics import balanced_accuracy_score

    labels, chances = [1.0, 1.0, 0.0, 0.0, 0.0], [0.9, 0.4, 0.45, 0.8, 0.1]
    one = told("is_metal", chances, labels, "abcde")
    assert one.metric == "rocauc"
    answers = [chance > 0.5 for chance in chances]
    assert one.score == pytest.approx(balanced_accuracy_score(labels, answers))
    assert "is_metal, ROC-AUC" in markdown(summarise([one]))


def test_all_files_are_written(tmp_path):
    published = [{"by": "a", "value": 0.4, "unit": "eV", "spread": 0.1, "source": "s"}]
    rows = summarise([told(fold=fold, published=published) for fold in (0, 1)])
    write_table(rows, tmp_path)
    [line] = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
    assert float(line["value"]) == rows[0].value
    assert line["published"] == "a 0.4 ± 0.1"
    assert line["folds"] == "0; 1"
    assert json.loads((tmp_path / "table.json").read_text())[0]["complete"] is False
    assert (tmp_path / "table.md").read_text() == markdown(rows)
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    write_table(summarise([told()]), tmp_path / "bare")
    assert not (tmp_path / "bare" / "table.png").exists()


def test_published_numbers_say_what_they_were_measured_on():
    one = {"by": "a", "value": 0.4, "unit": "eV", "on": "test, 9", "source": "s"}
    other = {**one, "by": "b", "value": 0.3}
    [row] = summarise([told(published=[one, other])])
    assert "| b 0.3; a 0.4 (test, 9) |" in markdown([row])
    [row] = summarise([told(published=[one, {**other, "on": ""}])])
    assert "| b 0.3; a 0.4 (test, 9) |" in markdown([row])
    [row] = summarise([told(published=[one, {**other, "on": "val"}])])
    assert "| b 0.3 (val); a 0.4 (test, 9) |" in markdown([row])


def test_a_commit_is_told_with_whether_files_have_changed(tmp_path):
    def git(*command):
        who = ["-c", "user.name=x", "-c", "user.email=x@y"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *command], check=True)

    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    assert commit_of(tmp_path / "package") is None
    git("init", "-q")
    assert commit_of(tmp_path / "package") is None  # in a repository that does not know it
    git("add", ".")
    git("commit", "-q", "-m", "first")
    name = commit_of(tmp_path / "package")
    assert re.fullmatch(r"[0-9a-f]{12}", name)
    (tmp_path / "package" / "__init__.py").write_text("changed = True\n")
    assert commit_of(tmp_path / "package") == name + "+"
