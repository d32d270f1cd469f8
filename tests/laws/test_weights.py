"""Weights that hide nothing."""

import torch
from torch import nn

from ase_crystalformer.testing import randomised


def test_what_starts_at_zero_or_one_becomes_random_and_the_original_stays():
    fresh = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    after = randomised(fresh).state_dict()
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert same == {"0.weight", "1.num_batches_tracked"}
    assert (after["1.running_var"] > 0).all()
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())


def test_the_same_seed_gives_the_same_weights():
    fresh = nn.Linear(3, 4)
    assert torch.equal(randomised(fresh, seed=1).bias, randomised(fresh, seed=1).bias)
    assert not torch.equal(randomised(fresh, seed=1).bias, randomised(fresh, seed=2).bias)
