"""Molecular dynamics and barriers beside what is known of them."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read, write
from packaging.requirements import Requirement
from programs_run import program, run

from ase_crystalformer import CrystalformerError

programs = program("programs")
md = program("molecular_dynamics")
neb = program("neb")

SMALL = {"calculator": "emt", "length": 3.5, "every": 2, "checkpoint": 4}


class Einstein(Calculator):
    """Atoms on springs, k = 5 eV/Å², to where they are first seen."""

    implemented_properties = ("energy", "forces", "stress")
    sites = None

    def calculate(self, atoms, properties, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if Einstein.sites is None or len(Einstein.sites) != len(atoms):
            Einstein.sites = np.round(atoms.get_scaled_positions() * 6) / 6 @ atoms.cell.array
        moved = atoms.positions - Einstein.sites
        energy = 2.5 * (moved**2).sum()
        self.results = {"energy": energy, "forces": -5 * moved, "stress": np.zeros(6)}


class Balloon(Calculator):
    """A cell whose energy depends on its volume alone, of 50 GPa, lowest at 12 Å³/atom."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms, properties, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        rest, modulus = 12 * len(atoms), 50 * units.GPa
        swollen = atoms.get_volume() / rest - 1
        stress = modulus * swollen * np.array([1.0, 1, 1, 0, 0, 0])
        forces = np.zeros((len(atoms), 3))
        energy = modulus * rest * swollen**2 / 2
        self.results = {"energy": energy, "forces": forces, "stress": stress}


def test_every_ase_that_may_be_installed_has_the_integrator():
    """LangevinBAOAB came with ASE 3.27."""
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    told = map(Requirement, tomllib.loads(project)["project"]["dependencies"])
    [allowed] = [one.specifier for one in told if one.name == "ase"]
    assert allowed.contains("3.27.0")
    assert not allowed.contains("3.26.0")


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_a_broken_run_ends_where_an_unbroken_one_does(ensemble, tmp_path, monkeypatch):
    settings = md.Settings(ensemble=ensemble, pressure=2.0, **SMALL)
    crystal = bulk("Cu", cubic=True)
    whole = md.simulate(crystal, settings, 32, tmp_path / "whole")
    count = iter(range(100))
    reading = md.reading

    def broken(*told):
        if next(count) == 7:
            raise KeyboardInterrupt
        return reading(*told)

    with monkeypatch.context() as patch:
        patch.setattr(md, "reading", broken)
        with pytest.raises(KeyboardInterrupt):
            md.simulate(crystal, settings, 32, tmp_path / "broken")
    resumed = md.simulate(crystal, settings, 32, tmp_path / "broken")
    assert resumed.shape == (17, 7)
    assert np.array_equal(whole, resumed)
    frames = [read(tmp_path / name / "trajectory.traj", ":") for name in ("whole", "broken")]
    assert len(frames[0]) == len(frames[1]) == 17
    assert np.array_equal(frames[0][-1].positions, frames[1][-1].positions)
    assert not np.allclose(frames[0][-1].positions, frames[0][0].positions, atol=1e-3)


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    crystal, settings = bulk("Cu", cubic=True), md.Settings(**SMALL)
    whole = md.simulate(crystal, settings, 16, tmp_path / "whole")
    md.simulate(crystal, settings, 8, tmp_path / "broken")
    with (tmp_path / "broken" / "readings.csv").open("a") as file:
        file.write("1")  # of step 10
    assert np.array_equal(md.simulate(crystal, settings, 16, tmp_path / "broken"), whole)


def test_other_settings_are_refused_by_name(tmp_path):
    crystal = bulk("Cu", cubic=True)
    md.simulate(crystal, md.Settings(**SMALL), 8, tmp_path)
    with pytest.raises(CrystalformerError, match=r"temperature was 300\.0"):
        md.simulate(crystal, md.Settings(temperature=500.0, **SMALL), 16, tmp_path)
    with pytest.raises(CrystalformerError, match="crystal was another"):
        md.simulate(bulk("Ag", cubic=True), md.Settings(**SMALL), 16, tmp_path)


@pytest.mark.parametrize("ensemble", ["nve", "npt"])
def test_another_start_is_refused(ensemble, tmp_path):
    crystal, settings = bulk("Cu", cubic=True), md.Settings(ensemble=ensemble, **SMALL)
    md.simulate(crystal, settings, 8, tmp_path)
    stretched, shaken = bulk("Cu", cubic=True, a=3.8), crystal.copy()
    shaken.rattle(0.1)
    with pytest.raises(CrystalformerError, match="another cell"):
        md.simulate(stretched, settings, 16, tmp_path)
    with pytest.raises(CrystalformerError, match="atoms elsewhere"):
        md.simulate(shaken, settings, 16, tmp_path)
    with np.load(tmp_path / "checkpoint.npz") as told:  # as runs were kept once
        former = {key: told[key] for key in told if not key.startswith("start")}
    np.savez(tmp_path / "checkpoint.npz", **former)
    if ensemble == "nve":
        with pytest.raises(CrystalformerError, match="another cell"):
            md.simulate(stretched, settings, 16, tmp_path)
    assert md.simulate(crystal, settings, 16, tmp_path).shape == (9, 7)


