"""Chains are in detailed balance with what they sample: on a model small enough to enumerate."""

import itertools

import numpy as np
import pytest
from ase import units
from scipy.stats import chi2

from ase_crystalformer import MonteCarlo
from ase_crystalformer.errors import BadChain

SITES = 4
TEMPERATURE = 0.5 / units.kB
#: All states of four Ising spins, and two energies (eV) that have little in common.
STATES = np.array(list(itertools.product([-1, 1], repeat=SITES)))
EXACT, EFFECTIVE = np.random.default_rng(0).normal(scale=0.6, size=(2, len(STATES)))
#: Chance that an honest sampler fails a test of statistics.
UNLUCKY = 1e-4


def index(states):
    return (states > 0) @ 2 ** np.arange(SITES)[::-1]


def exact(states):
    return EXACT[index(states)]


def effective(states):
    return EFFECTIVE[index(states)]


def flip(states, random):
    moved = states.copy()
    moved[np.arange(len(states)), random.integers(SITES, size=len(states))] *= -1
    return moved


class Scripted(np.random.Generator):
    """Random numbers that are told beforehand."""

    def __init__(self, site, uniform):
        super().__init__(np.random.PCG64(0))
        self.site, self.uniform = site, uniform

    def integers(self, high, size):
        return np.full(size, self.site)

    def random(self, size):
        return np.full(size, self.uniform)


def chain_of(states=STATES, inner=1, cheap=effective, seed=0):
    return MonteCarlo(states, exact, flip, TEMPERATURE, effective=cheap, inner=inner, seed=seed)


def accepted(chain, energies):
    """Probability to accept going from any state to any, by the chain's own rule."""
    return np.stack([chain.probability(energy - energies) for energy in energies], axis=1)


def completed(matrix):
    """Stay with what probability is left."""
    matrix = matrix.copy()
    np.fill_diagonal(matrix, 0)
    return matrix + np.diag(1 - matrix.sum(axis=1))


def transition(inner):
    """Probability of every step of a corrected chain, from its own moves and rules."""
    chain = chain_of()
    proposed = np.zeros((len(STATES), len(STATES)))
    for site in range(SITES):
        moved = index(flip(STATES, Scripted(site, 0.0)))
        proposed[np.arange(len(STATES)), moved] += 1 / SITES
    cheap = completed(proposed * accepted(chain, EFFECTIVE))
    many = np.linalg.matrix_power(cheap, inner)
    return completed(many * accepted(chain, EXACT - EFFECTIVE))


def boltzmann():
    weight = np.exp(-EXACT / 0.5)
    return weight / weight.sum()


def misfit(states):
    """Chi squared of independent samples."""
    expected = len(states) * boltzmann()
    return ((np.bincount(index(states), minlength=len(STATES)) - expected) ** 2 / expected).sum()


LIMIT = chi2.isf(UNLUCKY, len(STATES) - 1)


@pytest.mark.parametrize("inner", [1, 2, 5])
def test_detailed_balance(inner):
    flow = boltzmann()[:, None] * transition(inner)
    np.testing.assert_allclose(flow, flow.T, atol=1e-15)
    # Not for want of flow: every state that can be reached is.
    assert (flow > 0).sum() > len(STATES) * SITES


def test_a_sweep_in_order_would_break_detailed_balance():
    chain, sweep = chain_of(), np.eye(len(STATES))
    for site in range(SITES):
        moved = np.eye(len(STATES))[index(flip(STATES, Scripted(site, 0.0)))]
        sweep = sweep @ completed(moved * accepted(chain, EFFECTIVE))
    matrix = completed(sweep * accepted(chain, EXACT - EFFECTIVE))
    flow = boltzmann()[:, None] * matrix
    assert np.abs(flow - flow.T).max() > 1e-3
    assert np.abs(boltzmann() @ matrix - boltzmann()).max() > 1e-3


@pytest.mark.parametrize("site", range(SITES))
@pytest.mark.parametrize("uniform", [0.0, 0.2, 0.5, 0.8, 1 - 1e-12])
def test_a_step_does_what_the_matrix_says(site, uniform):
    chain = chain_of()
    chain.random = Scripted(site, uniform)
    now, then = np.arange(len(STATES)), index(flip(STATES, Scripted(site, 0.0)))
    cheaply = uniform < accepted(chain, EFFECTIVE)[now, then]
    finally_ = uniform < accepted(chain, EXACT - EFFECTIVE)[now, then]
    chain.step()
    expected = np.where(cheaply & finally_, then, now)
    np.testing.assert_array_equal(index(chain.states), expected)
    np.testing.assert_array_equal(chain.energies, EXACT[expected])


@pytest.mark.parametrize(("cheap", "inner"), [(None, 1), (effective, 1), (effective, 3)])
def test_many_chains_end_as_boltzmann_says(cheap, inner):
    steps, chains = 300, 4000
    if cheap is not None:
        second = np.sort(np.abs(np.linalg.eigvals(transition(inner))))[-2]
        assert second**steps < 1e-4  # where they started is forgotten
    chain = chain_of(np.ones((chains, SITES), dtype=int), inner, cheap)
    chain.run(steps, progress=False)
    assert misfit(chain.states) < LIMIT
    assert 0.1 < chain.acceptance < 0.95


