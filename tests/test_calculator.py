"""What ASE, and those who script it, may count on."""

import copy
import json
import pickle  # noqa: TID251
import warnings

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.mixing import SumCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from factories import tiny_potential, tiny_properties

from ase_crystalformer import CrystalformerCalculator, CrystalModel, ase_plugin
from ase_crystalformer.errors import OutsideTraining


@pytest.fixture
def properties():
    return tiny_properties()


@pytest.fixture
def calc(properties):
    return CrystalformerCalculator(tiny_potential(), property_model=properties, dtype="float64")


def calculator(model, dtype="float64"):
    return CrystalformerCalculator(model, property_model=None, dtype=dtype)


@pytest.fixture
def crystal(wurtzite, calc):
    wurtzite.calc = calc
    return wurtzite


@pytest.mark.parametrize("kind", ["wurtzite", "left_handed", "fcc", "slab", "water"])
def test_forces_are_minus_the_slope_of_the_energy(kind, calc, request):
    atoms = request.getfixturevalue(kind)
    atoms.rattle(0.05, seed=1)
    atoms.calc = calc
    # Smaller steps show the rounding of a total energy of 800 eV, larger ones its curvature.
    slope = calculate_numerical_forces(atoms, eps=3e-5)
    largest = max(np.abs(slope).max(), 1e-3)
    assert np.abs(atoms.get_forces() - slope).max() < 1e-6 * largest


def test_stress_is_the_slope_of_the_energy_with_strain(crystal):
    slope = calculate_numerical_stress(crystal, eps=1e-5)
    assert crystal.get_stress().shape == (6,)
    assert np.abs(crystal.get_stress() - slope).max() < 1e-6 * np.abs(slope).max()


def test_results_are_of_plain_types(crystal):
    crystal.get_forces()
    found = crystal.calc.results
    assert set(found) == {"energy", "free_energy", "energies", "forces", "stress"}
    assert type(found["energy"]) is float
    assert found["free_energy"] == found["energy"]
    assert {found[name].dtype.str for name in ("energies", "forces", "stress")} == {"<f8"}
    assert found["energies"].sum() == pytest.approx(found["energy"], rel=1e-12)


def test_float32_agrees_with_float64(wurtzite):
    model = tiny_potential()
    exact, fast = (calculator(model, dtype) for dtype in ("float64", "float32"))
    difference = fast.get_potential_energy(wurtzite) - exact.get_potential_energy(wurtzite)
    assert 0 < abs(difference) < 1e-5  # eV; the reference energies add up to -760 eV
    np.testing.assert_allclose(fast.get_forces(wurtzite), exact.get_forces(wurtzite), atol=1e-5)


def test_derivatives_are_computed_once_they_were_asked_for(crystal):
    crystal.get_potential_energy()
    assert "forces" not in crystal.calc.results
    crystal.get_forces()
    crystal.rattle(0.01, seed=2)
    crystal.get_potential_energy()
    assert "forces" in crystal.calc.results


def test_nothing_is_computed_twice(crystal, monkeypatch):
    calls = []
    compute = CrystalModel.energy
    monkeypatch.setattr(
        CrystalModel, "energy", lambda *given, **how: calls.append(1) or compute(*given, **how)
    )
    crystal.get_forces(), crystal.get_potential_energy(), crystal.get_stress()
    assert len(calls) == 1
    crystal.positions[0, 0] += 0.01
    crystal.get_forces()
    assert len(calls) == 2


def test_pair_lists_serve_again_in_motion(crystal):
    crystal.set_velocities(np.full((len(crystal), 3), 1e-3))
    VelocityVerlet(crystal, 0.5 * units.fs).run(10)
    assert crystal.calc._pairs.builds == 1
    assert crystal.calc._pairs.reuses >= 10


def test_other_elements_in_the_same_places_are_other_crystals(crystal):
    before = crystal.get_potential_energy()
    crystal.symbols[0] = "Cu"
    assert crystal.get_potential_energy() - before == pytest.approx(10, abs=3)


def test_results_given_out_are_copies(crystal):
    crystal.get_forces()[:] = 7
    assert not (crystal.get_forces() == 7).any()


def test_energy_is_conserved_in_motion(wurtzite):
    wurtzite.calc = calculator(tiny_potential())
    wurtzite.rattle(0.1, seed=3)
    total, potential = wurtzite.get_total_energy(), wurtzite.get_potential_energy()
    VelocityVerlet(wurtzite, 1 * units.fs).run(20)
    exchanged = abs(wurtzite.get_potential_energy() - potential)
    assert exchanged > 0.1  # eV
    assert abs(wurtzite.get_total_energy() - total) < 0.01 * exchanged


def test_relaxes_atoms_and_cell_with_ase(rocksalt, calc):
    rocksalt.set_cell(rocksalt.cell * 0.92, scale_atoms=True)
    rocksalt.rattle(0.05, seed=1)
    rocksalt.calc = calc
    before = rocksalt.get_potential_energy()
    assert FIRE(FrechetCellFilter(rocksalt), logfile=None).run(fmax=0.01, steps=100)
    assert rocksalt.get_potential_energy() < before
    assert np.abs(rocksalt.get_forces()).max() < 0.01


def test_equation_of_state_needs_energies_only(fcc, calc):
    def scaled(factor):
        atoms = fcc.copy()
        atoms.set_cell(fcc.cell * factor, scale_atoms=True)
        atoms.calc = calc
        return atoms

    crystals = [scaled(factor) for factor in (0.62, 0.64, 0.66, 0.68, 0.7)]
    energies = [atoms.get_potential_energy() for atoms in crystals]
    EquationOfState([atoms.get_volume() for atoms in crystals], energies)
    assert energies == sorted(energies, reverse=True)  # nuclei repel each other
    assert "forces" not in calc.results


