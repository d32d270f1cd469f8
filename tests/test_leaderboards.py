"""MatBench gets what it asks for: whole folds, official names, signatures."""

import gzip
import hashlib
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from sklearn import metrics
from sklearn.model_selection import KFold
from small_runs import MODEL, SAMPLES
from typer.testing import CliRunner

from ase_crystalformer import load_model
from ase_crystalformer.cli import app
from ase_crystalformer.data.readers import load
from ase_crystalformer.errors import BadRecipe, MissingData, UnknownName
from ase_crystalformer.leaderboards import contribution, jarvis, matbench
from ase_crystalformer.leaderboards.contribution import About, write_matbench
from ase_crystalformer.leaderboards.runs import open_run
from ase_crystalformer.model import Card, CrystalModel
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.prepare import prepare
from ase_crystalformer.training.record import write_record

TASK = "matbench_perovskites"
SHEAR = "matbench_log_gvrh"
LABELS = {TASK: "formation_energy_per_cell", SHEAR: "shear_modulus"}
ROWS = 12
ABOUT = About(name="toy", authors="")

#: Keys of a record of matbench 0.6, as in its repository (``matbench_v0.1_TPOT/results.json``).
RECORD = ["@class", "@module", "benchmark_name", "datestamp", "hash", "tasks", "user_metadata"]
TASK_KEYS = ["@class", "@module", "benchmark_name", "dataset_name", "results"]
FOLD_KEYS = ["data", "parameters", "scores", "uncertainty"]
SCORES = ["mae", "mape", "max_error", "rmse"]


def test_folds_are_the_official_ones():
    rows = {row.id: int(row.info["fold_test"]) for row in load(TASK, SAMPLES)}
    folds = [set(matbench.fold_rows(TASK, number)) for number in range(5)]
    assert len(rows) == 30
    assert all(name in folds[number] for name, number in rows.items())
    assert len(set.union(*folds)) == sum(map(len, folds)) == 18928
    # As in matbench's own test record.
    first = ["0008", "0010", "0019", "0025", "0031", "0036"]
    found = matbench.fold_rows("matbench_dielectric", 0)
    assert found[:6] == [f"mb-dielectric-{number}" for number in first]
    assert len(found) == matbench.fold_size("matbench_dielectric", 0) == 953
    assert [matbench.fold_size(TASK, number) for number in range(5)] == list(map(len, folds))


@pytest.mark.parametrize(
    ("task", "number", "name"),
    [
        ("matbench_mp_e_form", 86392, "mb-mp-e-form-086392"),
        ("matbench_mp_gap", 58883, "mb-mp-gap-058883"),
        ("matbench_log_kvrh", 1, "mb-log-kvrh-00001"),
        ("matbench_perovskites", 755, "mb-perovskites-00755"),
    ],
)
def test_rows_are_called_as_in_the_data(task, number, name):
    assert matbench.row_name(task, number) == name


def test_scores_are_those_of_scikit_learn(rng):
    labels, predicted = rng.normal(size=50), rng.normal(size=50)
    labels[:3] = [0.0, 1e-6, -1e-6]
    found = matbench.scores(labels, predicted)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(labels, predicted))
    assert found["rmse"] == pytest.approx(metrics.mean_squared_error(labels, predicted) ** 0.5)
    assert found["max_error"] == pytest.approx(metrics.max_error(labels, predicted))
    rest = metrics.mean_absolute_percentage_error(labels[3:], predicted[3:])
    assert found["mape"] == pytest.approx(rest)


def frozen(told):
    """Sort keys all the way down, as matbench does before it signs."""
    if isinstance(told, dict):
        return {key: frozen(told[key]) for key in sorted(told)}
    return tuple(told) if isinstance(told, list) else told


