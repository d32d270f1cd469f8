"""Several batches in one step, or several processes: the gradient is that of one large batch."""

import csv
import multiprocessing
import os
import signal
import socket
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from small_runs import (
    TARGETS,
    crystals_with_forces,
    crystals_with_properties,
    packed_set,
    potential_recipe,
    property_recipe,
)
from torch.nn.parallel import DistributedDataParallel

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.batches import PackedData
from ase_crystalformer.training.build import build_model, build_objective
from ase_crystalformer.training.callbacks import EndAtOnce
from ase_crystalformer.training.module import Fitting
from ase_crystalformer.training.processes import is_first
from ase_crystalformer.training.run import fit
from ase_crystalformer.training.steps import StepSampler, known_labels

#: Steps without clipping, so that gradients are what they are.
OPTIM = {"epochs": 1, "clip": 1e9}


@pytest.fixture(scope="module", params=["properties", "potential"])
def recipe(request, tmp_path_factory):
    """A recipe whose batches are ragged: sizes and missing labels differ."""
    folder = tmp_path_factory.mktemp("packed") / request.param
    if request.param == "properties":
        packed_set(crystals_with_properties(), folder, *TARGETS)
        return property_recipe(folder, optim={**OPTIM, "budget": 600})
    packed_set(crystals_with_forces(), folder, "energy")
    return potential_recipe(folder, optim={**OPTIM, "budget": 220})


def with_optim(recipe, **changed):
    return replace(recipe, optim=replace(recipe.optim, **changed))


def batches_of(recipe):
    """Numbers of the crystals in each training batch of the first epoch."""
    data = PackedData(PackedCrystals(recipe.data.packed), recipe)
    data.trainer = type("Alone", (), {"global_rank": 0, "world_size": 1})()
    return [list(batch) for batch in data._sampler(training=True)]


def slopes(module):
    return torch.cat([weight.grad.flatten() for weight in module.parameters()]).numpy()


def gradient(recipe, *batches, together=True):
    """Gradient at the first weights: of one batch of all, or the mean of the batches' own."""
    packed = PackedCrystals(recipe.data.packed)
    train = PackedData(packed, recipe).train
    model = build_model(recipe, packed, train)
    objective = build_objective(recipe, model, packed, train)
    module = Fitting(model.train(), objective, recipe.optim)
    whole = [number for batch in batches for number in batch]
    for batch in [whole] if together else batches:
        loss = objective(model, *packed.batch(batch)) / (1 if together else len(batches))
        loss.backward()
    return slopes(module)


