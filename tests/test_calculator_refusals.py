"""The calculator refuses what it cannot compute, by name, and keeps nothing of it."""

import subprocess
import sys

import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from factories import tiny_potential, tiny_properties

from ase_crystalformer import CrystalformerCalculator
from ase_crystalformer.errors import BadStructure, NoForces, UnknownName, UnseenElement


@pytest.fixture
def calc():
    properties = tiny_properties()
    return CrystalformerCalculator(tiny_potential(), property_model=properties, dtype="float64")


@pytest.fixture
def crystal(wurtzite, calc):
    wurtzite.calc = calc
    return wurtzite


def test_a_slab_has_forces_and_no_stress(slab, calc):
    slab.calc = calc
    forces = slab.get_forces()
    with pytest.raises(PropertyNotImplementedError, match="no volume"):
        slab.get_stress()
    assert forces.shape == (len(slab), 3)
    assert "forces" in calc.results


def test_a_property_model_is_no_potential():
    with pytest.raises(NoForces, match="predicts band_gap, bulk_modulus"):
        CrystalformerCalculator(tiny_properties())


def test_a_model_with_kinks_is_refused():
    with pytest.raises(NoForces, match=r"not smooth.*kinks.*smooth mode"):
        CrystalformerCalculator(tiny_potential(mode="paper", norm=False, degree=0))


def test_unknown_models_and_settings_are_refused(calc):
    with pytest.raises(UnknownName, match="default"):
        CrystalformerCalculator("defalt")
    with pytest.raises(TypeError, match="foo"):
        CrystalformerCalculator(foo=1)
    with pytest.raises(TypeError, match=r"dtype cannot be set.*make another"):
        calc.set(dtype="float32")


def test_results_of_no_structure_are_refused(calc):
    for ask in (calc.get_potential_energy, calc.get_forces, calc.get_stress, calc.calculate):
        with pytest.raises(ValueError, match=r"of which structure\? Give atoms"):
            ask()
    with pytest.raises(ValueError, match=r"band_gap of which structure\? Give atoms"):
        calc.get_property("band_gap")
    assert calc.get_property("energy", allow_calculation=False) is None


#: What is of another type than asked for, and what is said of it.
MISTYPED = {
    "CrystalformerCalculator(None)": "UnknownName: A model is given by its name or path, and",
    "CrystalformerCalculator(dispersion=True)": "UnknownName: There is no dispersion named True. ",
    "relax(bulk('Cu'), dispersion=True)": "UnknownName: There is no dispersion named True. Known",
    "predict([bulk('Cu')], model=None)": "UnknownName: A model is given by its name or path, and",
    "corrected_entry(bulk('Cu'), None)": "BadStructure: The energy is None. Give that of the",
    "corrected_entry(bulk('Cu'), 'x')": "BadStructure: The energy is x. Give that of the",
}


def test_what_is_of_another_type_is_refused_in_a_sentence():
    """In a process that checks no types, as those of users."""
    lines = ["from ase.build import bulk", "from ase_crystalformer import *"]
    for call in MISTYPED:
        lines += ["try:", f"    {call}"]
        lines += ["except Exception as error:", "    print(type(error).__name__, error, sep=': ')"]
    code = "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for line, told in zip(done.stdout.splitlines(), MISTYPED.values(), strict=True):
        assert line.startswith(told)


def test_an_unseen_element_is_named_every_time(crystal):
    crystal.get_forces()
    crystal.symbols[0] = "Xe"
    for _ in range(2):
        with pytest.raises(UnseenElement, match="without Xe"):
            crystal.get_forces()
    assert crystal.calc.results == {}


def spoil_position(atoms):
    atoms.positions[1, 2] = np.nan


def spoil_cell(atoms):
    atoms.cell[0, 0] = np.inf


def flatten_cell(atoms):
    atoms.set_cell(np.zeros((3, 3)))


def stack_atoms(atoms):
    atoms.positions[1] = atoms.positions[0]


def empty(atoms):
    del atoms[:]


@pytest.mark.parametrize("spoil", [spoil_position, spoil_cell, flatten_cell, stack_atoms, empty])
def test_nonsense_is_refused_and_leaves_nothing_behind(spoil, crystal):
    good = crystal.copy()
    expected = crystal.get_potential_energy()
    spoil(crystal)
    with pytest.raises(BadStructure):
        crystal.get_potential_energy()
    assert crystal.calc.results == {}
    with pytest.raises(BadStructure):
        crystal.calc.get_property("band_gap", crystal)
    assert crystal.calc.get_potential_energy(good) == pytest.approx(expected, abs=1e-9)


def test_a_model_that_says_nan_is_not_believed(diamond):
    model = tiny_potential()
    model.head.scale.fill_(np.nan)
    diamond.calc = CrystalformerCalculator(model, property_model=None, dtype="float64")
    with pytest.raises(BadStructure, match="gives energy = nan"):
        diamond.get_potential_energy()
