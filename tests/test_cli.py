"""The command does what its help says, tells what fails, and ends with an honest exit code."""

import inspect
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, call, create_autospec

import numpy as np
import pandas as pd
import pytest
import torch
from ase import Atoms
from ase.io import read, write
from typer.main import get_command
from typer.testing import CliRunner

from ase_crystalformer import pretrained
from ase_crystalformer.cli import app, featurize, predict
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.featurizer import CrystalformerFeaturizer
from ase_crystalformer.model import Card, CrystalModel
from ase_crystalformer.prediction import predict as predict_table
from ase_crystalformer.targets import TARGETS

SMALL = {"width": 16, "heads": 2, "blocks": 1, "cutoff": 4.0, "basis": 8, "basis_radius": 4.0}
KNOWN = (8, 11, 14, 17, 29, 30)
PROPERTIES = ["band_gap (eV)", "bulk_modulus (GPa)"]
COLUMNS = ["name", "formula", *PROPERTIES, "error"]

VERBS = {
    "finetune": [
        *["FRAMES", "--out", "--model", "--scale", "--replay", "--hold-out", "--set", "--resume"],
    ],
    "distill": [
        *["STRUCTURES", "--teacher", "--out", "--frames", "--rattle", "--strain", "--squeeze"],
        *["--seed", "--start", "--recipe", "--set"],
    ],
    "predict": ["STRUCTURES", "--model", "--property", "--out", "--device"],
    "relax": [
        *["STRUCTURES", "--model", "--fmax", "--steps", "--fixed-cell", "--cell"],
        *["--keep-symmetry", "--optimiser", "--dispersion", "--out", "--trajectories", "--device"],
    ],
    "screen": [
        *["CANDIDATES", "--out", "--where", "--hull", "--keep", "--model", "--property-model"],
        *["--closest", "--balanced", "--duplicates", "--fmax", "--steps", "--fixed-cell", "--top"],
        *["--structures", "--scheduler", "--cluster", "--device"],
    ],
    "featurize": ["STRUCTURES", "--out", "--model", "--device"],
    "calibrate": ["MODEL", "DATASET", "--out", "--seed", "--device"],
    "train": ["RECIPE.toml", "--set", "--row", "--folds", "--find-rate", "--resume"],
    "sweep": ["RECIPE.toml", "SPACE.toml", "--trials", "--out", "--set"],
    "table": ["RUNS", "--split", "--ensemble", "--out", "--device"],
    "evaluate": [
        *["MODEL", "DATASET", "--split", "--data", "--count", "--seed", "--set", "--out"],
        "--device",
    ],
    "contribute": [
        *["RUNS", "--to", "--out", "--name", "--authors", "--url", "--email", "--notes"],
        *["--benchmark", "--device"],
    ],
    "models": ["NAME"],
    "data list": ["--data-dir"],
    "data show": ["NAME"],
    "data fetch": ["NAME", "--to"],
}


def commands():
    """Every verb, those of a group by both of their names."""
    found = {}
    for verb, command in get_command(app).commands.items():
        verbs = getattr(command, "commands", {"": command})
        found |= {f"{verb} {name}".strip(): one for name, one in verbs.items()}
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of two small models with random weights, as if they came with the package."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    errors = {"band_gap": {"mae": 0.25, "unit": "eV", "n": 9, "on": "a test set"}}
    told = {"elements": KNOWN, "licence": "CC0-1.0", "citations": ("@article{one}",)}
    targets = [TARGETS["band_gap"], TARGETS["bulk_modulus"]]
    card = Card(name="crystalformer-properties", summary="For tests.", errors=errors, **told)
    CrystalModel("crystalformer", SMALL, targets=targets, card=card).save(folder / card.name)
    card = Card(name="crystalformer-potential", **told)
    CrystalModel("crystalformer", SMALL, energy_scale="mp", card=card).save(folder / card.name)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch, weights, rocksalt, diamond, fcc, wurtzite):
    """Where the command runs: four crystals, two files that cannot be computed."""
    monkeypatch.setattr(pretrained, "WEIGHTS", weights)
    monkeypatch.chdir(tmp_path)
    write("NaCl.cif", rocksalt)
    write("POSCAR", diamond, format="vasp")
    write("two.extxyz", [fcc, wurtzite])
    write("W.cif", Atoms("W", cell=[3, 3, 3], pbc=True))
    (tmp_path / "broken.cif").write_text("nothing")
    return tmp_path


