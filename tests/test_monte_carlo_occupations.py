"""Atoms change places and kinds as statistical mechanics says they do."""

import itertools

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.io import Trajectory
from scipy.stats import chi2
from scipy.stats import norm as normal

from ase_crystalformer import MonteCarlo, Occupations, SpinLattice
from ase_crystalformer.errors import BadStructure

CU, AU = 29, 79
#: Chance that an honest sampler fails a test of statistics.
UNLUCKY = 1e-4


class Free(Calculator):
    """Atoms that do not notice each other."""

    implemented_properties = ("energy",)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0}


class Scripted(np.random.Generator):
    """Random integers that are told beforehand, each in turn."""

    def __init__(self, *told):
        super().__init__(np.random.PCG64(0))
        self.told = list(told)

    def integers(self, low, high=None, size=None):
        told = self.told.pop(0)
        if high is not None:
            return np.full(size, low + told % (high - low))
        return told % np.asarray(low) if size is None else np.full(size, told)


@pytest.fixture
def crooked():
    """Six sites, no two alike, of two elements."""
    atoms = bulk("Cu", "fcc", a=3.9).repeat((3, 2, 1))
    atoms.numbers[[1, 4]] = AU
    atoms.rattle(0.2, seed=0)
    return atoms


def occupations_of(state):
    """Every way to put the same atoms on the sites."""
    return np.array(sorted(set(itertools.permutations(state.tolist()))))


def flow_of(move, states, choices):
    """Probability of each proposal between states, from the move itself."""
    flow = np.zeros((len(states), len(states)))
    number = {tuple(state): place for place, state in enumerate(states)}
    for told in choices:
        moved = move(states, Scripted(*told))
        for start, state in enumerate(moved):
            flow[start, number[tuple(state)]] += 1 / len(choices)
    return flow


def test_a_swap_is_as_likely_back_as_forth(crooked):
    alloy = Occupations(crooked, EMT())
    states = occupations_of(alloy.states()[0])
    # 4 divides by how many other atoms there are for either element.
    flow = flow_of(alloy.move, states, list(itertools.product(range(6), range(4))))
    np.testing.assert_allclose(flow, flow.T, atol=1e-15)
    np.testing.assert_allclose(flow.sum(axis=1), 1)
    assert len(states) == 15
    assert (np.diag(flow) == 0).all()  # no step is wasted


@pytest.mark.parametrize("elements", [("Cu", "Au"), ("Cu", "Ag", "Au")])
def test_a_substitution_is_as_likely_back_as_forth(crooked, elements):
    alloy = Occupations(crooked, EMT(), chemical_potentials=dict.fromkeys(elements, 0.0))
    states = np.array(list(itertools.product(alloy.elements, repeat=6)))
    flow = flow_of(alloy.move, states, list(itertools.product(range(6), range(len(elements) - 1))))
    np.testing.assert_allclose(flow, flow.T, atol=1e-15)
    np.testing.assert_allclose(flow.sum(axis=1), 1)
    assert (flow > 0).sum(axis=1).tolist() == [6 * (len(elements) - 1)] * len(states)


@pytest.mark.parametrize("guided", [False, True], ids=["single swaps", "guided by another energy"])
def test_an_alloy_visits_its_occupations_as_boltzmann_says(crooked, guided):
    alloy = Occupations(crooked, EMT())
    states = occupations_of(alloy.states()[0])
    table = dict(zip(map(tuple, states), alloy.energy(states), strict=True))
    kT = np.std(list(table.values()))
    noise = dict(zip(table, np.random.default_rng(0).normal(scale=kT, size=15), strict=True))

    def exact(states):
        return np.array([table[tuple(state)] for state in states])

    def cheap(states):
        return exact(states) + [noise[tuple(state)] for state in states]

    guide = {"effective": cheap, "inner": 3} if guided else {}
    chain = MonteCarlo(alloy.states(chains=2000), exact, alloy.move, kT / units.kB, **guide)
    chain.run(50, progress=False)
    weight = np.exp(-(exact(states) - exact(states).min()) / kT)
    expected = 2000 * weight / weight.sum()
    counts = np.array([(chain.states == state).all(axis=1).sum() for state in states])
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(UNLUCKY, 14)
    assert ((counts - 2000 / 15) ** 2 / (2000 / 15)).sum() > 10 * chi2.isf(UNLUCKY, 14)


def test_energy_is_that_of_the_crystal_as_made(crooked):
    alloy = Occupations(crooked, EMT())
    swapped = crooked.copy()
    swapped.numbers[[0, 1]] = swapped.numbers[[1, 0]]
    both = np.array([crooked.numbers, swapped.numbers])
    crooked.calc, swapped.calc = EMT(), EMT()
    expected = [crooked.get_potential_energy(), swapped.get_potential_energy()]
    np.testing.assert_allclose(alloy.energy(both), expected, rtol=0, atol=1e-9)
    assert abs(expected[0] - expected[1]) > 1e-3


def test_chemical_potentials_are_paid_for_every_atom(crooked):
    potentials = {"Cu": 0.5, "Au": -0.25}
    alloy = Occupations(crooked, EMT(), chemical_potentials=potentials)
    bare = Occupations(crooked, EMT())
    states = alloy.states()
    expected = bare.energy(states) - (4 * 0.5 - 2 * 0.25)
    np.testing.assert_allclose(alloy.energy(states), expected)