def test_at_constant_energy_it_wanders_by_the_square_of_the_time_step(tmp_path):
    wander = []
    for step in (2.0, 4.0):
        settings = md.Settings(femtoseconds=step, temperature=200.0, **SMALL)
        readings = md.simulate(
            bulk("Cu", cubic=True), settings, round(200 / step), tmp_path / f"{step}"
        )
        wander.append(readings[:, 3].std())
    assert wander[1] / wander[0] == pytest.approx(4, rel=0.25)


@pytest.mark.slow
def test_a_thermostat_shares_heat_equally(tmp_path):
    settings = md.Settings(
        calculator=f"{__name__}:Einstein", ensemble="nvt", temperature=600.0, length=10.0, every=5
    )
    readings = md.simulate(bulk("Cu", cubic=True, a=3.6), settings, 900, tmp_path)
    half = readings[len(readings) // 2 :]
    assert half[:, 4].mean() == pytest.approx(600, rel=0.06)
    assert half[:, 2].mean() == pytest.approx(1.5 * units.kB * 600, rel=0.06)


def test_a_barostat_keeps_the_pressure(tmp_path):
    settings = md.Settings(
        calculator=f"{__name__}:Balloon", ensemble="npt", pressure=3.0, friction=10.0, length=7.0
    )
    readings = md.simulate(bulk("Cu", cubic=True, a=3.6), settings, 1500, tmp_path)
    found = md.summarise(readings, 32, settings)
    assert found.pressure == pytest.approx(3.0, abs=0.3)
    # The motion of atoms presses too: N kT / V.
    ideal = units.kB * 300 / found.volume / units.GPa
    assert found.volume == pytest.approx(12 * (1 - (3.0 - ideal) / 50), rel=0.01)


def test_an_explosion_is_told(tmp_path):
    settings = md.Settings(femtoseconds=60.0, **SMALL)
    with pytest.raises(CrystalformerError, match="smaller time step"):
        md.simulate(bulk("Cu", cubic=True), settings, 200, tmp_path)


@pytest.fixture(scope="module")
def hop():
    """A copper atom before and after it hops into the vacancy beside it."""
    crystal = programs.at_rest(bulk("Cu", a=3.59, cubic=True), EMT()).repeat(2)
    hole = crystal.positions[0].copy()
    del crystal[0]
    neighbour = int(np.argmin(np.linalg.norm(crystal.positions - hole, axis=1)))
    after = crystal.copy()
    after.positions[neighbour] = hole
    return crystal, after, neighbour


def test_the_barrier_of_a_hop_is_at_its_middle(hop, tmp_path, monkeypatch, capsys):
    before, after, atom = hop
    middle = before.copy()
    middle.positions[atom] = (before.positions[atom] + after.positions[atom]) / 2
    middle.set_constraint(FixAtoms([atom]))
    saddle = programs.at_rest(middle, EMT(), fmax=0.01, cell=False).get_potential_energy()
    start = programs.at_rest(before, EMT(), fmax=0.01, cell=False).get_potential_energy()
    write(tmp_path / "before.extxyz", before)
    write(tmp_path / "after.extxyz", after)
    given = [tmp_path / "before.extxyz", tmp_path / "after.extxyz", "-c", "emt", "--images", 3]
    assert run("neb", monkeypatch, *given, "-o", tmp_path) == 0
    assert "Barrier" in capsys.readouterr().out
    path = read(tmp_path / "path.extxyz", ":")
    found = neb.barrier([_with_emt(image) for image in path])
    assert found.forward == pytest.approx(saddle - start, abs=0.005)
    assert found.reaction == pytest.approx(0, abs=0.002)


def _with_emt(atoms):
    atoms.calc = EMT()
    return atoms


def test_states_that_do_not_fit_are_refused(hop):
    before, after, _ = hop
    with pytest.raises(CrystalformerError, match="same atoms"):
        neb.band(before, after[:-1], EMT)
    beyond = before.copy()
    beyond.positions[0] += before.cell[0]
    for same in (before, beyond):
        with pytest.raises(CrystalformerError, match="no barrier"):
            neb.band(before, same, EMT)
    stretched = Atoms(after)
    stretched.set_cell(after.cell * 1.01)
    with pytest.raises(CrystalformerError, match="cells"):
        neb.band(before, stretched, EMT)
