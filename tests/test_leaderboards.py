"""Leaderboards get what they ask for: whole folds, official names, signatures, zipped tables."""

import gzip
import hashlib
import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
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
from ase_crystalformer.leaderboards import jarvis, matbench
from ase_crystalformer.leaderboards.contribution import About, write_matbench
from ase_crystalformer.leaderboards.runs import outcomes_of
from ase_crystalformer.model import Card, CrystalModel
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.prepare import prepare
from ase_crystalformer.training.record import write_record

TASK = "matbench_perovskites"
ROWS = 12

#: Keys of a record of matbench 0.6, as in its repository (``matbench_v0.1_TPOT/results.json``).
RECORD = ["@class", "@module", "benchmark_name", "datestamp", "hash", "tasks", "user_metadata"]
TASK_KEYS = ["@class", "@module", "benchmark_name", "dataset_name", "results"]
FOLD_KEYS = ["data", "parameters", "scores", "uncertainty"]
SCORES = ["mae", "mape", "max_error", "rmse"]


# ------------------------------------------------------------------------------ MatBench


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
    assert len(found) == 953


@pytest.mark.parametrize(
    ("task", "number", "name"),
    [
        ("matbench_mp_e_form", 86392, "mb-mp-e-form-086392"),
        ("matbench_mp_gap", 58883, "mb-mp-gap-058883"),
        ("matbench_log_kvrh", 1, "mb-log-kvrh-00001"),
        ("matbench_phonons", 1265, "mb-phonons-1265"),
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


@pytest.fixture(autouse=True)
def small(monkeypatch, request):
    """A task of twelve rows where runs are asked for."""
    if "runs" in request.fixturenames:
        monkeypatch.setitem(matbench.TASKS, TASK, matbench.Task(ROWS, "formation_energy_per_cell"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Five runs of untrained models on twelve rows, one for each fold."""
    folder = tmp_path_factory.mktemp("runs")
    folds = KFold(5, shuffle=True, random_state=18012019).split(range(ROWS))
    fold_of = {int(number): fold for fold, (_, test) in enumerate(folds) for number in test}
    frames = []
    for number in range(ROWS):
        frames.append(bulk("NaCl", "rocksalt", a=5.2 + 0.05 * number))
        name = f"mb-perovskites-{number + 1:02d}"
        frames[-1].info = {"material_id": name, "e_form": -1.0 - number, "join": "heat"}
        frames[-1].info["fold_test"] = fold_of[number]
    write(folder / "all.extxyz", frames)
    packed = gzip.compress((folder / "all.extxyz").read_bytes())
    (folder / f"{TASK}.extxyz.gz").write_bytes(packed)
    return [make_run(folder, fold) for fold in range(5)]


def make_run(folder, fold):
    recipe = check_recipe(
        {
            "name": f"fold-{fold}",
            "targets": ["formation_energy_per_cell"],
            "data": {
                **{"packed": folder / f"packed-{fold}", "source": TASK},
                **{"directory": folder, "fold": fold},
            },
            "model": MODEL,
        }
    )
    prepare(recipe)
    run = folder / recipe.name
    facts = write_record(recipe, run)
    card = Card(name="toy", elements=(11, 17), training={**facts, "hours": 0.5})
    targets = [TARGETS["formation_energy_per_cell"]]
    CrystalModel("crystalformer", MODEL, targets=targets, card=card).save(run / "model")
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
    assert len(list((tmp_path / "out" / "recipes").iterdir())) == 5
    compile((tmp_path / "out" / "run.py").read_text(), "run.py", "exec")


def test_predictions_are_those_of_the_model_of_the_fold(runs, tmp_path):
    write_matbench(
        [one for run in runs for one in outcomes_of(run, progress=False)],
        About(name="toy", authors=""),
        tmp_path / "out",
    )
    with gzip.open(tmp_path / "out" / "results.json.gz", "rt") as file:
        found = json.load(file)["tasks"][TASK]["results"]["fold_3"]
    rows = [row for row in load(TASK, runs[3].parent) if row.id in found["data"]]
    crystals = [bulk("NaCl", "rocksalt", a=5.2 + 0.05 * (int(row.id[-2:]) - 1)) for row in rows]
    told = load_model(runs[3] / "model").predict(crystals)
    expected = np.array([one["formation_energy_per_cell"] for one in told])
    labels = np.array([row.labels["formation_energy_per_cell"] for row in rows])
    np.testing.assert_allclose([found["data"][row.id] for row in rows], expected, rtol=1e-5)
    assert found["scores"]["mae"] == pytest.approx(np.abs(expected - labels).mean(), rel=1e-5)


def test_what_the_leaderboard_would_refuse_is_refused(runs, tmp_path):
    outcomes = [one for run in runs for one in outcomes_of(run, progress=False)]
    about = About(name="toy", authors="")
    with pytest.raises(MissingData, match=r"lacks folds \[4\]"):
        write_matbench(outcomes[:4], about, tmp_path / "out")
    with pytest.raises(BadRecipe, match="another run of fold 0"):
        write_matbench([outcomes[0], *outcomes], about, tmp_path / "out")
    lost = outcomes[2].predicted.popitem()[0]
    with pytest.raises(MissingData, match=f"lack 1 .{lost}."):
        write_matbench(outcomes, about, tmp_path / "out")
    outcomes[2].predicted[lost] = float("nan")
    with pytest.raises(BadRecipe, match="no numbers"):
        write_matbench(outcomes, about, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UnknownName, match="matbench_steels"):
        matbench.fold_rows("matbench_steels", 0)


def test_a_changed_record_has_another_signature():
    told = matbench.record({}, {"algorithm": "é"}, datetime(2026, 1, 1, tzinfo=UTC))
    assert told["hash"] == matbench.signature(told)
    assert told["hash"] != matbench.signature(told | {"user_metadata": {"algorithm": "e"}})


# ------------------------------------------------------------------------------ JARVIS


@pytest.fixture
def gap(tmp_path):
    """A run whose test part has JVASP numbers."""
    rows = [bulk("NaCl", "rocksalt", a=5.2 + 0.05 * number) for number in range(10)]
    for number, atoms in enumerate(rows):
        part = "test" if number % 3 == 0 else "train"
        atoms.info = {"material_id": f"JVASP-{number}", "band_gap": 1.0 + number, "split": part}
    write(tmp_path / "own.extxyz", rows)
    source = {"packed": tmp_path / "packed", "source": str(tmp_path / "own.extxyz")}
    recipe = check_recipe({"name": "gap", "targets": ["band_gap"], "data": source, "model": MODEL})
    prepare(recipe)
    card = Card(name="toy", training={**write_record(recipe, tmp_path / "gap"), "hours": 0.25})
    model = CrystalModel("crystalformer", MODEL, targets=[TARGETS["band_gap"]], card=card)
    model.save(tmp_path / "gap" / "model")
    return tmp_path / "gap"


def test_a_contribution_is_read_as_the_leaderboard_reads_it(gap, tmp_path):
    truth = {"train": {}, "val": {}, "test": {f"JVASP-{n}": 1.0 + n for n in (0, 3, 6, 9)}}
    (tmp_path / "dft_3d_optb88vdw_bandgap.json").write_text(json.dumps(truth))
    command = ["contribute", str(gap), "--to", "jarvis", "-o", str(tmp_path / "out")]
    command += ["--benchmark", str(tmp_path / "dft_3d_optb88vdw_bandgap.json")]
    done = CliRunner().invoke(app, [*command, "--name", "toy", "--url", "https://example.org"])
    assert done.exit_code == 0, done.output
    name = "AI-SinglePropertyPrediction-optb88vdw_bandgap-dft_3d-test-mae.csv.zip"
    table = pd.read_csv(tmp_path / "out" / name)
    assert list(table) == ["id", "prediction"]
    assert table["id"].tolist() == list(truth["test"])
    joined = table.assign(actual=table["id"].map(truth["test"]))
    mae = metrics.mean_absolute_error(joined["actual"], joined["prediction"])
    assert f"{mae:.4g}" in done.stdout
    told = json.loads((tmp_path / "out" / "metadata.json").read_text())
    for key in ("model_name", "project_url", "team_name", "date_submitted", "author_email"):
        assert isinstance(told[key], str)
    assert told["time_taken_seconds"] == 900
    assert told["git_url"] == ["https://example.org"]
    assert (tmp_path / "out" / "run.sh").read_text().startswith("#!/bin/bash\n")


def test_another_test_set_is_refused(gap, tmp_path):
    [one] = outcomes_of(gap, progress=False)
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"test": {"JVASP-0": 1.0, "JVASP-1": 2.0}}))
    with pytest.raises(MissingData, match="JVASP-1"):
        jarvis.held_against(path, one.predicted)
    path.write_text("nothing")
    with pytest.raises(MissingData, match=r"other\.json is no benchmark"):
        jarvis.held_against(path, one.predicted)


def test_runs_that_do_not_fit_are_told(gap, tmp_path):
    for arguments, told in (
        ([str(tmp_path), "--to", "jarvis"], "is no run folder"),
        ([str(gap), str(gap), "--to", "jarvis"], "more than one run"),
        ([str(gap), "--to", "matbench"], "not trained on a fold"),
    ):
        done = CliRunner().invoke(app, ["contribute", *arguments, "-o", str(tmp_path / "out")])
        assert done.exit_code != 0
        assert told in " ".join(done.output.split())
