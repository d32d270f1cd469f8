"""Elastic constants agree with energies, with symmetry and with Cauchy."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from assessed import argon, copper_at_rest, equation, labelled

from ase_crystalformer import CrystalformerCalculator
from ase_crystalformer.assessment import elasticity, equation_of_state
from ase_crystalformer.assessment.relaxing import relax_in_place
from ase_crystalformer.units import GPA


@pytest.fixture(scope="module")
def copper():
    return copper_at_rest()


def test_the_bulk_modulus_of_strains_is_that_of_volumes(copper):
    constants, converged = elasticity.elastic_tensor(copper, EMT(), elasticity.Options())
    assert converged
    bulk_modulus = constants[:3, :3].mean() / GPA
    assert bulk_modulus == pytest.approx(equation(EMT(), copper).bulk, rel=0.01)


def test_moduli_are_those_of_the_cubic_constants(copper):
    crystal = labelled(copper, bulk_modulus=100.0, shear_modulus=50.0)
    row = elasticity.measure(EMT(), crystal, elasticity.Options())
    constants, _ = elasticity.elastic_tensor(copper, EMT(), elasticity.Options())
    c11, c12, c44 = constants[0, 0] / GPA, constants[0, 1] / GPA, constants[3, 3] / GPA
    # The primitive cell lies along the cubic axes, and Voigt, Reuss and Hill are known for these.
    voigt = (c11 - c12 + 3 * c44) / 5
    reuss = 5 * (c11 - c12) * c44 / (4 * c44 + 3 * (c11 - c12))
    assert row.bulk == pytest.approx((c11 + 2 * c12) / 3, rel=1e-3)
    assert row.shear == pytest.approx((voigt + reuss) / 2, rel=1e-3)
    assert row.stable
    assert (row.bulk_reference, row.shear_reference) == (100.0, 50.0)


def test_averages_are_those_of_hill_where_voigt_and_reuss_differ():
    layered = bulk("Cu", "fcc", a=3.87, cubic=True)
    layered.symbols[[0, 1]] = "Au"
    told = elasticity.Options(fmax=0.005)
    row = elasticity.measure(EMT(), labelled(layered, bulk_modulus=1.0, shear_modulus=1.0), told)
    relax_in_place(layered, EMT(), fmax=told.fmax, steps=told.steps)
    stiff = elasticity.elastic_tensor(layered, EMT(), told)[0] / GPA
    soft = np.linalg.inv(stiff)
    voigt, reuss = stiff[:3, :3].mean(), 1 / soft[:3, :3].sum()
    assert voigt > 1.001 * reuss
    assert row.bulk == pytest.approx((voigt + reuss) / 2, rel=1e-6)


def test_pair_forces_obey_cauchy():
    # Of central pair forces at rest C12 = C44: a test of shears, and of their factor of two.
    atoms = bulk("Ar", "fcc", a=5.3)
    relax_in_place(atoms, argon(reach=10.0), fmax=1e-6, steps=300)
    constants, _ = elasticity.elastic_tensor(
        atoms, argon(reach=10.0), elasticity.Options(strain=0.002)
    )
    assert constants[3, 3] == pytest.approx(constants[0, 1], rel=5e-3)


def test_atoms_relax_inside_strained_cells():
    # Sheared along the layers, atoms of hcp slide: without that it is stiffer.
    atoms = bulk("Cu", "hcp", a=2.55, c=4.16)
    relax_in_place(atoms, EMT(), fmax=1e-5, steps=500)
    relaxed, _ = elasticity.elastic_tensor(atoms, EMT(), elasticity.Options(fmax=1e-5))
    clamped, _ = elasticity.elastic_tensor(atoms, EMT(), elasticity.Options(fmax=100.0))
    assert relaxed[5, 5] < 0.99 * clamped[5, 5]
    # Six-fold symmetry: C66 = (C11 - C12) / 2, only once atoms are at rest.
    assert relaxed[5, 5] == pytest.approx((relaxed[0, 0] - relaxed[0, 1]) / 2, rel=0.01)


def test_the_bundled_potential_agrees_with_itself():
    calculator = CrystalformerCalculator(property_model=None, device="cpu", dtype="float64")
    silicon = labelled(bulk("Si", "diamond", a=5.43), bulk_modulus=88.0, shear_modulus=62.0)
    row = elasticity.measure(calculator, silicon, elasticity.Options())
    energies = equation_of_state.equation_of_state(
        calculator, silicon, equation_of_state.Options(width=0.02)
    )
    assert row.bulk == pytest.approx(energies.bulk, rel=0.02)
