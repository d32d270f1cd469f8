"""Learning rates are found where the loss falls; sweeps go on, cut off and name the best."""

import json
import re

import pytest
import torch
from small_runs import TARGETS, crystals_with_properties, packed_set, property_recipe
from typer.testing import CliRunner

from ase_crystalformer.cli import app
from ase_crystalformer.errors import BadRecipe, MissingExtra
from ase_crystalformer.training import loggers, run
from ase_crystalformer.training.loggers import loggers_of
from ase_crystalformer.training.rate_finder import find_rate
from ase_crystalformer.training.sweep import read_space, sweep

RECIPE = """
targets = ["band_gap"]
[data]
packed = "{packed}"
[model]
cutoff = 4.0
width = 16
heads = 2
blocks = 1
[optim]
epochs = 3
budget = 1000
[machine]
accelerator = "cpu"
devices = 1
checkpoint_minutes = 60
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A packed set of crystals with properties."""
    folder = tmp_path_factory.mktemp("packed") / "set"
    packed_set(crystals_with_properties(), folder, *TARGETS)
    return folder


@pytest.fixture
def recipe(packed, tmp_path):
    """A recipe file."""
    path = tmp_path / "small.toml"
    path.write_text(RECIPE.format(packed=packed))
    return path


def test_the_suggested_rate_lies_where_the_loss_falls(packed, capfd):
    recipe = property_recipe(packed, optim={"budget": 10**6})
    found = find_rate(recipe, steps=60, progress=False)
    assert capfd.readouterr().out == ""
    assert found.rates[0] == pytest.approx(1e-6)
    assert (found.rates[1:] > found.rates[:-1]).all()
    assert 1e-5 < found.suggestion < 0.5
    place = abs(found.rates - found.suggestion).argmin()
    assert found.losses[min(place + 3, len(found.losses) - 1)] < found.losses[max(place - 3, 0)]


def test_a_rate_is_found_on_the_command_line(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", str(recipe), "--find-rate"])
    assert result.exit_code == 0, result.output
    assert "--set optim.peak_lr=" in result.output
    assert (tmp_path / "small-rate.png").read_bytes().startswith(b"\x89PNG")
    inside = ["--set", 'name="sub/x"']
    result = CliRunner().invoke(app, ["train", str(recipe), "--find-rate", *inside])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "sub" / "x-rate.png").is_file()
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def fits(monkeypatch):
    """Stands for training: the loss is the distance of the rate from 1e-3, on a log scale."""
    pytest.importorskip("optuna")
    from math import log10
    from unittest.mock import Mock

    from lightning.pytorch import LightningModule, Trainer

    done = []

    def fit(recipe, folder, *, progress, callbacks):
        (cut,) = callbacks
        if recipe.model["width"] == 7:
            raise BadRecipe("width 7 does not fit heads")
        for epoch in range(4):
            done.append((folder.name, epoch))
            loss = abs(log10(recipe.optim.peak_lr) + 3) + 1 / (1 + epoch)
            told = {"callback_metrics": {"val/loss": loss}, "current_epoch": epoch}
            cut.on_validation_end(Mock(spec=Trainer, **told), Mock(spec=LightningModule))

    monkeypatch.setattr("ase_crystalformer.training.sweep.fit", fit)
    return done


SPACE = '"optim.peak_lr" = { low = 1e-6, high = 1.0, log = true }\n"model.width" = [16, 32]\n'


def test_a_sweep_finds_the_best_cuts_off_and_goes_on(recipe, tmp_path, fits):
    space = tmp_path / "space.toml"
    space.write_text(SPACE)
    first = sweep(recipe, space, tmp_path / "study", trials=10)
    assert first.finished == 10
    assert len(fits) < 10 * 4, "no trial was cut off"
    again = sweep(recipe, space, tmp_path / "study", trials=10)
    assert again == first
    more = sweep(recipe, space, tmp_path / "study", trials=25)
    assert more.finished == 25
    assert len({name for name, _ in fits}) == 25
    assert more.loss <= first.loss
    assert more.loss < 0.25 + 1.0
    rate = float(dict(entry.split("=") for entry in more.overrides)["optim.peak_lr"])
    assert 1e-4 < rate < 1e-2
    told = json.loads((tmp_path / "study" / "best.json").read_text())
    assert told["run"] == more.run.name