GOOD = ["NaCl.cif", "POSCAR", "two.extxyz"]
NAMES = ["NaCl.cif", "POSCAR", "two.extxyz#0", "two.extxyz#1"]


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == code, result.output
    return result


def rows(text_or_path):
    return pd.read_csv(text_or_path, keep_default_na=False, na_values=[""])


def printed(result, tmp_path):
    (tmp_path / "printed.csv").write_text(result.stdout, encoding="utf-8")
    return rows(tmp_path / "printed.csv")


# ------------------------------------------------------------------------------------- help


def test_verbs_and_flags_grow_by_decision_only():
    found = {
        verb: [
            max(parameter.opts, key=len) if parameter.opts[0][0] == "-" else parameter.metavar
            for parameter in command.params
        ]
        for verb, command in commands().items()
    }
    assert found == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_examples_of_the_help_are_valid(verb):
    lines = [line.strip() for line in run(*verb.split(), "--help").stdout.splitlines()]
    examples = [line for line in lines if line.startswith(f"crystalformer {verb}")]
    assert examples
    command, words = commands()[verb], 1 + len(verb.split())
    for example in examples:
        arguments = shlex.split(example.partition(" > ")[0])[words:]
        assert command.make_context(verb, arguments).params


def test_a_mistyped_flag_stops_the_command():
    assert "--fmaxx" in run("relax", "a.cif", "--fmaxx", "1", code=2).stderr


def test_version():
    assert run("--version").stdout == f"crystalformer {version('ase-crystalformer')}\n"


def test_help_comes_without_the_heavy_libraries():
    code = (
        "import sys, ase_crystalformer.cli; print({'torch', 'pandas', 'matminer'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# ---------------------------------------------------------------------------------- predict


def test_predictions_are_those_of_the_library(folder):
    table = printed(run("predict", *GOOD), folder)
    assert table.columns.tolist() == COLUMNS
    assert table["name"].tolist() == NAMES
    assert table["formula"].tolist() == ["NaCl", "Si", "Cu", "ZnO"]
    assert table["error"].isna().all()
    structures = [read("NaCl.cif"), read("POSCAR"), *read("two.extxyz", ":")]
    expected = predict_table(structures, device="cpu", progress=False).drop(columns="error")
    np.testing.assert_allclose(table[PROPERTIES], expected, rtol=1e-4)


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_tables_are_the_same_in_every_format_and_chunk(suffix, folder, monkeypatch):
    sources = [*GOOD, "broken.cif"]
    expected = printed(run("predict", *sources, code=1), folder)
    monkeypatch.setattr(predict, "AT_ONCE", 2)
    run("predict", *sources, "-o", f"deep/out.{suffix}", code=1)
    table = getattr(pd, f"read_{suffix}")(f"deep/out.{suffix}")
    assert table.columns.tolist() == COLUMNS
    assert table["name"].tolist() == [*NAMES, "broken.cif"]
    assert table["error"].isna().tolist() == [True] * 4 + [False]
    np.testing.assert_allclose(table[PROPERTIES], expected[PROPERTIES], rtol=1e-3)
    assert [path.name for path in (folder / "deep").iterdir()] == [f"out.{suffix}"]


def test_structures_may_carry_their_predictions(folder):
    run("predict", *GOOD, "W.cif", "-p", "band_gap", "-o", "out.extxyz", code=1)
    table = printed(run("predict", *GOOD), folder)
    frames = read("out.extxyz", ":")
    assert [frame.info["name"] for frame in frames] == NAMES
    gaps = [frame.info["band_gap"] for frame in frames]
    np.testing.assert_allclose(gaps, table["band_gap (eV)"], rtol=1e-4)
    assert "bulk_modulus" not in frames[0].info


def test_what_fails_is_named_and_the_rest_is_done(folder):
    result = run("predict", "lost.cif", "W.cif", "NaCl.cif", "broken.cif", code=1)
    table = printed(result, folder)
    assert table["name"].tolist() == ["lost.cif", "W.cif", "NaCl.cif", "broken.cif"]
    assert table["band_gap (eV)"].isna().tolist() == [True, True, False, True]
    told = result.stderr.splitlines()
    assert told[0].startswith("lost.cif: There is no such file")
    assert told[1].startswith("W.cif: UnseenElement: ")
    assert told[2].startswith("broken.cif: This is no CIF")
    assert told[3] == "3 of 4 structures failed."


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-m", "crystalformer-propertie"], "Did you mean 'crystalformer-properties'?"),
        (["-p", "band_gab"], "Did you mean 'band_gap'?"),
        (["-o", "out.xls"], ".csv, .json, .parquet, .extxyz, .xyz"),
    ],
)
def test_misuse_is_told_before_anything_is_written(arguments, told, folder):
    before = sorted(folder.iterdir())
    result = run("predict", "NaCl.cif", "-o", "out.csv", *arguments, code=2)
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert sorted(folder.iterdir()) == before


