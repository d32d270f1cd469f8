"""JARVIS-Leaderboard gets what it asks for: tables it can read, in its units."""

import json

import pandas as pd
import pytest
from ase.build import bulk
from ase.io import write
from sklearn import metrics
from small_runs import MODEL
from typer.testing import CliRunner

from ase_crystalformer import load_model
from ase_crystalformer.cli import app
from ase_crystalformer.errors import MissingData
from ase_crystalformer.leaderboards import contribution, jarvis
from ase_crystalformer.leaderboards.runs import open_run
from ase_crystalformer.model import Card, CrystalModel
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.prepare import prepare
from ase_crystalformer.training.record import write_record

ROWS = range(10)
NAMES = tuple(f"JVASP-{number}" for number in ROWS)


def salts():
    return [bulk("NaCl", "rocksalt", a=5.2 + 0.05 * number) for number in ROWS]


def make_run(folder, name, names=NAMES, **labels):
    """A run of an untrained model; crystals are named as those of JARVIS, unless told."""
    rows = salts()
    for number, atoms in enumerate(rows):
        part = "test" if number % 3 == 0 else "train"
        atoms.info = {"material_id": names[number], "split": part}
        atoms.info |= {label: values[number] for label, values in labels.items()}
    folder.mkdir(exist_ok=True)
    write(folder / "own.extxyz", rows)
    source = {"packed": folder / "packed", "source": str(folder / "own.extxyz")}
    recipe = check_recipe({"name": name, "targets": [*labels], "data": source, "model": MODEL})
    prepare(recipe)
    card = Card(name="toy", training={**write_record(recipe, folder / name), "hours": 0.25})
    model = CrystalModel("crystalformer", MODEL, targets=[TARGETS[x] for x in labels], card=card)
    model.save(folder / name / "model")
    return folder / name


@pytest.fixture
def gap(tmp_path):
    return make_run(tmp_path, "gap", band_gap=[1.0 + number for number in ROWS])


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
    tested = open_run(gap).tested("band_gap")
    assert tested == [f"JVASP-{number}" for number in (0, 3, 6, 9)]
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"test": {"JVASP-0": 1.0, "JVASP-1": 2.0}}))
    with pytest.raises(MissingData, match="JVASP-1"):
        jarvis.test_set(path, tested)
    path.write_text("nothing")
    with pytest.raises(MissingData, match=r"other\.json is no benchmark"):
        jarvis.test_set(path, tested)


def test_moduli_are_in_gpa_and_none_at_all_is_a_label(tmp_path):
    """The first crystal of the test part has a modulus of 0 GPa."""
    run = make_run(tmp_path, "moduli", bulk_modulus=[10.0 * number for number in ROWS])
    expected = [one["bulk_modulus"] for one in load_model(run / "model").predict(salts()[::3])]
    labels = [0.0, 30.0, 60.0, 90.0]
    command = ["contribute", str(run), "--to", "jarvis", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    name = "AI-SinglePropertyPrediction-bulk_modulus_kv-dft_3d-test-mae.csv.zip"
    found = pd.read_csv(tmp_path / "out" / name)["prediction"]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert float(done.stdout.split()[-1]) == pytest.approx(
        metrics.mean_absolute_error(labels, expected), rel=1e-3
    )


def test_recipes_are_called_by_property_whatever_runs_are_called(gap, tmp_path):
    moduli = [10.0 * number for number in ROWS]
    both = {"bulk_modulus": moduli, "shear_modulus": moduli}
    other = make_run(tmp_path / "other", "gap", **both)
    command = ["contribute", str(gap), str(other), "--to", "jarvis", "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(app, command).exit_code == 0
    found = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("out/recipes/*")}
    assert {name: one["targets"] for name, one in found.items()} == {
        "band_gap.json": ["band_gap"],
        "bulk_modulus+shear_modulus.json": [*both],
    }
    assert len(list(tmp_path.glob("out/*.csv.zip"))) == 3
    CliRunner().invoke(app, ["contribute", str(gap), "--to", "jarvis", "-o", str(tmp_path / "out")])
    assert len(list(tmp_path.glob("out/*.csv.zip"))) == 1
    assert [path.name for path in tmp_path.glob("out/recipes/*")] == ["band_gap.json"]


def test_runs_that_do_not_fit_are_not_even_predicted(gap, tmp_path, monkeypatch):
    monkeypatch.delattr(contribution, "outcomes_of")
    for arguments, told in (
        ([str(tmp_path), "--to", "jarvis"], "is no run folder"),
        ([str(gap), str(gap), "--to", "jarvis"], "more than one run"),
        ([str(gap), "--to", "matbench"], "no whole task of MatBench"),
    ):
        done = CliRunner().invoke(app, ["contribute", *arguments, "-o", str(tmp_path / "out")])
        assert done.exit_code != 0
        assert told in " ".join(done.output.split())