def off(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.fixture
def seen(monkeypatch):
    """Gradients as the optimiser gets them."""
    found = []
    monkeypatch.setattr(
        Fitting, "on_before_optimizer_step", lambda self, _: found.append(slopes(self))
    )
    return found


def test_a_step_of_several_batches_is_that_of_one_large_batch(recipe, tmp_path, seen):
    batches = batches_of(recipe)
    assert len({len(batch) for batch in batches}) > 1
    fit(with_optim(recipe, accumulate=3), tmp_path, progress=False)
    assert len(seen) == -(-len(batches) // 3)
    assert off(seen[0], gradient(recipe, *batches[:3])) < 1e-5
    assert off(gradient(recipe, *batches[:3], together=False), seen[0]) > 1e-2


def test_what_is_left_of_an_epoch_is_a_step_like_any_other(recipe, tmp_path, seen):
    batches = batches_of(recipe)
    fit(with_optim(recipe, accumulate=len(batches) + 5), tmp_path, progress=False)
    (found,) = seen
    assert off(found, gradient(recipe, *batches)) < 1e-5


def pose_as(rank, port):
    """Let this process seem one of two that torchrun has started."""
    os.environ |= {
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"},
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"},
        **{"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "tests"},
    }


def two_processes(work, recipe, *more):
    """Begin ``work(rank, port, recipe, *more)`` in two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    spread = replace(recipe, machine=replace(recipe.machine, devices=2, strategy="ddp"))
    both = [context.Process(target=work, args=(rank, port, spread, *more)) for rank in range(2)]
    for process in both:
        process.start()
    return both


def alone(rank, port, recipe, folder):
    """Train as one of two processes."""
    pose_as(rank, port)
    assert is_first() == (rank == 0)
    found = []
    Fitting.on_before_optimizer_step = lambda self, _: found.append(slopes(self))
    shared = DistributedDataParallel._sync_buffers

    def sync(self):
        assert self.module.training, "processes judge unequal numbers of batches"
        shared(self)

    DistributedDataParallel._sync_buffers = sync
    model = fit(recipe, folder / "run", progress=False)
    weights = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    np.savez(folder / f"{rank}.npz", slopes=np.array(found), weights=weights.numpy())


def test_two_processes_learn_as_one(recipe, tmp_path):
    batches = batches_of(recipe)
    both = two_processes(alone, recipe, tmp_path)
    for process in both:
        process.join(120)
        process.kill()
        assert process.exitcode == 0
    one, other = (np.load(tmp_path / f"{rank}.npz") for rank in range(2))
    assert np.array_equal(one["slopes"], other["slopes"])
    assert np.array_equal(one["weights"], other["weights"])
    assert len(one["slopes"]) == len(batches) // 2
    assert off(one["slopes"][0], gradient(recipe, *batches[:2])) < 1e-5
    assert off(gradient(recipe, *batches[:2], together=False), one["slopes"][0]) > 1e-2
    assert_loss_of_all_labels(recipe, tmp_path / "run")
    told = fit(recipe, tmp_path / "alone", progress=False).card.errors
    assert (tmp_path / "run" / "model.json").is_file()
    assert {name: entry["n"] for name, entry in told.items()} == {
        name: entry["n"] for name, entry in model_errors(tmp_path / "run").items()
    }


def assert_loss_of_all_labels(recipe, run):
    """The validation loss is that of one batch of what both processes have judged."""
    if not recipe.targets:
        return  # its objective has weights of its own, which are gone
    packed, model = PackedCrystals(recipe.data.packed), CrystalModel.load(run / "model")
    objective = build_objective(recipe, model, packed, packed.where("train"))
    whole = float(objective(model, *packed.batch(packed.where("val"))).detach())
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    [told] = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    assert told == pytest.approx(whole, rel=1e-4)


class Tell(Callback):
    """Say that a step is done."""

    def __init__(self, stepped):
        self.stepped = stepped

    def on_train_batch_end(self, *args):
        self.stepped.set()


def endless(rank, port, recipe, folder, stepped):
    """Train as one of two processes, which nothing but a signal ends."""
    pose_as(rank, port)
    fit(recipe, folder / "run", progress=False, callbacks=[Tell(stepped[rank])])


def test_the_signal_to_terminate_ends_all_processes(recipe, tmp_path):
    stepped = [multiprocessing.get_context("fork").Event() for _ in range(2)]
    both = two_processes(endless, with_optim(recipe, epochs=2_000), tmp_path, stepped)
    try:
        assert all(event.wait(120) for event in stepped)
        for process in both:
            process.terminate()
        for process in both:
            process.join(30)
        assert [process.exitcode for process in both] == [-signal.SIGTERM] * 2
    finally:
        for process in both:
            process.kill()


def test_the_first_process_ends_those_it_has_started(monkeypatch):
    ended, handlers = [], {}
    trainer = Mock(spec=Trainer, world_size=2, is_global_zero=True)
    trainer.strategy.launcher.kill = lambda signum: ended.append(("others", signum))
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(os, "kill", lambda pid, signum: ended.append((pid, signum)))
    EndAtOnce().on_train_start(trainer, Mock(spec=Fitting))
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert ended == [("others", signal.SIGTERM), (os.getpid(), signal.SIGTERM)]
    assert handlers[signal.SIGTERM] == signal.SIG_DFL


def model_errors(folder):
    return CrystalModel.load(folder / "model").card.errors


def test_labels_are_counted_as_the_objective_counts_them(recipe):
    packed = PackedCrystals(recipe.data.packed)
    known = known_labels(packed)
    for number in range(len(packed)):
        graph, labels = packed.batch([number])
        assert known["atoms"][number] == graph.atoms
        assert known["forces"][number] == labels["forces"].isfinite().all(1).sum()
        assert known["stress"][number] == labels["stress"].isfinite().all()
        for name in packed.labels:
            assert known[name][number] == labels[name].isfinite().sum()


def test_resuming_inside_an_epoch_keeps_the_steps(recipe):
    data = PackedData(PackedCrystals(recipe.data.packed), recipe)
    data.trainer = type("Alone", (), {"global_rank": 1, "world_size": 2})()
    whole, rest = (
        StepSampler(data._sampler(training=True), known_labels(data.packed), 2) for _ in range(2)
    )
    rest.sampler.skip = 2
    assert list(rest) == list(whole)[2:]
    assert len(rest) == len(whole)
