"""A run that was broken, or killed, goes on as if nothing had been."""

import logging
import multiprocessing
import os
import signal
from zipfile import ZipFile

import pytest
from fsspec.implementations.local import LocalFileSystem
from small_runs import (
    Stopped,
    assert_same_weights,
    potential_recipe,
    property_recipe,
)

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.batches import PackedData
from ase_crystalformer.training.module import Fitting
from ase_crystalformer.training.run import fit, train


@pytest.fixture
def stop_after(monkeypatch):
    """Break a run after so many steps."""
    step = Fitting.training_step

    def arrange(number):
        def broken(self, batch, index):
            if self.trainer.global_step == number:
                raise Stopped
            return step(self, batch, index)

        monkeypatch.setattr(Fitting, "training_step", broken)

    return arrange


@pytest.mark.parametrize(
    ("stop", "optim"),
    [(2, {}), (9, {"ema": None, "swa_last": 0.5}), (11, {"ema": 0.9, "swa_last": 0.3})],
)
def test_a_broken_run_resumes_as_if_unbroken(potential, tmp_path, stop_after, stop, optim):
    recipe = potential_recipe(
        potential,
        optim={"budget": 150, **optim},
        machine={"checkpoint_minutes": 1e-6},
        data={"share": {"eos_vasp_pbe": 0.7}},
    )
    unbroken = fit(recipe, tmp_path / "unbroken", progress=False)
    stop_after(stop)
    with pytest.raises(Stopped):
        fit(recipe, tmp_path / "broken", progress=False)
    stop_after(None)
    resumed = fit(recipe, tmp_path / "broken", resume=True, progress=False)
    assert_same_weights(unbroken, resumed)
    assert resumed.card.errors == unbroken.card.errors


@pytest.mark.parametrize("optim", [{"budget": 10**6}, {"budget": 150, "accumulate": 50}])
def test_a_run_of_one_step_in_an_epoch_resumes_as_if_unbroken(
    potential, tmp_path, stop_after, optim
):
    recipe = potential_recipe(
        potential,
        optim={"epochs": 4, "ema": 0.9, **optim},
        machine={"checkpoint_minutes": 1e-6},
        data={"augment": True},
    )
    unbroken = fit(recipe, tmp_path / "unbroken", progress=False)
    stop_after(2)
    with pytest.raises(Stopped):
        fit(recipe, tmp_path / "broken", progress=False)
    assert (tmp_path / "broken" / "checkpoints" / "last.ckpt").is_file()
    stop_after(None)
    resumed = fit(recipe, tmp_path / "broken", resume=True, progress=False)
    assert_same_weights(unbroken, resumed)
    assert resumed.card.errors == unbroken.card.errors
    assert resumed.card.training["epochs"] == 4


def test_a_run_broken_while_it_is_judged_resumes_as_if_unbroken(potential, tmp_path, monkeypatch):
    recipe = potential_recipe(
        potential, optim={"budget": 150, "ema": 0.9}, machine={"checkpoint_minutes": 1e-6}
    )
    unbroken = fit(recipe, tmp_path / "unbroken", progress=False)
    judge = Fitting.validation_step

    def broken(self, batch, index):
        raise Stopped

    monkeypatch.setattr(Fitting, "validation_step", broken)
    with pytest.raises(Stopped):
        fit(recipe, tmp_path / "broken", progress=False)
    monkeypatch.setattr(Fitting, "validation_step", judge)
    resumed = fit(recipe, tmp_path / "broken", resume=True, progress=False)
    assert_same_weights(unbroken, resumed)


def test_a_resumed_run_sees_every_crystal_once_in_an_epoch(
    properties, tmp_path, stop_after, monkeypatch
):
    recipe = property_recipe(properties, machine={"checkpoint_minutes": 1e-6})
    seen = []
    batch = PackedCrystals.batch
    monkeypatch.setattr(
        PackedCrystals, "batch", lambda self, which: seen.append(which) or batch(self, which)
    )
    unbroken = fit(recipe, tmp_path / "unbroken", progress=False)
    assert unbroken.card.training["epochs"] == 2
    whole, seen[:] = list(seen), []
    stop_after(2)
    with pytest.raises(Stopped):
        fit(recipe, tmp_path / "broken", progress=False)
    before, seen[:] = seen[:2], []
    stop_after(None)
    fit(recipe, tmp_path / "broken", resume=True, progress=False)
    assert before + seen == whole