def test_a_damaged_model_is_told(folder):
    (folder / "mine.safetensors").write_text("")
    (folder / "mine.json").write_text("{}")
    assert run("predict", "NaCl.cif", "-m", "mine", code=1).stderr.startswith("Error: ")


def test_an_interrupt_keeps_what_was_done(folder, monkeypatch):
    calls = []

    def interrupted(structures, *args, **kwargs):
        calls.append(structures)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict_table(structures, *args, **kwargs)

    monkeypatch.setattr(predict, "AT_ONCE", 2)
    monkeypatch.setattr("ase_crystalformer.prediction.predict", interrupted)
    result = CliRunner().invoke(app, ["predict", *GOOD, "-o", "out.csv"])
    assert result.exit_code not in (0, 2)
    assert "out.csv.partial" in result.stderr
    assert "Traceback" not in result.stderr
    assert rows("out.csv.partial")["name"].tolist() == NAMES[:2]
    assert not (folder / "out.csv").exists()


# ------------------------------------------------------------------------------------ relax


def test_relaxed_structures_carry_energy_forces_and_stress(folder):
    result = run("relax", *GOOD, "--steps", "2", "--fmax", "1e-9", "-o", "out.extxyz")
    table = printed(result, folder)
    energies = [frame.get_potential_energy() for frame in read("out.extxyz", ":")]
    assert [frame.info["name"] for frame in read("out.extxyz", ":")] == NAMES
    np.testing.assert_allclose(table["energy (eV)"], energies, rtol=1e-4)
    np.testing.assert_allclose(
        table["energy_per_atom (eV/atom)"], np.divide(energies, [2, 2, 1, 4]), rtol=1e-4
    )
    last = read("out.extxyz")
    assert np.linalg.norm(last.get_forces(), axis=1).max() > 0
    assert last.get_stress().shape == (6,)
    np.testing.assert_allclose(table["volume (Å³)"].iloc[-1], last.cell.volume, rtol=1e-4)
    assert not table["converged"].iloc[-1]
    assert "did not converge in 2 steps" in result.stderr


def test_flags_reach_the_relaxation(folder, monkeypatch):
    import ase_crystalformer.relaxation as library

    asked = create_autospec(library.relax, side_effect=library.relax)
    monkeypatch.setattr(library, "relax", asked)
    options = ["--fmax", "0.2", "--steps", "1", "--fixed-cell", "--dispersion", "d3bj"]
    run("relax", "NaCl.cif", *options)
    (_, told) = asked.call_args
    assert (told["fmax"], told["steps"], told["relax_cell"]) == (0.2, 1, False)
    assert told["dispersion"] == "d3bj"
    assert (folder / "relaxed.extxyz").exists()


def test_options_about_the_cell_may_not_contradict_each_other(folder):
    result = run("relax", "NaCl.cif", "--fixed-cell", "--cell", "volume", code=2)
    assert "Give one of them" in result.stderr
    assert not (folder / "relaxed.extxyz").exists()
    run("relax", "NaCl.cif", "--fixed-cell", "--cell", "none", "--steps", "0")


def test_a_relaxation_that_fails_has_a_row_and_no_structure(folder):
    result = run("relax", "broken.cif", "W.cif", "POSCAR", "--steps", "1", code=1)
    table = printed(result, folder)
    assert table["error"].isna().tolist() == [False, False, True]
    assert [frame.info["name"] for frame in read("relaxed.extxyz", ":")] == ["POSCAR"]
    assert "2 of 3 structures failed." in result.stderr


def test_properties_have_no_forces_to_relax(folder):
    result = run("relax", "NaCl.cif", "-m", "default-properties", code=2)
    assert "Error: " in result.stderr
    assert not (folder / "relaxed.extxyz").exists()


