"""Cohesive energies: an atom alone against the most stable crystal."""

from dataclasses import replace
from pathlib import Path

import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from assessed import labelled

from ase_crystalformer.assessment import cohesion
from ase_crystalformer.assessment.cohesion import Options, measure, summarise

COPPER = labelled(bulk("Cu", a=3.6), cohesive_energy=3.49)


class Sticky(Calculator):
    """Atoms attract each other, however close."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  as ASE has it

    def calculate(self, atoms, *_):
        self.results = {"energy": 0.0, "forces": atoms.positions.mean(0) - atoms.positions}


def test_emt_gives_back_the_cohesion_it_was_fitted_to():
    row = measure(EMT(), COPPER, Options())
    assert row.cohesion == pytest.approx(3.51, abs=0.02)  # Jacobsen, Stoltze, Nørskov 1996, table 1
    assert row.push > 10


def test_atoms_that_collapse_are_noticed():
    row = measure(Sticky(), COPPER, Options())
    assert row.push < 0
    told = {one.name: one.value for one in summarise([row])}
    assert told["elements whose atoms push each other apart"] == 0
    assert told["cohesive energy error, mean absolute"] == pytest.approx(3.49)


def test_the_most_stable_crystal_of_each_element_is_taken(monkeypatch):
    def crystals(name, _):
        assert name == "mp_labelled"
        for energy in (-3.0, -4.0, -3.5):
            yield replace(COPPER, labels={"energy_per_atom": energy}, id=str(energy))
        yield replace(labelled(bulk("Cu", a=3.0)), id="without energy")
        yield labelled(bulk("NaCl", "rocksalt", a=5.6), energy_per_atom=-9.0)

    monkeypatch.setattr(cohesion, "load", crystals)
    (found,) = cohesion.elements(Path("anywhere"), Options())
    assert found.labels == {"cohesive_energy": 3.49}
    assert found.id == "Cu"
    assert found.volume == COPPER.volume
