"""Equations of state and their distances are what lattice sums, ASE and quadrature give."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.eos import EquationOfState
from assessed import argon, equation, labelled

from ase_crystalformer.assessment import equation_of_state
from ase_crystalformer.assessment.equation_of_state import Curve, epsilon, fit, nu
from ase_crystalformer.errors import BadStructure
from ase_crystalformer.units import GPA


def test_a_curve_of_birch_and_murnaghan_is_fitted_exactly():
    curve = Curve(volume=16.3, bulk=140.0, derivative=4.9)
    volumes = np.linspace(15, 17.5, 7)
    found = fit(volumes, curve.energy(volumes) - 3.4)
    np.testing.assert_allclose(
        [found.volume, found.bulk, found.derivative], [16.3, 140.0, 4.9], rtol=1e-6
    )


def test_energies_without_a_minimum_have_no_curve():
    volumes = np.linspace(15, 17.5, 7)
    assert fit(volumes, -volumes) is None


def test_lennard_jones_argon_has_the_parameters_of_its_lattice_sums():
    # Of pairs r^-12 and r^-6: B0 = 12 * 6 |E0| / (9 V0) and B1 = (12 + 6) / 3 + 2 = 8.
    found = equation(argon(), bulk("Ar", "fcc", a=5.3))
    sum_12, sum_6 = 12.13188, 14.45392  # of the fcc lattice, nearest distance 1
    nearest = (2 * sum_12 / sum_6) ** (1 / 6) * 3.4
    energy = 0.0104 * sum_6**2 / sum_12 / 2
    volume = nearest**3 / np.sqrt(2)
    assert found.volume == pytest.approx(volume, rel=2e-3)
    assert found.bulk == pytest.approx(8 * energy / volume / GPA, rel=0.01)
    assert found.derivative == pytest.approx(8, rel=0.02)


def test_copper_is_fitted_as_ase_fits_it():
    found = equation(EMT(), bulk("Cu", "fcc", a=3.45))
    volumes = found.volume * np.linspace(0.94, 1.06, 7)
    energies = []
    for volume in volumes:
        atoms = bulk("Cu", "fcc", a=(4 * volume) ** (1 / 3))
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
    volume, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    assert found.volume == pytest.approx(volume, rel=1e-4)
    assert found.bulk == pytest.approx(modulus / GPA, rel=2e-3)


def test_a_minimum_far_from_the_reference_is_found():
    near, far = (equation(EMT(), bulk("Cu", "fcc", a=a)) for a in (3.6, 4.1))
    assert far.volume == pytest.approx(near.volume, rel=1e-3)


def test_a_crystal_that_flies_apart_has_no_equation_of_state():
    with pytest.raises(BadStructure, match="No minimum"):
        equation(LennardJones(sigma=6.0, epsilon=1.0, rc=6.5), bulk("Ar", "fcc", a=3.0))


def test_reference_volumes_are_of_the_cell_and_volumes_found_of_an_atom():
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    curve = equation(EMT(), atoms)
    labels = {"bulk_modulus": curve.bulk, "bulk_modulus_derivative": curve.derivative}
    crystal = labelled(atoms, "Cu-X/FCC", volume=4 * curve.volume, **labels)
    row = equation_of_state.measure(EMT(), crystal, equation_of_state.Options())
    assert row.nu == pytest.approx(0, abs=1e-9)
    assert row.element == "Cu"


def test_nu_weighs_volume_bulk_modulus_and_derivative():
    a = Curve(volume=10.0, bulk=100.0, derivative=4.0)
    assert nu(a, a) == 0
    assert nu(a, Curve(volume=10.1, bulk=100.0, derivative=4.0)) == pytest.approx(100 / 100.5)
    assert nu(a, Curve(volume=10.0, bulk=110.0, derivative=4.0)) == pytest.approx(1000 / 105 / 20)
    assert nu(a, Curve(volume=10.0, bulk=100.0, derivative=5.0)) == pytest.approx(100 / 4.5 / 400)


def test_epsilon_is_the_mean_over_volumes():
    a = Curve(volume=10.0, bulk=100.0, derivative=4.0)
    b = Curve(volume=10.3, bulk=90.0, derivative=5.0)

    def energy(c, v):  # the textbook form, not ours
        eta = (c.volume / v) ** (2 / 3)
        bracket = c.derivative * (eta - 1) ** 3 + (eta - 1) ** 2 * (6 - 4 * eta)
        return 9 / 16 * c.bulk * c.volume * bracket

    volumes = 10.15 * np.linspace(0.94, 1.06, 20_001)
    one, other = energy(a, volumes), energy(b, volumes)
    expected = np.sqrt(((one - other) ** 2).mean() / np.sqrt(one.var() * other.var()))
    assert epsilon(a, b) == pytest.approx(expected, rel=1e-3)
    assert epsilon(a, a) == 0


def test_epsilon_and_nu_do_not_depend_on_units_or_order():
    a = Curve(volume=10.0, bulk=100.0, derivative=4.0)
    b = Curve(volume=10.3, bulk=90.0, derivative=5.0)
    for measure in (nu, epsilon):
        assert measure(a, b) == pytest.approx(measure(b, a), rel=1e-12)
        twice = [Curve(volume=2 * c.volume, bulk=c.bulk, derivative=c.derivative) for c in (a, b)]
        assert measure(*twice) == pytest.approx(measure(a, b), rel=1e-12)