def test_chains_without_the_correction_would_be_noticed():
    start = np.ones((4000, SITES), dtype=int)
    chain = MonteCarlo(start, effective, flip, TEMPERATURE)
    chain.run(60, progress=False)
    assert misfit(chain.states) > 10 * LIMIT


def test_a_perfect_model_is_always_accepted_whatever_its_zero():
    chain = chain_of(inner=7, cheap=lambda states: exact(states) - 100.0)
    chain.run(20, progress=False)
    assert chain.acceptance == 1.0


def test_every_chain_has_its_temperature():
    start = np.repeat(STATES[:1], 2, axis=0)
    chain = MonteCarlo(start, exact, flip, np.array([1e-3, 1e6]))
    chain.run(200, progress=False)
    cold, hot = chain.accepted
    neighbours = [index(flip(chain.states[:1], Scripted(site, 0.0)))[0] for site in range(SITES)]
    assert chain.energies[0] <= EXACT[neighbours].min()  # frozen in
    assert cold < 10
    assert hot > 190
    np.testing.assert_allclose(chain.temperature, [1e-3, 1e6])


def test_forbidden_states_are_never_visited():
    chain = MonteCarlo(
        STATES[-1:],
        lambda states: np.where(states.sum(axis=1) < 0, np.inf, 0.0),
        flip,
        TEMPERATURE,
    )
    seen = chain.run(300, observe=lambda chain: chain.states.sum(), progress=False)
    assert min(seen) == 0


def test_the_same_seed_gives_the_same_chains():
    first, same, other = (chain_of(inner=2, seed=seed) for seed in (1, 1, 2))
    for chain in (first, same, other):
        chain.run(10, progress=False)
    np.testing.assert_array_equal(first.states, same.states)
    assert (first.states != other.states).any()


def test_a_look_every_few_steps(tmp_path):
    chain = chain_of()
    assert chain.run(10, every=3, observe=lambda chain: chain.steps, progress=False) == [3, 6, 9]
    energies = chain.run(2, progress=False)
    np.testing.assert_array_equal(energies[-1], chain.energies)
    assert energies[0] is not chain.energies


def test_a_chain_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path):
    whole, cut, resumed = (chain_of(inner=2, seed=5) for _ in range(3))
    whole.run(20, progress=False)
    cut.run(12, every=4, checkpoint=tmp_path / "chain.npz", progress=False)
    cut.run(3, progress=False)  # lost
    resumed.load(tmp_path / "chain.npz")
    assert resumed.steps == 12
    resumed.run(8, progress=False)
    np.testing.assert_array_equal(resumed.states, whole.states)
    np.testing.assert_array_equal(resumed.energies, whole.energies)
    np.testing.assert_array_equal(resumed.accepted, whole.accepted)
    assert resumed.random.random() == whole.random.random()


def test_a_write_that_is_killed_loses_nothing(tmp_path, monkeypatch):
    path, chain = tmp_path / "chain.npz", chain_of()
    chain.save(path)
    before = path.read_bytes()

    def killed(file, **_):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", killed)
    chain.step()
    with pytest.raises(KeyboardInterrupt):
        chain.save(path)
    assert path.read_bytes() == before


def test_another_model_or_energy_or_shape_is_not_resumed(tmp_path):
    path = tmp_path / "chain.npz"
    chain_of().save(path)
    others = {
        "effective model": chain_of(cheap=lambda states: 2 * effective(states)),
        "energies in": MonteCarlo(STATES, effective, flip, TEMPERATURE, effective=effective),
        "this chain has": chain_of(STATES[:3]),
    }
    for told, other in others.items():
        random = other.random.bit_generator.state
        with pytest.raises(BadChain, match=told):
            other.load(path)
        assert other.random.bit_generator.state == random


NUMBERS = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (), }".ljust(127)
    + b"\n"
    + bytes(8)
)


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"PK\x03\x04 cut off", NUMBERS])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "chain.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadChain, match="holds no chain"):
        chain_of().load(path)


def test_a_model_that_changes_under_the_chain_stops_it():
    scale = {"of": 1.0}
    chain = chain_of(cheap=lambda states: scale["of"] * effective(states))
    chain.run(3, progress=False)
    scale["of"] = 1.1
    with pytest.raises(BadChain, match="has changed since"):
        chain.run(1, progress=False)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"temperature": 0.0}, "positive"),
        ({"temperature": np.nan}, "positive"),
        ({"temperature": np.ones(3)}, "3 temperatures for 16"),
        ({"inner": 0}, "inner is 0"),
        ({"inner": 3}, "no effective energy"),
        ({"states": STATES[:0]}, "shape"),
        ({"states": np.ones(3)}, "shape"),
        ({"energy": lambda states: np.full(len(states), np.nan)}, "is nan eV"),
        ({"energy": lambda states: np.full(len(states), -np.inf)}, "is -inf eV"),
        ({"energy": lambda states: np.full(len(states), np.inf)}, "cannot start"),
        ({"energy": lambda states: np.zeros(3)}, "energies has shape"),
    ],
)
def test_senseless_arguments_are_refused(wrong, told):
    given = {"states": STATES, "energy": exact, "move": flip, "temperature": 300.0} | wrong
    with pytest.raises(BadChain, match=told):
        MonteCarlo(**given)


def test_looking_every_zero_steps_is_refused():
    with pytest.raises(BadChain, match="every is 0"):
        chain_of().run(3, every=0)