# -------------------------------------------------------------------------------- featurize


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_features_are_those_of_the_featurizer(suffix, folder, monkeypatch):
    monkeypatch.setattr(featurize, "AT_ONCE", 3)
    cifs = [(folder / "NaCl.cif").read_text(), "nothing", (folder / "NaCl.cif").read_text()]
    pd.DataFrame({"material_id": ["a", "b", "c"], "cif": cifs}).to_csv("crystals.csv")
    run("featurize", "crystals.csv", "POSCAR", "-o", f"out.{suffix}", code=1)
    table = getattr(pd, f"read_{suffix}")(f"out.{suffix}")
    featurizer = CrystalformerFeaturizer(device="cpu")
    labels = featurizer.feature_labels()
    assert table.columns.tolist() == ["name", "formula", *labels, "error"]
    assert table["name"].tolist() == [
        "crystals.csv#a",
        "crystals.csv#b",
        "crystals.csv#c",
        "POSCAR",
    ]
    assert table[labels].isna().all(axis=1).tolist() == [False, True, False, False]
    np.testing.assert_allclose(
        table[labels].iloc[3], featurizer.featurize(read("POSCAR")), rtol=1e-3
    )


# ----------------------------------------------------------------------- train and evaluate


@pytest.fixture
def training(monkeypatch, tmp_path):
    """Stands for the training that takes hours, and Lightning seconds to import."""
    asked = Mock(return_value=tmp_path / "runs" / "mine")
    module = SimpleNamespace(train=asked)
    monkeypatch.setitem(sys.modules, "ase_crystalformer.training.run", module)
    return asked


def test_train_passes_recipe_and_settings_on(folder, training):
    result = run("train", "mine.toml", "--set", "seed=1", "--set", "optim.epochs=3")
    assert result.stdout == f"{folder / 'runs' / 'mine'}\n"
    assert training.call_args == call(Path("mine.toml"), ["seed=1", "optim.epochs=3"], row=None)
    run("train", "mine.toml", "--resume", "elsewhere/mine")
    resumed = {"row": None, "runs": Path("elsewhere"), "resume": True}
    assert training.call_args == call(Path("mine.toml"), ['name="mine"'], **resumed)


def test_a_recipe_that_is_not_valid_is_misuse(training):
    training.side_effect = BadRecipe("encoders: no such key")
    assert run("train", "mine.toml", code=2).stderr == "Error: encoders: no such key\n"


@pytest.mark.slow
def test_training_takes_what_the_command_gives(folder):
    from ase_crystalformer.training.run import train as library

    (folder / "mine.toml").write_text("encoders = 'crystalformer'")
    told = run("train", "mine.toml", "--set", "seed=1", code=2).stderr
    assert "encoders" in told
    assert inspect.signature(library).bind("mine.toml", [], runs="runs", resume=True)


def test_evaluate_tells_errors_with_units(folder, monkeypatch):
    import ase_crystalformer.training.evaluate as library

    score = SimpleNamespace(mae=0.123456, rmse=0.2, unit="eV", n=7)
    asked = create_autospec(library.evaluate, return_value={"band_gap": score})
    monkeypatch.setattr(library, "evaluate", asked)
    result = run("evaluate", "default-properties", "labelled.extxyz", "--split", "all")
    assert asked.call_args.kwargs["split"] is None
    head, line = result.stdout.splitlines()
    assert head.split() == ["quantity", "MAE", "RMSE", "unit", "labels"]
    assert line.split() == ["band_gap", "0.1235", "0.2", "eV", "7"]


# ----------------------------------------------------------------------------------- models


def test_models_are_listed_with_errors_units_and_licence(folder):
    head, potential, properties = run("models").stdout.splitlines()
    assert head.split()[:3] == ["name", "kind", "elements"]
    assert potential.split()[:3] == ["crystalformer-potential", "potential", "6"]
    assert properties.split()[:3] == ["crystalformer-properties", "properties", "6"]
    assert "band_gap 0.25 eV on a test set" in properties
    assert properties.endswith("CC0-1.0")
    assert head.index("kind") == potential.index("potential", 20)


def test_a_model_is_described(folder):
    told = run("models", "default-properties").stdout
    for part in (
        "For tests.",
        "bulk_modulus (GPa)",
        "O Na Si Cl Cu Zn",
        "CC0-1.0",
        "@article{one}",
    ):
        assert part in told
