"""The spin transformer is what its equations say, and knows no direction and no origin."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from scipy.spatial.transform import Rotation

from ase_crystalformer import SpinLattice, SpinTransformer

EXACT = 1e-9
BROKEN = 1e-6


def square(size):
    return Atoms("Fe", cell=[3, 3, 20], pbc=(True, True, False)).repeat((size, size, 1))


@pytest.fixture
def lattice():
    return SpinLattice(square(4), shells=3)


@pytest.fixture
def model(lattice):
    return random_model(lattice)


def random_model(lattice, layers=2):
    """A model all of whose weights matter."""
    model = SpinTransformer(lattice.bonds, layers)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(0.3 * torch.randn(weights.shape, generator=random, dtype=weights.dtype))
    return model


def gathered(weights, bonds, spins):
    """Sum spins over shells, the site itself first."""
    made = [weights[0] * spin for spin in spins]
    for n, i, j in np.argwhere(bonds):
        made[i] = made[i] + weights[n + 1] * bonds[n, i, j] * spins[j]
    return made


def energy_by_loops(model, bonds, spins):
    """The published equations, one sum at a time."""
    bonds, sites = bonds.numpy(), range(len(spins))
    for weights in model.mixing.detach().numpy():
        query, key, value = (gathered(row, bonds, spins) for row in weights)
        moved = []
        for i in sites:
            told = sum(max(query[i] @ key[j] / math.sqrt(3), 0) * value[j] for j in sites)
            moved.append((spins[i] + told) / math.hypot(*(spins[i] + told)))
        spins = moved
    energy = model.constant.item()
    for n, i, j in np.argwhere(bonds):
        # Half, because each bond is met twice.
        energy -= model.exchange[n].item() * bonds[n, i, j] * (spins[i] @ spins[j]) / 2
    return energy


def test_energy_is_that_of_the_equations(model, lattice):
    states = lattice.states(chains=3, seed=1)
    expected = [energy_by_loops(model, lattice.bonds, state) for state in states]
    np.testing.assert_allclose(model.energy(states), expected, rtol=0, atol=EXACT)


def test_without_layers_it_is_the_heisenberg_model(lattice):
    model = SpinTransformer(lattice.bonds[:1], layers=0)
    with torch.no_grad():
        model.exchange.fill_(0.1)
    up = np.zeros((1, 16, 3))
    up[..., 2] = 1
    assert model.energy(up)[0] == pytest.approx(-0.1 * 32)  # two bonds per site


def test_fresh_layers_are_the_linear_model(lattice):
    linear, fresh = SpinTransformer(lattice.bonds, 0), SpinTransformer(lattice.bonds, 4)
    with torch.no_grad():
        linear.exchange.copy_(torch.tensor([0.1, -0.2, 0.3]))
        fresh.exchange.copy_(linear.exchange)
    states = lattice.states(5)
    np.testing.assert_allclose(fresh.energy(states), linear.energy(states), atol=EXACT)


@pytest.mark.parametrize("mirror", [1, -1], ids=["turned", "turned and inverted"])
def test_turning_all_spins_changes_nothing(model, lattice, mirror):
    states = lattice.states(4)
    turn = mirror * Rotation.random(random_state=0).as_matrix()
    change = model.energy(states @ turn.T) - model.energy(states)
    assert np.abs(change).max() < EXACT


def test_effective_spins_turn_along_and_keep_their_length(model, lattice):
    spins = torch.from_numpy(lattice.states(4))
    turn = torch.from_numpy(Rotation.random(random_state=0).as_matrix())
    effective = model.effective_spins(spins)
    torch.testing.assert_close(model.effective_spins(spins @ turn.mT), effective @ turn.mT)
    torch.testing.assert_close(effective.norm(dim=2), torch.ones(4, 16, dtype=torch.float64))
    assert (effective - spins).abs().max() > 0.1


def test_a_model_that_prefers_an_axis_would_be_noticed(model, lattice):
    class Easy(SpinTransformer):
        def effective_spins(self, spins):
            return super().effective_spins(spins * torch.tensor([1, 1, 1.1]))

    easy = Easy(lattice.bonds, 2)
    easy.load_state_dict(model.state_dict())
    states = lattice.states(4)
    turn = Rotation.random(random_state=0).as_matrix()
    assert np.abs(easy.energy(states @ turn.T) - easy.energy(states)).max() > BROKEN


def test_shifting_the_lattice_changes_nothing(model, lattice):
    states = lattice.states(4)
    shifted = np.roll(states.reshape(4, 4, 4, 3), (1, 2), axis=(1, 2)).reshape(4, 16, 3)
    assert np.abs(model.energy(shifted) - model.energy(states)).max() < EXACT


def test_a_lattice_with_a_missing_bond_would_be_noticed(model, lattice):
    bonds = lattice.bonds.clone()
    bonds[0, 0, 1] = bonds[0, 1, 0] = 0
    cut = SpinTransformer(bonds, 2)
    weights = {name: value for name, value in model.state_dict().items() if name != "bonds"}
    cut.load_state_dict(weights, strict=False)
    states = lattice.states(4)
    shifted = np.roll(states.reshape(4, 4, 4, 3), (1, 2), axis=(1, 2)).reshape(4, 16, 3)
    assert np.abs(cut.energy(shifted) - cut.energy(states)).max() > BROKEN


def test_a_batch_is_its_members(model, lattice):
    states = lattice.states(6)
    alone = np.concatenate([model.energy(state[None]) for state in states])
    np.testing.assert_allclose(model.energy(states), alone, rtol=0, atol=EXACT)


def test_spins_that_cancel_leave_finite_derivatives():
    model = SpinTransformer(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64), 1)
    with torch.no_grad():
        weights = [[[1.0, 0], [1.0, 0], [-math.sqrt(3), 0]]]
        model.mixing.copy_(torch.tensor(weights, dtype=torch.float64))
        model.exchange.fill_(1.0)
    spins = torch.tensor([[[0, 0, 1.0], [1.0, 0, 0]]], dtype=torch.float64, requires_grad=True)
    assert model.effective_spins(spins).abs().max() < 1e-6
    slopes = torch.autograd.grad(model(spins).sum(), [spins, *model.parameters()])
    assert all(slope.isfinite().all() for slope in slopes)


def test_least_squares_find_the_exchange_of_a_heisenberg_model(lattice):
    truth = SpinTransformer(lattice.bonds, 0)
    with torch.no_grad():
        truth.exchange.copy_(torch.tensor([0.1, -0.2, 0.3]))
        truth.constant.fill_(-7.0)
    spins = torch.from_numpy(lattice.states(50))
    found = SpinTransformer(lattice.bonds, 0)
    found.solve_exchange(spins, truth(spins).detach())
    for ours, theirs in zip(found.parameters(), truth.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_parameters_are_one_per_shell():
    lattice = SpinLattice(bulk("Fe", cubic=True).repeat(2), shells=2)
    model = SpinTransformer(lattice.bonds, layers=3)
    assert sum(weights.numel() for weights in model.parameters()) == 3 * 3 * (2 + 1) + 2 + 1


def test_a_negative_number_of_layers_is_refused(lattice):
    with pytest.raises(ValueError, match="layers is -1"):
        SpinTransformer(lattice.bonds, -1)
