"""The command does what its help says, and ends with an honest exit code."""

import inspect
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, call, create_autospec

import pytest
from command import run
from typer.main import get_command

from ase_crystalformer.cli import app
from ase_crystalformer.errors import BadRecipe

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
    assert asked.call_args.kwargs["data_dir"] is None
    run("evaluate", "default-properties", "matbench-log-kvrh", "--data", "sets")
    assert asked.call_args.args[1:] == (Path("matbench-log-kvrh"),)
    assert asked.call_args.kwargs["data_dir"] == Path("sets")
    told = run("evaluate", "default-properties", "labelled.extxyz", "--data", "sets", code=2).stderr
    assert "labelled.extxyz is a path of its own" in told


# ----------------------------------------------------------------------------------- models


def test_models_are_listed_with_errors_units_and_licence(folder):
    head, potential, properties, _, more = run("models").stdout.splitlines()
    assert head.split()[:3] == ["name", "kind", "elements"]
    assert potential.split()[:3] == ["crystalformer-potential", "potential", "6"]
    assert properties.split()[:3] == ["crystalformer-properties", "properties", "6"]
    assert "band_gap 0.25 eV" in properties
    assert more.endswith("crystalformer models NAME")
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