def test_a_crash_leaves_the_model_of_the_last_epoch(potential, tmp_path, stop_after):
    packed = PackedCrystals(potential)
    recipe = potential_recipe(potential, optim={"epochs": 3, "budget": 150})
    data = PackedData(packed, recipe)
    stop_after(10)
    with pytest.raises(Stopped):
        fit(recipe, tmp_path, progress=False)
    model = CrystalModel.load(tmp_path / "model")
    assert 1 <= model.card.training["epochs"] < 3
    assert model.energy(packed.batch(data.val)[0]).forces.isfinite().all()


def test_a_finished_run_goes_on_for_more_epochs(properties, tmp_path):
    fit(property_recipe(properties, optim={"epochs": 2}), tmp_path, progress=False)
    fit(property_recipe(properties, optim={"epochs": 3}), tmp_path, resume=True, progress=False)
    assert CrystalModel.load(tmp_path / "model").card.training["epochs"] == 3


def test_what_was_run_is_not_overwritten_and_metrics_are_kept(properties, tmp_path, caplog):
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        f"targets = ['band_gap']\n[data]\npacked = '{properties}'\n"
        "[model]\ncutoff = 4.0\nwidth = 16\nheads = 2\nblocks = 1\n"
        "[optim]\nepochs = 1\nbudget = 500\n[machine]\naccelerator = 'cpu'\ndevices = 1\n"
    )
    folder = train(recipe, runs=tmp_path / "runs", progress=False)
    with pytest.raises(BadRecipe, match="holds a run already"):
        train(recipe, runs=tmp_path / "runs", progress=False)
    (folder / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(BadRecipe, match="no checkpoint to continue from"):
        train(recipe, runs=tmp_path / "runs", resume=True, progress=False)
    often = ["machine.checkpoint_minutes=1e-6", "name='often'"]
    folder = train(recipe, often, runs=tmp_path / "runs", progress=False)
    longer = [*often, "optim.epochs=2"]
    with caplog.at_level(logging.WARNING):
        train(recipe, longer, runs=tmp_path / "runs", resume=True, progress=False)
    assert "began with another optim" in caplog.text
    assert (folder / "metrics.1.csv").exists()
    assert (folder / "metrics.csv").exists()


def test_a_checkpoint_runs_no_code(properties, tmp_path):
    recipe = property_recipe(properties)
    fit(recipe, tmp_path, progress=False)
    content = b"cos\nmkdir\n(V" + str(tmp_path / "owned").encode() + b"\ntR."
    with ZipFile(tmp_path / "checkpoints" / "last.ckpt", "w") as archive:
        archive.writestr("last/data.pkl", content)
        archive.writestr("last/version", "3")
        archive.writestr("last/byteorder", "little")
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        fit(recipe, tmp_path, resume=True, progress=False)
    assert not (tmp_path / "owned").exists()


def killed(recipe, folder, step, writing):
    """Train in a process that is killed at a step, or while it writes a checkpoint after it."""
    training_step, open_file = Fitting.training_step, LocalFileSystem.open

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    def broken_step(self, batch, index):
        if self.trainer.global_step == step:
            if not writing:
                kill()
            LocalFileSystem.open = broken_open
        return training_step(self, batch, index)

    def broken_open(self, path, mode="rb", **options):
        file = open_file(self, path, mode, **options)
        if "w" in mode and str(path).endswith(".ckpt"):
            file.write(b"half")
            file.flush()
            kill()
        return file

    Fitting.training_step = broken_step
    fit(recipe, folder, progress=False)


@pytest.mark.parametrize("writing", [False, True])
def test_a_killed_run_resumes_as_if_unbroken(potential, tmp_path, writing):
    recipe = potential_recipe(
        potential,
        optim={"budget": 150, "accumulate": 2},
        data={"augment": True},
        machine={"checkpoint_minutes": 1e-6},
    )
    unbroken = fit(recipe, tmp_path / "unbroken", progress=False)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=killed, args=(recipe, tmp_path / "broken", 7, writing))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert CrystalModel.load(tmp_path / "broken" / "model").card.training["epochs"] == 1
    resumed = fit(recipe, tmp_path / "broken", resume=True, progress=False)
    assert_same_weights(unbroken, resumed)
    assert resumed.card.errors == unbroken.card.errors