@pytest.fixture
def small(monkeypatch):
    """Tasks of twelve rows."""
    monkeypatch.setitem(matbench.TASKS, TASK, matbench.Task(ROWS, LABELS[TASK]))
    monkeypatch.setitem(matbench.TASKS, SHEAR, matbench.Task(ROWS, LABELS[SHEAR], log10=True))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Five runs of untrained models on twelve rows, one for each fold, all of the same name."""
    return make_runs(tmp_path_factory.mktemp("runs"), TASK)


@pytest.fixture
def runs(made, small):
    return made


@pytest.fixture
def unasked(monkeypatch):
    """No model is asked."""

    def asked(*arguments, **options):
        raise AssertionError("a test part was predicted")

    monkeypatch.setattr(contribution, "outcomes_of", asked)


def make_runs(folder, task):
    folds = KFold(5, shuffle=True, random_state=18012019).split(range(ROWS))
    fold_of = {int(number): fold for fold, (_, test) in enumerate(folds) for number in test}
    frames = []
    for number in range(ROWS):
        frames.append(bulk("NaCl", "rocksalt", a=5.2 + 0.05 * number))
        name = f"{task.replace('matbench', 'mb').replace('_', '-')}-{number + 1:02d}"
        label = "e_form" if task == TASK else LABELS[task]
        frames[-1].info = {"material_id": name, label: 1.0 + number, "join": "heat"}
        frames[-1].info["fold_test"] = fold_of[number]
    path = folder / f"{task}.extxyz.gz"
    write(folder / "all.extxyz", frames)
    path.write_bytes(gzip.compress((folder / "all.extxyz").read_bytes()))
    source = task if task == TASK else path
    return [make_run(folder, source, LABELS[task], fold) for fold in range(5)]


def make_run(folder, source, label, fold):
    data = {"packed": folder / f"packed-{fold}", "source": str(source), "directory": folder}
    recipe = check_recipe(
        {"name": "run", "targets": [label], "data": {**data, "fold": fold}, "model": MODEL}
    )
    prepare(recipe)
    run = folder / f"{fold}" / recipe.name
    facts = write_record(recipe, run)
    card = Card(name="toy", elements=(11, 17), training={**facts, "hours": 0.5})
    CrystalModel("crystalformer", MODEL, targets=[TARGETS[label]], card=card).save(run / "model")
    return run


def test_a_record_has_every_field_of_a_real_one(runs, tmp_path):
    command = ["contribute", *map(str, runs), "--to", "matbench", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, "--name", "toy", "--authors", "A. Nyone"])
    assert done.exit_code == 0, done.output
    with gzip.open(tmp_path / "out" / "results.json.gz", "rt") as file:
        found = json.load(file)
    assert sorted(found) == sorted([*RECORD, "version"])
    assert (found["@module"], found["@class"]) == ("matbench.bench", "MatbenchBenchmark")
    assert (found["version"], found["benchmark_name"]) == ("0.6", "matbench_v0.1")
    datetime.strptime(found["datestamp"], "%Y.%m.%d %H:%M.%S").replace(tzinfo=UTC)
    told = found.pop("hash")
    assert told == hashlib.sha256(json.dumps(frozen(found)).encode()).hexdigest()
    [(name, task)] = found["tasks"].items()
    assert sorted(task) == TASK_KEYS
    assert (task["@module"], task["@class"]) == ("matbench.task", "MatbenchTask")
    assert name == task["dataset_name"] == TASK
    assert list(task["results"]) == [f"fold_{number}" for number in range(5)]
    for number, fold in enumerate(task["results"].values()):
        assert sorted(fold) == FOLD_KEYS
        assert sorted(fold["scores"]) == SCORES
        assert all(type(value) is float for value in fold["scores"].values())
        assert list(fold["data"]) == matbench.fold_rows(TASK, number)
        assert all(type(value) is float for value in fold["data"].values())
        assert fold["parameters"]["data"]["fold"] == number
        assert f"{fold['scores']['mae']:.4g}" in done.stdout
    told = json.loads((tmp_path / "out" / "info.json").read_text())
    assert sorted(told) == sorted(
        ["authors", "algorithm", "algorithm_long", "bibtex_refs", "notes", "requirements"]
    )
    assert any(line.startswith("torch==") for line in told["requirements"]["python"])
    again = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("out/recipes/*")}
    assert {name: one["data"]["fold"] for name, one in again.items()} == {
        f"{TASK}-fold-{fold}": fold for fold in range(5)
    }
    compile((tmp_path / "out" / "run.py").read_text(), "run.py", "exec")


def answers(out, task, fold):
    with gzip.open(out / "results.json.gz", "rt") as file:
        return json.load(file)["tasks"][task]["results"][f"fold_{fold}"]


def told_by(run, source, label, rows):
    """What the model of a run says of rows of its source, and their labels."""
    found = [row for row in load(source, run.parents[1]) if row.id in rows]
    crystals = [bulk("NaCl", "rocksalt", a=5.2 + 0.05 * (int(row.id[-2:]) - 1)) for row in found]
    told = load_model(run / "model").predict(crystals)
    names = [row.id for row in found]
    return names, np.array([one[label] for one in told]), [row.labels[label] for row in found]


def test_predictions_are_those_of_the_model_of_the_fold(runs, tmp_path):
    write_matbench([open_run(run) for run in runs], ABOUT, tmp_path / "out", progress=False)
    found = answers(tmp_path / "out", TASK, 3)
    names, expected, labels = told_by(runs[3], TASK, LABELS[TASK], found["data"])
    np.testing.assert_allclose([found["data"][name] for name in names], expected, rtol=1e-5)
    assert found["scores"]["mae"] == pytest.approx(np.abs(expected - labels).mean(), rel=1e-5)


def test_moduli_of_a_file_of_ones_own_become_logarithms(small, tmp_path):
    runs = make_runs(tmp_path, SHEAR)
    write_matbench([open_run(run) for run in runs], ABOUT, tmp_path / "out", progress=False)
    found = answers(tmp_path / "out", SHEAR, 1)
    source = tmp_path / f"{SHEAR}.extxyz.gz"
    names, moduli, labels = told_by(runs[1], source, LABELS[SHEAR], found["data"])
    expected = np.log10(moduli)
    np.testing.assert_allclose([found["data"][name] for name in names], expected, rtol=1e-5)
    error = np.abs(expected - np.log10(labels)).mean()
    assert found["scores"]["mae"] == pytest.approx(error, rel=1e-5)


def test_what_the_leaderboard_would_refuse_is_not_even_predicted(
    runs, tmp_path, monkeypatch, unasked
):
    opened = [open_run(run) for run in runs]
    with pytest.raises(MissingData, match=r"lacks folds \[4\]"):
        write_matbench(opened[:4], ABOUT, tmp_path / "out")
    with pytest.raises(BadRecipe, match="another run of fold 0"):
        write_matbench([opened[0], *opened], ABOUT, tmp_path / "out")
    monkeypatch.setitem(matbench.TASKS, TASK, matbench.Task(ROWS + 1, LABELS[TASK]))
    with pytest.raises(MissingData, match=r"Fold 0 .* has 3 rows.* run lacks"):
        write_matbench(opened, ABOUT, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UnknownName, match="matbench_steels"):
        matbench.fold_rows("matbench_steels", 0)
    with pytest.raises(BadRecipe, match="table tells its ROC-AUC"):
        matbench.fold_rows("matbench_mp_is_metal", 0)


def test_incomplete_sets_are_not_even_predicted_and_whole_ones_named(tmp_path, unasked):
    data = {"packed": tmp_path / "packed", "source": "matbench_log_kgvrh", "directory": SAMPLES}
    recipe = check_recipe(
        {"name": "run", "targets": ["bulk_modulus"], "data": {**data, "fold": 0}, "model": MODEL}
    )
    prepare(recipe)
    write_record(recipe, tmp_path / "run")
    with pytest.raises(BadRecipe, match=r"no whole task of MatBench.*matbench-log-gvrh"):
        write_matbench([open_run(tmp_path / "run")], ABOUT, tmp_path / "out")


def test_every_task_and_property_can_be_learned():
    labels = {task.label for task in matbench.TASKS.values()}
    assert labels | set(jarvis.PROPERTIES) <= set(TARGETS)


@pytest.mark.parametrize("task", LABELS)
@pytest.mark.parametrize(("which", "value"), [(0, np.nan), (0, -1.0), (1, 0.0)])
def test_what_is_no_number_is_refused(small, task, which, value):
    rows = matbench.fold_rows(task, 0)
    told = [dict.fromkeys(rows, 2.0), dict.fromkeys(rows, 3.0)]
    told[which][rows[1]] = value
    if task == SHEAR or np.isnan(value):
        with pytest.raises(BadRecipe, match=f"{rows[1]}.* no numbers"):
            matbench.fold_result(task, 0, *told, {})
    else:
        assert matbench.fold_result(task, 0, *told, {})["data"][rows[1]] == told[0][rows[1]]


def test_a_contribution_takes_the_place_of_an_earlier_one_and_of_nothing_else(runs, tmp_path):
    opened, out = [open_run(run) for run in runs], tmp_path / "out"
    write_matbench(opened, ABOUT, out, progress=False)
    old = out / "recipes" / "old.json"
    old.write_text("{}")
    (out / "notes.txt").write_text("mine")
    write_matbench(opened, ABOUT, out, progress=False)
    assert not old.exists()
    assert len(list((out / "recipes").iterdir())) == 5
    assert (out / "notes.txt").read_text() == "mine"
    for name in ("run.py", "recipes/mine.json"):
        kept = tmp_path / name[:3] / name
        kept.parent.mkdir(parents=True)
        kept.write_text("mine")
        with pytest.raises(BadRecipe, match="would be lost"):
            write_matbench(opened, ABOUT, tmp_path / name[:3], progress=False)
        assert kept.read_text() == "mine"


def test_a_changed_record_has_another_signature():
    told = matbench.record({}, {"algorithm": "é"}, datetime(2026, 1, 1, tzinfo=UTC))
    assert told["hash"] == matbench.signature(told)
    assert told["hash"] != matbench.signature(told | {"user_metadata": {"algorithm": "e"}})
