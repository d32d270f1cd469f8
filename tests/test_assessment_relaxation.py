"""What is perturbed comes back, and how far it did not is measured."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from assessed import labelled

from ase_crystalformer.assessment import (
    relaxation,
)
from ase_crystalformer.assessment.relaxing import relax_in_place
from ase_crystalformer.errors import BadStructure


def test_a_perturbed_crystal_relaxes_back():
    alloy = Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[2.8, 2.8, 3.8], pbc=True)
    relax_in_place(alloy, EMT(), fmax=1e-4, steps=500)
    alloy.calc = EMT()
    energy = alloy.get_potential_energy() + 0.4
    row = relaxation.measure(EMT(), labelled(alloy, energy=energy), relaxation.Options(fmax=0.001))
    assert row.converged
    assert row.steps > 0
    assert row.distance < 1e-3
    assert row.volume_error == pytest.approx(0, abs=1e-3)
    assert row.energy_error == pytest.approx(-0.2, abs=1e-4)
    assert row.energy_gained == pytest.approx(0, abs=1e-4)


def test_a_structure_that_is_lost_counts_as_far_off():
    kept = relaxation.Row(
        distance=0.1,
        volume_error=0.0,
        energy_error=None,
        energy_gained=0.0,
        converged=True,
        steps=1,
    )
    rows = [kept, replace(kept, distance=None)]
    found = {one.name: one.value for one in relaxation.summarise(rows)}
    assert found["structure kept"] == 50.0
    assert found["distance, mean, 1 if lost"] == pytest.approx(0.55)
    assert found["energy error, mean"] is None


def test_perturbations_are_as_large_as_asked_and_the_same_again():
    atoms = bulk("Cu", "fcc", a=3.6).repeat(6)
    told = relaxation.Options(rattle=0.05, strain=0.0)
    moved = relaxation.perturbed(atoms, "one", told)
    assert (moved.positions - atoms.positions).std() == pytest.approx(0.05, rel=0.1)
    assert moved.cell.array == pytest.approx(atoms.cell.array)
    again, other = (relaxation.perturbed(atoms, name, told) for name in ("one", "other"))
    assert np.array_equal(again.positions, moved.positions)
    assert not np.array_equal(other.positions, moved.positions)
    strained = relaxation.perturbed(atoms, "one", relaxation.Options())
    assert abs(strained.get_volume() / atoms.get_volume() - 1) > 1e-3


def test_distances_are_those_of_matched_atoms():
    salt = bulk("NaCl", "rocksalt", a=5.64)
    moved = salt.copy()
    moved.positions[1, 0] += 0.2
    # The mean of the displacements is taken out: each atom is off by half of 0.2 Å.
    expected = 0.1 / (salt.get_volume() / 2) ** (1 / 3)
    assert relaxation.distance(moved, salt) == pytest.approx(expected, rel=1e-6)
    other = bulk("NaCl", "cesiumchloride", a=3.4)
    assert relaxation.distance(other, salt) is None


def test_a_crystal_that_loses_itself_is_told():
    atoms = bulk("Ar", "fcc", a=3.2)
    with pytest.raises(BadStructure, match="volume"):
        relax_in_place(atoms, LennardJones(sigma=6.0, epsilon=1.0, rc=20.0), fmax=0.01, steps=500)
