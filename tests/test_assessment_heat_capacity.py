"""Heat capacities are those of another code and of Dulong and Petit."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.phonons import Phonons
from assessed import copper_at_rest, labelled

from ase_crystalformer.assessment import (
    heat_capacity,
)
from ase_crystalformer.assessment.relaxing import relax_in_place

GAS_CONSTANT = 8.314462618  # J/K/mol


@pytest.fixture(scope="module")
def copper():
    return copper_at_rest()


def options(**told):
    return heat_capacity.Options(**{"length": 6.0, "mesh": 30.0, **told})


def test_a_hot_crystal_obeys_dulong_and_petit(copper):
    found = heat_capacity.phonons(copper, EMT(), options())
    cold, hot, hottest = (
        heat_capacity.heat_capacity(found, options(temperature=t)) for t in (20.0, 1000.0, 4000.0)
    )
    assert cold < 2.0 < hot < hottest < 3 * GAS_CONSTANT
    assert hottest == pytest.approx(3 * GAS_CONSTANT, rel=1e-3)


def test_the_heat_capacity_is_that_of_another_code(copper, tmp_path):
    found = heat_capacity.phonons(copper, EMT(), options(length=9.0))
    ours = heat_capacity.heat_capacity(found, options(temperature=300.0))
    theirs = Phonons(copper, EMT(), supercell=(4, 4, 4), delta=0.01, name=str(tmp_path / "phonon"))
    theirs.run()
    theirs.read(acoustic=True)
    energies = np.concatenate([e.ravel() for e in theirs.band_structure(grid(12))])
    x = energies / (8.617333262e-5 * 300.0)
    per_mode = (x / 2 / np.sinh(x / 2)) ** 2
    assert ours == pytest.approx(3 * GAS_CONSTANT * per_mode.mean(), rel=2e-3)


def grid(points):
    """Wave vectors that miss the origin."""
    steps = (np.arange(points) + 0.5) / points - 0.5
    return np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)


def test_two_atoms_count_per_atom(copper):
    crystal = labelled(copper.repeat((1, 1, 2)), heat_capacity=48.0)
    row = heat_capacity.measure(EMT(), crystal, options())
    found = heat_capacity.phonons(copper, EMT(), options())
    assert row.heat_capacity == pytest.approx(
        heat_capacity.heat_capacity(found, options()), rel=5e-3
    )
    assert row.reference == 24.0
    assert row.lowest > heat_capacity.IMAGINARY


def test_an_unstable_crystal_has_imaginary_modes():
    simple = Atoms("Cu", cell=[2.4] * 3, pbc=True)
    relax_in_place(simple, EMT(), fmax=1e-4, steps=200)
    found = heat_capacity.phonons(simple, EMT(), options())
    assert heat_capacity.lowest_frequency(found) < heat_capacity.IMAGINARY