def test_a_trial_that_cannot_be_is_left_out(recipe, tmp_path, fits, caplog, capfd):
    space = tmp_path / "space.toml"
    space.write_text(SPACE.replace("[16, 32]", "[16, 7]"))
    found = sweep(recipe, space, tmp_path / "study", trials=6)
    assert found.failed > 0
    told = [one.getMessage() for one in caplog.records if "failed" in one.getMessage()]
    assert len(told) == found.failed
    assert re.fullmatch(
        r"Trial \d \(optim.peak_lr=\S+, model.width=7\) failed: width 7 does not .*", told[0]
    )
    assert "Traceback" not in capfd.readouterr().err + caplog.text
    assert found.finished + found.failed == 6
    assert "model.width=16" in found.overrides


def test_a_trial_without_memory_ends_alone_and_each_has_one_device(recipe, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    machines = []

    def fit(recipe, folder, *, progress, callbacks):
        machines.append(recipe.machine)
        if len(machines) == 1:
            raise torch.OutOfMemoryError
        callbacks[0].trial.report(1.0, 0)

    monkeypatch.setattr("ase_crystalformer.training.sweep.fit", fit)
    (tmp_path / "space.toml").write_text(SPACE)
    told = {"trials": 2, "overrides": ["machine.devices=4", "machine.strategy='ddp'"]}
    assert sweep(recipe, tmp_path / "space.toml", tmp_path / "study", **told).finished == 1
    assert {(one.devices, one.nodes, one.strategy) for one in machines} == {(1, 1, "auto")}


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_a_sweep_of_several_processes_is_refused(recipe, tmp_path, fits, monkeypatch, name):
    (tmp_path / "space.toml").write_text(SPACE)
    monkeypatch.setenv(name, "2")
    with pytest.raises(BadRecipe, match="A sweep is one process"):
        sweep(recipe, tmp_path / "space.toml", tmp_path / "study", trials=1)
    assert fits == []


@pytest.mark.parametrize("other", [["--folds"], ["--resume", "runs/x"]])
def test_a_search_for_a_rate_trains_nothing_and_says_so(recipe, other):
    result = CliRunner().invoke(app, ["train", str(recipe), "--find-rate", *other])
    assert result.exit_code == 2
    assert f"drop {other[0]}" in result.output


def test_a_sweep_trains(recipe, tmp_path):
    pytest.importorskip("optuna")
    space = tmp_path / "space.toml"
    space.write_text('"optim.peak_lr" = [1e-9, 1e-2]\n"seed" = { low = 0, high = 3 }\n')
    found = sweep(recipe, space, tmp_path / "study", trials=3, progress=False)
    assert (found.run / "model.json").is_file()
    assert found.finished == 3


@pytest.mark.parametrize(
    "entry",
    [
        *('"a.b" = 3', '"a.b" = []', '"a.b" = { low = 1 }', "[a]\nb = 1"),
        *('"a.b" = { low = 2, high = 1 }', '"a.b" = { low = "1", high = 2 }'),
        *('"a.b" = { low = 0, high = 2, log = true }', '"a.b" = { low = 1, high = inf }'),
    ],
)
def test_a_space_that_is_none_is_refused(tmp_path, entry):
    (tmp_path / "space.toml").write_text(entry)
    with pytest.raises(BadRecipe, match="is no choice"):
        read_space(tmp_path / "space.toml")


def test_entries_that_do_not_exist_are_refused_at_once(recipe, tmp_path, fits):
    space = tmp_path / "space.toml"
    space.write_text('"optim.rate" = [1e-3, 1e-2]')
    with pytest.raises(BadRecipe, match=r"optim\.rate: there is no such key"):
        sweep(recipe, space, tmp_path / "study", trials=3)
    assert not (tmp_path / "study").exists()


def test_loggers_are_those_asked_for(tmp_path, monkeypatch):
    usual = loggers_of(None, tmp_path, "mine")
    assert [type(logger).__name__ for logger in usual] == ["CSVLogger", "TensorBoardLogger"]
    assert [type(one).__name__ for one in loggers_of(["csv"], tmp_path, "mine")] == ["CSVLogger"]
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    assert len(loggers_of(None, tmp_path, "mine")) == 1
    with pytest.raises(MissingExtra, match=r"ase-crystalformer\[wandb\]"):
        loggers_of(["csv", "wandb"], tmp_path, "mine")


def test_no_log_is_written_that_was_not_asked_for(packed, tmp_path):
    recipe = property_recipe(packed, machine={"loggers": ["csv"]}, optim={"epochs": 1})
    run.fit(recipe, tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "metrics.csv").is_file()
    assert not (tmp_path / "run" / "logs").exists()


def test_weights_and_biases_keeps_a_run_offline(packed, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    recipe = property_recipe(packed, machine={"loggers": ["wandb"]}, optim={"epochs": 1})
    run.fit(recipe, tmp_path / "run", progress=False)
    wandb.finish()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
