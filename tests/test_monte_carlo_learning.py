"""A chain teaches its model, and samples with a model that no longer learns."""

import numpy as np
import pytest
import torch
from ase import Atoms, units

from ase_crystalformer import MonteCarlo, SpinLattice, SpinTransformer, self_learn
from ase_crystalformer.errors import BadChain
from ase_crystalformer.monte_carlo.learning import Memory, fit

TEMPERATURE = 0.1 / units.kB
SHORT = {"inner": 32, "rounds": 2, "steps": 10, "progress": False}


@pytest.fixture
def lattice():
    sheet = Atoms("Fe", cell=[3, 3, 20], pbc=(True, True, False))
    return SpinLattice(sheet.repeat((4, 4, 1)), shells=2)


@pytest.fixture
def heisenberg(lattice):
    """A model the linear one can be."""
    truth = SpinTransformer(lattice.bonds, 0)
    with torch.no_grad():
        truth.exchange.copy_(torch.tensor([0.05, -0.02]))
    return truth.energy


@pytest.fixture
def attentive(lattice):
    """A model that only layers can be."""
    truth = SpinTransformer(lattice.bonds, 1)
    with torch.no_grad():
        weights = [[[1.0, 0.2, 0.0], [1.0, -0.2, 0.1], [-0.3, 0.1, 0.05]]]
        truth.mixing.copy_(torch.tensor(weights))
        truth.exchange.copy_(torch.tensor([0.08, -0.03]))
    return truth.energy


def chain_of(lattice, energy):
    return MonteCarlo(lattice.states(8), energy, lattice.move, TEMPERATURE, seed=1)


def test_a_linear_model_learns_a_linear_energy_exactly(lattice, heisenberg):
    learned = self_learn(chain_of(lattice, heisenberg), SpinTransformer(lattice.bonds, 0), **SHORT)
    learned.run(10, progress=False)
    assert learned.acceptance == pytest.approx(1, abs=1e-6)


def test_layers_learn_what_a_linear_model_cannot(lattice, attentive):
    chain = chain_of(lattice, attentive)
    acceptance = []
    for layers in (0, 1):
        torch.manual_seed(0)
        model = SpinTransformer(lattice.bonds, layers)
        learned = self_learn(chain, model, updates=150, rate=1e-2, **SHORT)
        learned.run(20, progress=False)
        acceptance.append(learned.acceptance)
    assert acceptance[1] > acceptance[0] + 0.2


def test_a_fit_that_runs_away_leaves_what_was_there(lattice, attentive):
    states = lattice.states(100)
    model = SpinTransformer(lattice.bonds, 1)
    linear, wild = (
        fit(model, states, attentive(states), np.random.default_rng(0), updates=updates, rate=9.0)
        for updates in (0, 20)
    )
    assert wild == pytest.approx(linear)
    assert np.std(model.energy(states) - attentive(states)) == pytest.approx(linear)


def test_later_training_does_not_reach_the_chain(lattice, heisenberg):
    model = SpinTransformer(lattice.bonds, 0)
    learned = self_learn(chain_of(lattice, heisenberg), model, **SHORT)
    with torch.no_grad():
        model.exchange.add_(1.0)
    learned.run(2, progress=False)
    frozen = learned.effective.__self__
    assert not any(weights.requires_grad for weights in frozen.parameters())
    with torch.no_grad():
        frozen.exchange.add_(1.0)
    with pytest.raises(BadChain, match="has changed since"):
        learned.run(1, progress=False)


def test_a_learned_chain_is_resumed_with_the_model_that_was_trained(lattice, attentive, tmp_path):
    model = SpinTransformer(lattice.bonds, 1)
    learned = self_learn(chain_of(lattice, attentive), model, updates=5, **SHORT)
    learned.run(2, checkpoint=tmp_path / "chain.npz", progress=False)
    again = chain_of(lattice, attentive).continued(attentive, effective=model.energy, inner=32)
    again.load(tmp_path / "chain.npz")
    for chain in (learned, again):
        chain.run(2, progress=False)
    np.testing.assert_array_equal(again.states, learned.states)


def test_learning_leaves_the_chain_it_started_from(lattice, heisenberg):
    chain, same = chain_of(lattice, heisenberg), chain_of(lattice, heisenberg)
    self_learn(chain, SpinTransformer(lattice.bonds, 0), **SHORT)
    for one in (chain, same):
        one.run(3, progress=False)
    np.testing.assert_array_equal(chain.states, same.states)


def test_learning_repeats_itself(lattice, attentive):
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        model = SpinTransformer(lattice.bonds, 1)
        learned = self_learn(chain_of(lattice, attentive), model, updates=5, **SHORT)
        learned.run(3, progress=False)
        found.append(learned.energies)
    np.testing.assert_array_equal(*found)


def test_energies_far_from_zero_are_learned_as_well(lattice, heisenberg):
    learned = self_learn(
        chain_of(lattice, lambda states: heisenberg(states) - 1e4),
        SpinTransformer(lattice.bonds, 1),
        updates=5,
        **SHORT,
    )
    learned.run(5, progress=False)
    assert learned.acceptance > 0.8


def test_the_newest_energies_are_remembered(lattice, heisenberg, monkeypatch):
    monkeypatch.setattr("ase_crystalformer.monte_carlo.learning.REMEMBERED", 10)
    memory = Memory(heisenberg)
    for seed in range(4):
        memory(lattice.states(4, seed))
    states, energies = memory.recall()
    np.testing.assert_array_equal(states[-4:], lattice.states(4, 3))
    np.testing.assert_allclose(energies, heisenberg(states))
    assert len(states) == 10


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"steps": 0}, {"inner": 0}, {"updates": -1}])
def test_senseless_arguments_are_refused(lattice, heisenberg, wrong):
    with pytest.raises(BadChain, match="rounds, steps, inner and updates"):
        self_learn(
            chain_of(lattice, heisenberg), SpinTransformer(lattice.bonds, 0), **(SHORT | wrong)
        )
