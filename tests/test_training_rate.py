"""Rates follow their schedules, and the averaged weights are what is saved."""

import pytest
import torch
from small_runs import (
    assert_same_weights,
    property_recipe,
)

from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.module import Fitting, rate
from ase_crystalformer.training.run import fit
from ase_crystalformer.training.schedules import LEAST_RATE, SCHEDULES
from ase_crystalformer.training.settings import Optim


@pytest.fixture
def trail(monkeypatch):
    """Weights after every step, as one vector each."""
    found = []

    def remember(self, *_):
        weights = [w.detach().flatten() for w in self.model.parameters()]
        found.append(torch.cat(weights).clone())

    monkeypatch.setattr(Fitting, "on_train_batch_end", remember)
    return found


def by_decay(trail, decay):
    average = trail[0]
    for number, weights in enumerate(trail[1:], 1):
        kept = min(decay, (1 + number) / (10 + number))
        average = kept * average + (1 - kept) * weights
    return average


@pytest.mark.parametrize(
    ("optim", "average"),
    [
        ({"ema": 0.5}, lambda trail: by_decay(trail, 0.5)),
        ({"ema": None}, lambda trail: trail[-1]),
        ({"ema": 0.5, "swa_last": 0.25}, lambda trail: torch.stack(trail[-2:]).mean(0)),
    ],
)
def test_the_averaged_weights_are_saved(properties, tmp_path, trail, optim, average):
    optim = {"epochs": 8, "budget": 10**6, **optim}
    fitted = fit(property_recipe(properties, optim=optim), tmp_path, progress=False)
    saved = CrystalModel.load(tmp_path / "model")
    assert len(trail) == 8
    vector = torch.cat([weight.detach().flatten() for weight in saved.parameters()])
    torch.testing.assert_close(vector, average(trail))
    assert optim["ema"] is None or not torch.allclose(vector, trail[-1], rtol=1e-4)
    assert_same_weights(saved, fitted)


def shares(steps, **optim):
    return [rate(step, steps, Optim(**optim)) for step in range(steps)]


def test_a_cosine_rises_and_falls():
    rates = [rate(step, 100, Optim(warmup=0.1)) for step in range(101)]
    assert rates.index(max(rates)) in (9, 10)
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == LEAST_RATE
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.3), (57, 0.1)])
def test_one_cycle_is_that_of_torch(steps, warmup):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1.0, total_steps=steps, pct_start=warmup, cycle_momentum=False
    )
    expected = []
    for _ in range(steps):
        expected += theirs.get_last_lr()
        optimiser.step()
        if len(expected) < steps:
            theirs.step()
    assert shares(steps, schedule="onecycle", warmup=warmup) == pytest.approx(expected, rel=1e-9)


def test_the_inverse_root_is_that_of_crystalformer():
    optim = Optim(schedule="inverse-sqrt", warmup=0.0)
    found = [rate(step, 20_000, optim) for step in (0, 1, 700, 4000, 12_000)]
    expected = [(4000 / (4000 + step)) ** 0.5 for step in (0, 1, 700, 4000, 12_000)]
    assert found == pytest.approx(expected)
    assert found[-1] == 0.5
    risen = shares(100, schedule="inverse-sqrt", warmup=0.1)
    assert risen[:11] == pytest.approx([*(step / 10 for step in range(1, 11)), 1.0])
    assert risen[-1] < 1


def test_a_constant_rate_rises_and_stays():
    assert shares(20, schedule="constant", warmup=0.1) == [0.5, *[1.0] * 19]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_frozen_rate_stays_while_weights_are_averaged(schedule):
    free = shares(100, schedule=schedule, warmup=0.1)
    frozen = shares(100, schedule=schedule, warmup=0.1, swa_last=0.2, swa_frozen=True)
    assert frozen[:81] == free[:81]
    assert set(frozen[80:]) == {free[80]}


def test_the_optimiser_moves_at_the_rate_of_the_schedule(properties, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Fitting,
        "on_before_optimizer_step",
        lambda self, optimiser: seen.append(optimiser.param_groups[0]["lr"]),
    )
    optim = {"epochs": 6, "budget": 10**6, "schedule": "inverse-sqrt", "peak_lr": 2e-3}
    optim |= {"warmup": 0.4, "swa_last": 0.5, "swa_frozen": True}
    fit(property_recipe(properties, optim=optim), tmp_path, progress=False)
    fall = (4000 / 4001) ** 0.5
    assert seen == pytest.approx([1e-3, 2e-3, 2e-3, *[2e-3 * fall] * 3])