def test_works_in_a_sum_of_calculators(wurtzite, calc):
    wurtzite.calc = SumCalculator([calc, calc])
    twice = wurtzite.get_forces()
    np.testing.assert_allclose(twice, 2 * calc.get_forces(wurtzite))
    assert wurtzite.get_stress().shape == (6,)


# ------------------------------------------------------------------ other properties


def test_properties_come_from_the_property_model(crystal, properties):
    expected = properties.double().predict([crystal])[0]
    assert crystal.calc.get_property("band_gap", crystal) == pytest.approx(expected["band_gap"])
    assert {"band_gap", "bulk_modulus", "forces"} <= set(crystal.calc.implemented_properties)


def test_properties_follow_the_atoms(crystal):
    before = crystal.calc.get_property("band_gap", crystal)
    crystal.positions[0] += 0.3
    assert crystal.calc.get_property("band_gap", crystal, allow_calculation=False) is None
    assert crystal.calc.get_property("band_gap", crystal) != before


def test_properties_stay_out_of_the_results(crystal):
    crystal.get_potential_energy()
    crystal.calc.get_property("band_gap", crystal)
    assert "band_gap" not in crystal.calc.results
    assert SinglePointCalculator(crystal, **crystal.calc.results).results["energy"]


def test_property_models_are_optional(wurtzite):
    calc = calculator(tiny_potential())
    assert "band_gap" not in calc.implemented_properties
    with pytest.raises(PropertyNotImplementedError):
        calc.get_property("band_gap", wurtzite)


# ------------------------------------------------------------------ files and copies


@pytest.mark.parametrize("suffix", ["extxyz", "traj", "json", "db"])
def test_results_survive_a_file(suffix, crystal, tmp_path):
    file = tmp_path / f"crystal.{suffix}"
    crystal.get_forces()
    crystal.calc.get_property("band_gap", crystal)
    write(file, crystal)
    back = read(file)
    assert back.get_potential_energy() == pytest.approx(crystal.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(back.get_forces(), crystal.get_forces(), atol=1e-7)
    np.testing.assert_allclose(back.get_stress(), crystal.get_stress(), atol=1e-7)


def test_databases_say_which_model_it_was(crystal, tmp_path):
    crystal.get_forces()
    with connect(tmp_path / "crystals.db") as database:
        row = database.get(database.write(crystal))
    assert row.calculator == "crystalformer"
    assert row.calculator_parameters["model"] == "tiny-potential"
    assert len(row.calculator_parameters["sha256"]) == 64


def test_an_uncomputed_crystal_can_be_written(crystal, slab, tmp_path):
    for atoms in (crystal, slab):
        atoms.calc = crystal.calc
        write(tmp_path / "crystal.db", atoms)
    assert crystal.calc.results == {}


def test_parameters_are_json(calc):
    told = json.loads(json.dumps(calc.todict()))
    assert told == dict(calc.parameters)
    assert told["dtype"] == "float64"


def test_parameters_of_other_weights_differ(calc):
    other = tiny_potential()
    other.head.scale.fill_(2.0)
    assert calculator(other).parameters["sha256"] != calc.parameters["sha256"]


def test_repr_says_what_it_is(calc):
    assert repr(calc) == (
        "CrystalformerCalculator(model='tiny-potential', property_model='tiny-properties', "
        "device='cpu', dtype='float64')"
    )


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_copies_compute_the_same(copied, crystal):
    forces = crystal.get_forces()
    again = copied(crystal)
    again.calc.reset()
    np.testing.assert_array_equal(again.get_forces(), forces)
    assert again.calc.get_property("band_gap", again) > 0
    again.positions[0] += 0.1
    assert np.abs(again.get_forces() - crystal.get_forces()).max() > 1e-4


def test_the_model_given_is_left_as_it_was(wurtzite):
    model = tiny_potential()
    calculator(model).get_forces(wurtzite)
    assert all(weight.requires_grad for weight in model.parameters())
    assert str(model.dtype) == "torch.float32"


def test_a_lone_atom_costs_its_reference(calc):
    atoms = bulk("Cu", "fcc", a=30.0)
    assert calc.get_potential_energy(atoms) == pytest.approx(-290, abs=5)
    assert not calc.get_forces(atoms).any()
    assert not calc.get_stress(atoms).any()


def test_ase_finds_the_calculator_as_a_plugin():
    pytest.importorskip("ase._4.plugins.plugin", reason="ASE before 3.29 asks for no plugins")
    (plugin,) = ase_plugin.__ase_plugins__
    assert plugin.name == "crystalformer"
    assert plugin.implementation is CrystalformerCalculator


def test_forces_inside_inference_mode_are_the_same(crystal, calc):
    usual = crystal.get_forces()
    calc.reset()
    with torch.inference_mode():
        inside = crystal.get_forces()
    assert np.array_equal(inside, usual)


def test_a_model_given_inside_inference_mode_has_the_same_forces(crystal, calc):
    usual, model = crystal.get_forces(), tiny_potential()
    with torch.inference_mode():
        crystal.calc = calculator(model)
        inside = crystal.get_forces()
    assert np.array_equal(inside, usual)


def test_a_guessed_property_is_warned_of_once():
    calculator = CrystalformerCalculator()
    apart = bulk("Cu", a=9.0)
    with pytest.warns(OutsideTraining, match=r"atom 0 \(Cu\) is 1\.5 Å or more beyond bond length"):
        calculator.get_property("bulk_modulus", apart)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calculator.get_property("bulk_modulus", bulk("Cu", a=9.5))
        CrystalformerCalculator().get_property("bulk_modulus", bulk("Cu"))
