"""Our potentials pass torch-sim's own test of a model, and carry its dynamics."""

import warnings

import numpy as np
import pytest
import torch
from ase.build import bulk
from factories import tiny_potential

from ase_crystalformer import CrystalformerCalculator
from ase_crystalformer.errors import BadStructure, UnseenElement

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ts = pytest.importorskip("torch_sim")

from torch_sim.models.interface import validate_model_outputs

from ase_crystalformer.torchsim import CrystalformerModel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

EXACT = {"device": "cpu", "dtype": "float64"}


@pytest.fixture(scope="module")
def potential():
    return tiny_potential()


@pytest.fixture
def model(potential):
    return CrystalformerModel(potential, **EXACT)


def state_of(structures):
    return ts.io.atoms_to_state(structures, torch.device("cpu"), torch.float64)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_passes_the_test_of_torch_sim(dtype):
    model = CrystalformerModel("default", device="cpu", dtype=dtype)
    validate_model_outputs(model, torch.device("cpu"), getattr(torch, dtype))


def test_gives_what_the_calculator_gives(model, potential, rocksalt, wurtzite, left_handed):
    structures = [rocksalt, wurtzite, left_handed]
    found = model(state_of(structures))
    calc = CrystalformerCalculator(potential, property_model=None, dtype="float64")
    forces = found["forces"].split([len(atoms) for atoms in structures])
    for atoms, energy, force, stress in zip(
        structures, found["energy"], forces, found["stress"], strict=True
    ):
        atoms.calc = calc
        assert energy.item() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(force, atoms.get_forces(), atol=1e-9)
        np.testing.assert_allclose(stress, atoms.get_stress(voigt=False), atol=1e-9)


def test_a_molecule_has_no_stress(model, potential, water):
    found = model(state_of([water]))
    water.calc = CrystalformerCalculator(potential, property_model=None, dtype="float64")
    np.testing.assert_allclose(found["forces"], water.get_forces(), atol=1e-9)
    assert found["stress"].isnan().all()


def test_pairs_follow_atoms_that_move_far(model, potential, wurtzite):
    calc = CrystalformerCalculator(potential, property_model=None, dtype="float64")
    wurtzite.calc = calc
    for number in range(4):
        wurtzite.rattle(0.3, seed=number)
        wurtzite.positions[0] += 3 * wurtzite.cell[0]
        wurtzite.set_cell(wurtzite.cell.array * 0.97, scale_atoms=True)
        found = model(state_of([wurtzite]))
        np.testing.assert_allclose(found["forces"], wurtzite.get_forces(), atol=1e-9)


def test_pairs_follow_a_state_that_is_moved_in_place(model, potential, wurtzite):
    """One crystal creeps; whenever the other leaps, all pairs are put together anew."""
    state = state_of([wurtzite, wurtzite])
    generator = torch.Generator().manual_seed(0)
    creep, leap = torch.randn(2, len(wurtzite), 3, generator=generator, dtype=torch.float64)
    creep *= 0.2 / creep.norm(dim=1).max()
    for number in range(12):
        state.positions.add_(torch.cat([creep, (-1) ** number * leap]))
        found = model(state)
    expected = CrystalformerModel(potential, **EXACT)(state)
    np.testing.assert_allclose(found["forces"], expected["forces"], atol=1e-9)


def test_a_state_is_not_changed_and_results_are_detached(model, rocksalt):
    state = state_of([rocksalt])
    before = state.clone()
    found = model(state)
    assert torch.equal(state.positions, before.positions)
    assert torch.equal(state.cell, before.cell)
    assert not any(values.requires_grad for values in found.values())


def test_what_cannot_be_computed_is_named(model, rocksalt):
    with pytest.raises(UnseenElement, match="Xe"):
        model(state_of([bulk("Xe", "fcc", a=6.2)]))
    model(state_of([rocksalt]))
    state = state_of([rocksalt])
    state.positions[0, 0] = np.nan
    with pytest.raises(BadStructure, match="not finite"):
        model(state)


def test_dynamics_conserve_energy():
    silicon = bulk("Si", cubic=True)
    drift = {}
    for femtoseconds in (1.0, 2.0):
        model = CrystalformerModel("default", **EXACT)
        energies = []
        state = state_of([silicon])
        init, update = ts.integrators.nve(
            model,
            dt=torch.tensor(femtoseconds * 1e-3 * ts.units.MetalUnits.time, dtype=torch.float64),
            kT=torch.tensor(600 * ts.units.MetalUnits.temperature, dtype=torch.float64),
            seed=0,
        )
        state = init(state)
        for _ in range(int(60 / femtoseconds)):
            state = update(state)
            kinetic = (state.momenta**2 / (2 * state.masses[:, None])).sum()
            energies.append(float(state.energy[0] + kinetic))
        drift[femtoseconds] = np.ptp(energies) / len(silicon)
    assert drift[1.0] < 5e-4
    assert 2.5 < drift[2.0] / drift[1.0] < 6.0
