"""Energy is kept as velocity Verlet keeps it, and what is not kept is seen."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from assessed import copper_at_rest

from ase_crystalformer.assessment import dynamics
from ase_crystalformer.errors import BadStructure


@pytest.fixture(scope="module")
def copper():
    return copper_at_rest()


def trajectory(atoms, temperature=300.0, calculator=None, **told):
    settings = dynamics.Options(**{"picoseconds": 0.3, "length": 4.0, **told})
    moving = dynamics.repeated(atoms, settings.length)
    return dynamics.run(moving, calculator or EMT(), temperature, settings)


def test_energy_wanders_by_the_square_of_the_step(copper):
    short, long = (trajectory(copper, femtoseconds=dt, every=1) for dt in (2.0, 4.0))
    assert long.wander / short.wander == pytest.approx(4, rel=0.15)
    assert abs(short.drift) < 0.1
    assert not short.exploded
    assert short.picoseconds == pytest.approx(0.3)


def test_temperatures_settle_about_the_one_asked_for(copper):
    found = trajectory(copper, picoseconds=1.0, femtoseconds=4.0, length=5.0)
    assert found.mean_temperature == pytest.approx(300, rel=0.2)


def test_atoms_start_at_exactly_a_temperature_and_the_crystal_at_rest(rng):
    atoms = bulk("CuAu", "cesiumchloride", a=3.2).repeat(2)
    atoms.set_velocities(dynamics.thermal_velocities(atoms, 500.0, rng))
    assert atoms.get_temperature() == pytest.approx(500)
    assert atoms.get_momenta().sum(axis=0) == pytest.approx(0, abs=1e-9)


class Pushed(Calculator):
    """EMT with a force that no energy explains."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, push):
        super().__init__()
        self.push, self.inner = push, EMT()

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.inner.calculate(atoms, ["forces"], system_changes)
        forces = self.inner.results["forces"] + self.push * atoms.get_velocities()
        self.results = {"energy": self.inner.results["energy"], "forces": forces}


def test_wrong_forces_drift_and_explode(copper):
    sound, pushed = (
        trajectory(copper, calculator=Pushed(push), femtoseconds=2.0) for push in (0.0, 0.5)
    )
    assert abs(sound.drift) < 0.5
    assert pushed.drift > 10
    torn = trajectory(copper, calculator=Pushed(5.0))
    assert torn.exploded
    assert torn.picoseconds < 0.3


class Torn(Pushed):
    """EMT, but after some steps there is no energy."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.asked = getattr(self, "asked", 0) + 1
        if self.asked > 30:
            self.results["energy"] = float("nan")


def test_an_energy_that_is_no_number_is_an_explosion(copper):
    torn = trajectory(copper, calculator=Torn(0.0))
    assert torn.exploded
    assert np.isfinite([torn.drift, torn.wander, torn.mean_temperature]).all()


def test_a_potential_that_refuses_what_has_become_of_a_crystal_has_exploded(copper):
    class Refusing(Pushed):
        def calculate(self, atoms=None, *more):
            super().calculate(atoms, *more)
            self.asked = getattr(self, "asked", 0) + 1
            if self.asked > 30:
                raise BadStructure("Atoms on top of each other.")

    assert trajectory(copper, calculator=Refusing(0.0)).exploded


def test_a_crystal_the_potential_refuses_at_once_has_not_exploded(copper):
    class Stranger(Pushed):
        def calculate(self, atoms=None, *more):
            raise BadStructure("Never seen.")

    with pytest.raises(BadStructure, match="Never seen"):
        trajectory(copper, calculator=Stranger(0.0))
