"""Equations of state, elastic tensors and phonons beside what is computed in other ways."""

import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from programs_run import program, run

programs = program("programs")
elastic = program("elastic_tensor")
eos = program("equation_of_state")
vibrations = program("phonons")

PROGRAMS = (
    "active_learning",
    "elastic_tensor",
    "equation_of_state",
    "molecular_dynamics",
    "neb",
    "phonons",
    "surface_energy",
    "vacancy_energy",
)


@pytest.fixture(scope="module")
def copper():
    return programs.at_rest(bulk("Cu", a=3.59), EMT(), fmax=1e-4)


@pytest.fixture(scope="module")
def unstable():
    """Body-centred copper, which tetragonal strain turns into the face-centred one."""
    return programs.at_rest(bulk("Cu", "bcc", a=2.86), EMT(), fmax=1e-4)


@pytest.fixture(scope="module")
def tensor(copper):
    return elastic.elastic_tensor(copper, EMT())


@pytest.fixture(scope="module")
def phonopy(copper):
    return vibrations.force_constants(copper, EMT(), length=7.0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_has_an_example(name, monkeypatch, capsys):
    assert run(name, monkeypatch, "--help") == 0
    assert f"python workflows/{name}.py" in capsys.readouterr().out


def strained(crystal, deformation):
    atoms = crystal.copy()
    atoms.set_cell(crystal.cell @ deformation, scale_atoms=True)
    atoms.calc = EMT()
    return atoms


def curvature(crystal, deform, step=0.002):
    """Second derivative of the energy per volume by a strain, GPa."""
    low, middle, high = (
        strained(crystal, deform(size)).get_potential_energy() for size in (-step, 0, step)
    )
    return (low - 2 * middle + high) / step**2 / crystal.get_volume() / units.GPa


def test_the_equation_of_state_agrees_with_the_stress(copper):
    found = eos.equation_of_state(copper, EMT(), width=0.03)
    pressures = [
        -strained(copper, np.eye(3) * factor).get_stress()[:3].mean() / units.GPa
        for factor in (0.999, 1.001)
    ]
    assert found.volume == pytest.approx(copper.get_volume(), rel=1e-3)
    assert found.bulk_modulus == pytest.approx((pressures[0] - pressures[1]) / 0.006, rel=0.01)


def test_energies_without_a_minimum_are_refused(copper):
    with pytest.raises(Exception, match="lowest at an end"):
        eos.equation_of_state(strained(copper, 1.05 * np.eye(3)), EMT(), width=0.02)


def test_silicon_is_near_pbe(monkeypatch, tmp_path):
    # PBE: a = 5.469 Å, B0 = 88.6 GPa (E. Bosoni et al., Nat. Rev. Phys. 6, 45 (2024)).
    write(tmp_path / "Si.cif", bulk("Si"))
    assert run("equation_of_state", monkeypatch, tmp_path / "Si.cif", "-o", tmp_path) == 0
    found = json.loads((tmp_path / "equation_of_state.json").read_text())
    assert (8 * found["volume"]) ** (1 / 3) == pytest.approx(5.469, rel=0.03)
    assert found["bulk_modulus"] == pytest.approx(88.6, rel=0.35)
    assert (tmp_path / "equation_of_state.png").stat().st_size > 5_000


def test_elastic_constants_are_curvatures_of_the_energy(copper, tensor):
    matrix = np.array(tensor.voigt)

    def shear(size):
        return np.eye(3) + size / 2 * np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])

    def volume(size):
        return np.eye(3) * (1 + size)

    assert matrix[3, 3] == pytest.approx(curvature(copper, shear), rel=0.01)
    assert matrix[:3, :3].sum() == pytest.approx(curvature(copper, volume), rel=0.01)
    found = elastic.described("Cu", tensor)
    assert found.stable
    # Of cubic crystals, from Zener's ratio.
    zener = 2 * matrix[3, 3] / (matrix[0, 0] - matrix[0, 1])
    assert found.anisotropy == pytest.approx(1.2 * (zener**0.5 - zener**-0.5) ** 2, rel=1e-3)


def test_youngs_modulus_by_direction_is_that_of_cubic_crystals(tensor):
    compliance = np.linalg.inv(np.array(tensor.voigt))
    s11, s12, s44 = compliance[0, 0], compliance[0, 1], compliance[3, 3]
    directions = np.array([[1, 0, 0], np.ones(3) / 3**0.5])
    expected = [1 / s11, 1 / (s11 - 2 / 3 * (s11 - s12 - s44 / 2))]
    assert elastic.young_by_direction(tensor, directions) == pytest.approx(expected, rel=1e-6)


def test_an_unstable_crystal_is_told(unstable):
    found = elastic.described("Cu", elastic.elastic_tensor(unstable, EMT(), strain=0.004))
    assert not found.stable
    assert min(found.eigenvalues) < -1


def test_phonons_at_the_border_of_the_zone_are_frozen_ones(copper, phonopy):
    # Planes along z that move against each other, two atoms per cell.
    a = (4 * copper.get_volume()) ** (1 / 3)
    cell = np.diag([a / 2**0.5, a / 2**0.5, a])
    planes = Atoms("Cu2", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=cell, pbc=True)
    planes.calc = EMT()
    frequencies = []
    for direction in (2, 0):
        forces = []
        for move in (0.005, -0.005):
            planes.set_scaled_positions([(0, 0, 0), (0.5, 0.5, 0.5)])
            planes.positions[:, direction] += [move, -move]
            forces.append(planes.get_forces()[0, direction])
        square = -(forces[0] - forces[1]) / 0.01 / planes.get_masses()[0]
        frequencies.append(square**0.5 * units.fs * 1000 / (2 * np.pi))  # THz
    found = np.unique(np.round(phonopy.run_qpoints([[0.5, 0.5, 0]]).frequencies, 4))
    assert found[-1] == pytest.approx(frequencies[0], rel=0.01)
    assert found[0] == pytest.approx(frequencies[1], rel=0.01)


def test_heat_is_that_of_the_free_energy_and_of_dulong_and_petit(phonopy):
    temperatures = [290.0, 300.0, 310.0, 3000.0]
    found = vibrations.phonons(phonopy, "Cu", temperatures=temperatures, mesh=20.0)
    assert found.stable
    low, _, high, _ = found.free_energy
    assert found.entropy[1] == pytest.approx(-1000 * (high - low) / 20, rel=1e-3)
    low, _, high, _ = found.entropy
    assert found.heat_capacity[1] == pytest.approx(300 * (high - low) / 20, rel=1e-3)
    assert found.heat_capacity[3] == pytest.approx(3 * 8.31446, rel=2e-3)
    assert np.trapezoid(found.density, found.frequencies) == pytest.approx(3, rel=0.02)


def test_imaginary_modes_are_told(unstable):
    phonopy = vibrations.force_constants(unstable, EMT(), length=7.0)
    found = vibrations.phonons(phonopy, "Cu", temperatures=[300.0], mesh=10.0, points=20)
    assert not found.stable
    assert np.min(found.bands) < -0.1


def test_a_program_without_a_crystal_says_so(monkeypatch, tmp_path):
    (tmp_path / "broken.cif").write_text("nothing")
    assert "broken.cif cannot be read" in run("phonons", monkeypatch, tmp_path / "broken.cif")
    write(tmp_path / "molecule.xyz", Atoms("H2", positions=[(0, 0, 0), (0, 0, 0.74)]))
    told = run("phonons", monkeypatch, tmp_path / "molecule.xyz", "-c", "emt")
    assert "give a crystal" in told
