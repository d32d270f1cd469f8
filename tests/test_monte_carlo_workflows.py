"""The programs run as their help says, on something tiny."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.io import read, write

FOLDER = Path(__file__).parents[1] / "workflows"
SWAP = "swap_monte_carlo.py"
LEARN = "self_learning_monte_carlo.py"


@pytest.fixture
def run(monkeypatch, tmp_path):
    def run(program, *arguments):
        given = [*map(str, arguments), "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", [program, *given])
        runpy.run_path(str(FOLDER / program), run_name="__main__")

    return run


def test_learning_tells_how_often_every_model_is_accepted(run, tmp_path, capsys):
    run(LEARN, "--size", 2, "--shells", 2, "--rounds", 1, "--chains", 2, "--steps", 4)
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["model"].tolist() == ["single moves", "linear", "1 layers"]
    assert table["accepted (%)"].between(0, 100).all()
    assert "moves per exact energy" in capsys.readouterr().out
    energies = pd.read_csv(tmp_path / "energies.csv")
    assert energies["linear"].count() == 2 * 4


def test_swapping_is_guided_and_goes_on_where_it_stopped(run, tmp_path):
    alloy = bulk("Cu", a=3.87, cubic=True).repeat((2, 1, 1))
    alloy.symbols[::2] = "Au"
    write(tmp_path / "alloy.cif", alloy)
    settings = [tmp_path / "alloy.cif", "--temperatures", 500, 5000, "--every", 2]
    guided = ["--calculator", "default", "--guide", "emt", "--moves", 2]
    run(SWAP, *settings, *guided, "--steps", 4)
    run(SWAP, *settings, *guided, "--steps", 2, "--resume")
    with np.load(tmp_path / "chain.npz") as chain:
        assert chain["steps"] == 6
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["temperature (K)"].tolist() == [500, 5000]
    assert table["unlike neighbours"].between(0, 1).all()
    last = read(tmp_path / "swaps.traj", ":")
    assert [crystal.symbols.count("Au") for crystal in last] == [4, 4]


def test_any_calculator_may_sample_or_guide(run, tmp_path):
    steps = ["--steps", 1, "--every", 1, "--moves", 1]
    by_emt = ["--calculator", "ase.calculators.emt:EMT", "--guide", "lj"]
    run(SWAP, "--temperatures", 500, *by_emt, *steps)
    named = pd.read_csv(tmp_path / "table.csv")
    run(SWAP, "--temperatures", 500, "--guide", "lj", *steps)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table.csv"), named)


def test_fewer_steps_than_one_look_takes_are_refused_before_anything_runs(run, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(SWAP, "--steps", 3, "--every", 4)
    assert "--steps is 3 and --every is 4" in capsys.readouterr().err
    assert not (tmp_path / "chain.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.cif"], "nowhere.cif"),
        (["--calculator", "defalt"], "Did you mean 'default'"),
        (["--guide", "ase.calculators.emt:EMMT"], "no callable 'EMMT'"),
        (["--resume"], "holds no chain"),
        (["--temperatures", 300, -5], "a positive number"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(run, arguments, told):
    with pytest.raises(SystemExit, match=told):
        run(SWAP, *arguments, "--steps", 1, "--every", 1)


def test_a_single_chain_has_a_mean_and_no_error(run, tmp_path):
    run(LEARN, "--size", 2, "--shells", 1, "--rounds", 1, "--chains", 1, "--steps", 2)
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["energy (eV/site)"].notna().all()
    assert table["error (eV/site)"].isna().all()


@pytest.mark.parametrize("program", [SWAP, LEARN])
def test_help_has_an_example(run, capsys, program):
    with pytest.raises(SystemExit, match="0"):
        run(program, "--help")
    assert f"python workflows/{program}" in capsys.readouterr().out