def test_what_came_in_is_not_changed(crooked):
    before = crooked.copy()
    alloy = Occupations(crooked, EMT())
    MonteCarlo(alloy.states(), alloy.energy, alloy.move, 1e5).run(5, progress=False)
    assert crooked == before
    np.testing.assert_array_equal(alloy.states()[0], before.numbers)
    assert crooked.calc is None


@pytest.mark.parametrize("potentials", [{"Cu": 0.0, "Au": 0.1}, {"Cu": 0.0, "Ag": 0.05, "Au": 0.1}])
def test_atoms_that_do_not_interact_have_the_composition_of_the_reservoir(potentials):
    atoms, kT = bulk("Cu").repeat(3), 0.08
    alloy = Occupations(atoms, Free(), chemical_potentials=potentials)
    chain = MonteCarlo(alloy.states(chains=40), alloy.energy, alloy.move, kT / units.kB)
    chain.run(8 * len(atoms), progress=False)  # a site is missed with probability e^-8
    weight = np.exp(np.array(list(potentials.values())) / kT)
    share = weight / weight.sum()
    counts = np.array([(chain.states == number).sum() for number in alloy.elements])
    spread = np.sqrt(chain.states.size * share * (1 - share))
    assert np.abs(counts - chain.states.size * share).max() < normal.isf(UNLUCKY / 6) * spread.min()
    assert counts.sum() == 40 * 27


def test_an_alloy_orders_below_the_temperature_of_the_ising_model_and_not_above():
    # B2 on 54 sites: -v for each unlike pair is an Ising model with J = v/2, kTc = 6.3545 J.
    v = 0.02
    critical = 6.3545 * v / 2 / units.kB
    atoms = bulk("Fe", "bcc", a=2.9, cubic=True).repeat(3)
    sublattice = np.where(np.arange(54) % 2, 1, -1)
    atoms.numbers[np.random.default_rng(0).permutation(54)[:27]] = 13
    bonds = SpinLattice(atoms).bonds[0].numpy()

    def energy(states):
        kind = np.where(states == 13, 1.0, -1.0)
        unlike = (bonds.sum() - np.einsum("ci,ij,cj->c", kind, bonds, kind)) / 4
        return -v * unlike

    def order(chain):
        return np.abs((np.where(chain.states == 13, 1, -1) * sublattice).mean(axis=1))

    alloy = Occupations(atoms, None)
    temperatures = critical * np.repeat([0.5, 2.5], 8)
    chain = MonteCarlo(alloy.states(chains=16), energy, alloy.move, temperatures, seed=1)
    chain.run(2000, progress=False)
    seen = np.mean(chain.run(1000, every=20, observe=order, progress=False), axis=0)
    assert seen[:8].mean() > 0.9
    assert seen[8:].mean() < 0.4


def test_only_the_sites_that_were_named_take_part():
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat((2, 1, 1))
    cations = [atom.index for atom in salt if atom.symbol == "Na"]
    salt.symbols[cations[:3]] = "K"
    alloy = Occupations(salt, Free(), sites=cations)
    chain = MonteCarlo(alloy.states(), alloy.energy, alloy.move, 300.0)
    chain.run(50, progress=False)
    made = alloy.atoms(chain.states[0])
    assert (made.symbols == salt.symbols).sum() < len(salt)
    assert [made.symbols.count(kind) for kind in ("Na", "K", "Cl")] == [5, 3, 8]
    anions = np.setdiff1d(np.arange(len(salt)), cations)
    assert (made.numbers[anions] == 17).all()


def test_a_trajectory_keeps_energies(crooked, tmp_path):
    alloy = Occupations(crooked, EMT())
    chain = MonteCarlo(alloy.states(), alloy.energy, alloy.move, 3000.0)
    with Trajectory(tmp_path / "swaps.traj", "w") as file:
        seen = chain.run(
            6,
            every=2,
            observe=lambda chain: file.write(alloy.atoms(chain.states[0], chain.energies[0])),
            progress=False,
        )
    with Trajectory(tmp_path / "swaps.traj") as file:
        assert len(file) == len(seen) == 3
        assert file[-1].get_potential_energy() == chain.energies[0]
        np.testing.assert_array_equal(file[-1].numbers, chain.states[0])


def test_the_energy_of_a_crystal_is_its_own_without_the_reservoir(crooked):
    alloy = Occupations(crooked, EMT(), chemical_potentials={"Cu": 0.5, "Au": -0.25})
    [state], [energy] = alloy.states(), alloy.energy(alloy.states())
    made = alloy.atoms(state, energy)
    crooked.calc = EMT()
    assert made.get_potential_energy() == pytest.approx(crooked.get_potential_energy())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"atoms": bulk("Cu").repeat(2)}, "All sites hold Cu"),
        ({"atoms": Atoms()}, "one atom or more"),
        ({"sites": []}, "one atom or more"),
        ({"sites": [True, False]}, "indices"),
        ({"sites": [0, 6]}, "from 0 to 5"),
        ({"sites": [-1, 0]}, "from 0 to 5"),
        ({"sites": [1, 1, 0]}, "each once"),
        ({"chemical_potentials": {"Cu": 0.0, "Ag": 0.0}}, "missing: Au"),
        ({"chemical_potentials": {"Cu": 0.0, "Au": 0.0, "Gold": 1.0}}, "no elements: Gold"),
        ({"chemical_potentials": {"Cu": 0.0, "Au": np.nan}}, "finite"),
        ({"chemical_potentials": {}}, "nothing"),
    ],
)
def test_senseless_arguments_are_refused(crooked, wrong, told):
    with pytest.raises(BadStructure, match=told):
        Occupations(**({"atoms": crooked, "calculator": EMT()} | wrong))
