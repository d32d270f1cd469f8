"""Many structures relaxed at once end where each would alone."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc100
from ase.constraints import FixAtoms, FixCom
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.optimize import FIRE
from factories import tiny_potential, tiny_properties
from pymatgen.core import Lattice, Structure

from ase_crystalformer import CrystalformerCalculator, batching, relax
from ase_crystalformer.errors import NoForces
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.relaxation import relax_each

EXACT = {"dtype": "float64", "progress": False}


@pytest.fixture
def model():
    return tiny_potential()


@pytest.fixture
def pressed():
    """Crystals whose nuclei repel each other."""
    crystals = [
        bulk("NaCl", "rocksalt", a=5.0),
        bulk("Cu", "fcc", a=3.0),
        bulk("Si", "diamond", a=4.0),
    ]
    for atoms in crystals:
        atoms.rattle(0.05, seed=1)
    return crystals


def test_ends_in_the_minima_of_ase(model, pressed):
    calc = CrystalformerCalculator(model, property_model=None, dtype="float64")
    for atoms, found in zip(pressed, relax(pressed, model=model, fmax=0.005, **EXACT), strict=True):
        atoms.calc = calc
        before = atoms.get_potential_energy()
        assert FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.005, steps=200)
        assert found.converged
        assert found.error is None
        assert before - found.energy > 0.1
        assert abs(found.energy - atoms.get_potential_energy()) / len(atoms) < 1e-3


def test_results_are_those_of_the_calculator(model, pressed):
    found = relax(pressed[0], model=model, **EXACT)[0]
    fresh = found.atoms.copy()
    fresh.calc = CrystalformerCalculator(model, property_model=None, dtype="float64")
    assert found.energy == pytest.approx(fresh.get_potential_energy(), abs=1e-9)
    assert found.fmax == pytest.approx(np.linalg.norm(fresh.get_forces(), axis=1).max(), abs=1e-9)
    np.testing.assert_allclose(found.stress, fresh.get_stress(), atol=1e-9)
    np.testing.assert_allclose(found.atoms.get_forces(), fresh.get_forces(), atol=1e-9)
    assert np.abs(found.stress).max() * found.atoms.get_volume() / 2 < 0.05


def test_others_in_the_batch_make_no_difference(model, pressed, monkeypatch):
    together = relax(pressed, model=model, **EXACT)
    monkeypatch.setitem(batching.BUDGET, "cpu", 1)
    alone = relax(pressed, model=model, **EXACT)
    for one, other in zip(together, alone, strict=True):
        assert one.steps == other.steps
        np.testing.assert_allclose(one.atoms.positions, other.atoms.positions, atol=1e-9)


def test_waiting_structures_enter_as_others_leave(model, pressed, monkeypatch):
    monkeypatch.setitem(batching.BUDGET, "cpu", 500)
    sizes = []
    energy = CrystalModel.energy
    monkeypatch.setattr(
        CrystalModel, "energy", lambda *a, **k: sizes.append(a[1].crystals) or energy(*a, **k)
    )
    found = relax([*pressed, *pressed], model=model, **EXACT)
    assert all(result.converged for result in found)
    assert max(sizes) > 1
    assert [len(result.atoms) for result in found] == [2, 1, 2, 2, 1, 2]
    assert len(sizes) < sum(result.steps + 1 for result in found)


def test_bad_structures_fail_alone(model, pressed):
    unseen, broken = pressed[1].copy(), pressed[1].copy()
    unseen.symbols[0] = "Xe"
    broken.cell[0, 0] = np.nan
    kept = pressed[0].copy()
    kept.set_constraint(FixCom())
    given = [unseen, pressed[1], None, broken, kept]
    found = relax(given, model=model, **EXACT)
    assert [result.converged for result in found] == [False, True, False, False, False]
    said = [result.error for result in found]
    assert said[1] is None
    assert said[0].startswith("UnseenElement: ")
    assert "NoneType" in said[2]
    assert "cell is [[nan" in said[3]
    assert "FixCom cannot be kept" in said[4]
    assert np.isnan(found[0].energy)


def test_a_structure_that_explodes_fails_alone(model, pressed, monkeypatch):
    energy = CrystalModel.energy

    def exploding(self, graph, **how):
        result = energy(self, graph, **how)
        result.forces[graph.species == 29] = np.nan
        return result

    monkeypatch.setattr(CrystalModel, "energy", exploding)
    found = relax(pressed, model=model, **EXACT)
    assert [result.converged for result in found] == [True, False, True]
    assert "forces" in found[1].error
    np.testing.assert_array_equal(found[1].atoms.positions, pressed[1].positions)


def test_a_structure_that_falls_apart_is_named(model, pressed, monkeypatch):
    energy = CrystalModel.energy

    def pulling(self, graph, **how):
        result = energy(self, graph, **how)
        result.stress[0] = -torch.eye(3)
        return result

    monkeypatch.setattr(CrystalModel, "energy", pulling)
    found = relax(pressed[1], model=model, steps=100, **EXACT)[0]
    assert "volume changed by a factor of 1" in found.error
    assert not found.converged


def test_memory_that_runs_out_halves_the_batch(model, pressed, monkeypatch):
    energy = CrystalModel.energy

    def small(self, graph, **how):
        if graph.crystals > 1 or graph.species[0] == 14:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return energy(self, graph, **how)

    monkeypatch.setattr(CrystalModel, "energy", small)
    found = relax(pressed, model=model, **EXACT)
    assert [result.converged for result in found] == [True, True, False]
    assert found[2].error.startswith("OutOfMemory: 2 atoms do not fit")


def test_steps_end_it_and_it_says_so(model, pressed):
    found = relax(pressed, model=model, fmax=1e-6, steps=2, **EXACT)
    assert [result.steps for result in found] == [2, 2, 2]
    assert not any(result.converged for result in found)
    assert all(result.error is None for result in found)


def test_a_relaxed_structure_does_not_move(model, fcc):
    found = relax(fcc, model=model, fmax=100.0, **EXACT)[0]
    assert found.steps == 0
    np.testing.assert_array_equal(found.atoms.cell.array, fcc.cell.array)


def test_a_fixed_cell_stays(model, pressed):
    for atoms, found in zip(
        pressed, relax(pressed, model=model, relax_cell=False, **EXACT), strict=True
    ):
        np.testing.assert_array_equal(found.atoms.cell.array, atoms.cell.array)
        assert found.converged
    assert np.abs(found.stress).max() > 0.01


def test_structures_given_are_not_changed(model, pressed):
    pressed[0].info["source"] = "mine"
    before = pressed[0].copy()
    found = relax(pressed[0], model=model, **EXACT)[0]
    assert pressed[0] == before
    assert pressed[0].calc is None
    assert found.atoms.info["source"] == "mine"


def test_fixed_atoms_stay(model):
    slab = fcc100("Al", (2, 1, 3), a=3.3, vacuum=5.0)
    slab.rattle(0.05, seed=1)
    slab.set_constraint(FixAtoms(range(2)))
    found = relax(slab, model=model, relax_cell=False, **EXACT)[0]
    moved = np.linalg.norm(found.atoms.positions - slab.positions, axis=1)
    assert not moved[:2].any()
    assert (moved[2:] > 1e-3).all()
    assert found.converged
    assert np.abs(found.atoms.get_forces(apply_constraint=False)[:2]).max() > 0.05


def test_a_slab_relaxes_in_its_plane_only(model):
    slab = fcc100("Al", (1, 1, 2), a=3.3, periodic=False)
    slab.set_cell([*slab.cell[:2], np.zeros(3)])
    slab.pbc = (True, True, False)
    found = relax(slab, model=model, **EXACT)[0]
    assert found.converged
    assert found.stress is None
    assert (np.linalg.norm(found.atoms.cell.array - slab.cell.array, axis=1) > 0.01).tolist() == [
        True,
        True,
        False,
    ]
    np.testing.assert_allclose(found.atoms.cell.array[:, 2], 0, atol=1e-12)


def test_a_molecule_relaxes_without_a_cell(model, water):
    water.positions[:, 2] *= 0.7
    found = relax(water, model=model, fmax=0.01, **EXACT)[0]
    assert found.converged
    assert not found.atoms.cell.any()


def test_other_libraries_structures_come_back_as_atoms(model, pressed, tmp_path):
    salt = pressed[0]
    scaled = salt.get_scaled_positions()
    given = Structure(Lattice(salt.cell.array), ["Na", "Cl"], scaled)
    found, same = relax([given, salt], model=model, **EXACT)
    assert isinstance(found.atoms, Atoms)
    assert found.energy == pytest.approx(same.energy, abs=1e-6)
    write(tmp_path / "relaxed.extxyz", [found.atoms, same.atoms])
    assert read(tmp_path / "relaxed.extxyz").get_potential_energy() == pytest.approx(found.energy)


def test_a_property_model_relaxes_nothing(fcc):
    with pytest.raises(NoForces):
        relax(fcc, model=tiny_properties(), progress=False)


def test_nothing_to_relax_is_no_result(model):
    assert relax([], model=model, progress=False) == []


def test_float32_is_enough_for_usual_purposes(model, pressed):
    exact = relax(pressed, model=model, **EXACT)
    fast = relax(pressed, model=model, progress=False)
    for one, other in zip(exact, fast, strict=True):
        assert abs(one.energy - other.energy) < 1e-3
        assert other.converged


def test_the_bar_counts_structures(model, fcc, capsys):
    relax([fcc, None], model=model, steps=0)
    assert "2/2" in capsys.readouterr().err


# ------------------------------------------------------------------ streams


def test_a_stream_is_read_as_there_is_room(model, pressed, monkeypatch):
    monkeypatch.setitem(batching.BUDGET, "cpu", 200)
    read_at, done = [], []

    def stream():
        for number in range(9):
            read_at.append(len(done))
            yield pressed[number % 3]

    for number, result in relax_each(stream(), model=model, dtype="float64"):
        assert result.converged
        done.append(number)
    assert sorted(done) == list(range(9))
    assert read_at[0] == 0
    assert read_at[-1] > 2
