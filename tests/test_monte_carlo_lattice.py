"""Shells are those of the handbook, and electrons have the levels of their Hamiltonian."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc100, molecule
from scipy.spatial.transform import Rotation

from ase_crystalformer import DoubleExchange, SpinLattice
from ase_crystalformer.errors import BadStructure

HOT = 0.5 / units.kB


@pytest.mark.parametrize(
    ("structure", "neighbours"),
    [("fcc", [12, 6, 24, 12]), ("bcc", [8, 6, 12, 24]), ("sc", [6, 12, 8, 6])],
)
@pytest.mark.parametrize("repeat", [1, 3])
def test_shells_are_those_of_the_handbook(structure, neighbours, repeat):
    lattice = SpinLattice(bulk("Fe", structure, a=3.0).repeat(repeat), shells=4)
    counts = lattice.bonds.sum(dim=2).numpy()
    np.testing.assert_array_equal(counts, np.repeat([neighbours], repeat**3, axis=0).T)


def test_radii_of_shells_ascend_as_they_should():
    lattice = SpinLattice(bulk("Cu", "fcc", a=4.0), shells=4)
    np.testing.assert_allclose(lattice.distances, 4 * np.sqrt([0.5, 1, 1.5, 2]))


def test_bonds_lead_both_ways():
    atoms = bulk("Si", "diamond", a=5.43, cubic=True)
    atoms.rattle(0.3, seed=0)
    bonds = SpinLattice(atoms, shells=20).bonds
    np.testing.assert_array_equal(bonds, bonds.mT)


def test_neighbours_through_both_sides_of_a_small_cell_count_twice():
    chain = Atoms("Fe2", [[0, 0, 0], [2, 0, 0]], cell=[4, 10, 10], pbc=(True, False, False))
    np.testing.assert_array_equal(SpinLattice(chain).bonds[0], [[0, 2], [2, 0]])


def test_slabs_have_fewer_neighbours_outside():
    counts = SpinLattice(fcc100("Cu", (2, 2, 3))).bonds[0].sum(dim=1)
    assert counts.tolist() == [8] * 4 + [12] * 4 + [8] * 4


def test_a_molecule_has_so_many_shells_and_no_more():
    assert len(SpinLattice(molecule("H2O"), shells=2).distances) == 2
    with pytest.raises(BadStructure, match="2 shells are all"):
        SpinLattice(molecule("H2O"), shells=3)


@pytest.mark.parametrize("wrong", [{"shells": 0}, {"turn": 0.0}, {"turn": np.nan}])
def test_senseless_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SpinLattice(bulk("Fe"), **wrong)


@pytest.mark.parametrize("temperature", [0.0, -300.0, np.nan])
def test_electrons_have_a_temperature(temperature):
    with pytest.raises(ValueError, match="temperature is"):
        DoubleExchange(SpinLattice(bulk("Fe")), temperature)


def test_states_are_unit_vectors_without_preference():
    states = SpinLattice(bulk("Fe").repeat(4)).states(chains=100, seed=3)
    np.testing.assert_allclose(np.linalg.norm(states, axis=-1), 1)
    # Six standard deviations of the mean of n components, each of variance 1/3.
    assert np.abs(states.mean(axis=(0, 1))).max() < 6 / np.sqrt(3 * 6400)


def test_a_move_turns_one_spin_and_the_smaller_the_less():
    atoms, random = bulk("Fe").repeat(2), np.random.default_rng(0)
    small, large = SpinLattice(atoms, turn=0.05), SpinLattice(atoms, turn=50.0)
    states = small.states(200)
    for lattice, low, high in [(small, 0.98, 1), (large, -0.3, 0.3)]:
        moved = lattice.move(states, random)
        np.testing.assert_allclose(np.linalg.norm(moved, axis=-1), 1)
        assert ((moved != states).any(axis=2).sum(axis=1) == 1).all()
        cosine = (moved * states).sum(axis=2).min(axis=1)
        assert low < cosine.mean() < high


def test_turning_is_as_likely_back_as_forth():
    # The density depends on the angle alone: the azimuth about the old spin is uniform.
    lattice = SpinLattice(bulk("Fe"), turn=0.7)
    states = np.broadcast_to([0.6, 0, 0.8], (20000, 1, 3)).copy()
    moved = lattice.move(states, np.random.default_rng(0))[:, 0]
    across, along = moved @ [0.8, 0, -0.6], moved @ [0, 1, 0]
    azimuth = np.arctan2(along, across)
    for wave in (1, 2, 3):
        assert abs(np.exp(1j * wave * azimuth).mean()) < 5 / np.sqrt(20000)


@pytest.fixture
def square():
    sheet = Atoms("Fe", cell=[3, 3, 20], pbc=(True, True, False))
    return SpinLattice(sheet.repeat((3, 2, 1)))


def levels_by_loops(lattice, spins, hopping, coupling):
    """The Hamiltonian, one element at a time."""
    sites = len(spins)
    matrix = np.zeros((2 * sites, 2 * sites), dtype=complex)
    for i, (x, y, z) in enumerate(spins):
        for j in range(sites):
            for spin in (0, 1):
                matrix[2 * i + spin, 2 * j + spin] -= hopping * float(lattice.bonds[0, i, j])
        matrix[2 * i, 2 * i] -= coupling / 2 * z
        matrix[2 * i + 1, 2 * i + 1] += coupling / 2 * z
        matrix[2 * i, 2 * i + 1] -= coupling / 2 * (x - 1j * y)
        matrix[2 * i + 1, 2 * i] -= coupling / 2 * (x + 1j * y)
    return np.linalg.eigvalsh(matrix)


def test_levels_are_those_of_the_hamiltonian(square):
    electrons = DoubleExchange(square, HOT, hopping=0.7, coupling=1.9)
    states = square.states(3)
    expected = [levels_by_loops(square, state, 0.7, 1.9) for state in states]
    np.testing.assert_allclose(electrons.levels(states), expected, atol=1e-12)


def test_energy_is_the_grand_potential_of_the_levels(square):
    electrons = DoubleExchange(square, HOT, chemical_potential=0.3)
    states = square.states(2)
    occupied = 1 + np.exp(-(electrons.levels(states) - 0.3) / 0.5)
    np.testing.assert_allclose(electrons.energy(states), -0.5 * np.log(occupied).sum(axis=1))


def test_at_low_temperature_the_lowest_levels_are_filled(square):
    electrons, states = DoubleExchange(square, 1e-2), square.states(2)
    filled = np.minimum(electrons.levels(states), 0).sum(axis=1)
    np.testing.assert_allclose(electrons.energy(states), filled, atol=1e-4)


def test_electrons_do_not_care_where_up_is(square):
    electrons, states = DoubleExchange(square, HOT), square.states(3)
    turn = Rotation.random(random_state=1).as_matrix()
    energies = electrons.energy(states)
    assert np.ptp(energies) > 1e-3
    for matrix in (turn, -turn):
        np.testing.assert_allclose(electrons.energy(states @ matrix.T), energies, atol=1e-9)
