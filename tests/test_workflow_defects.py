"""Surfaces and vacancies beside what is computed in other ways."""

import json

import numpy as np
import pytest
from ase.build import bulk, fcc100
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import read, write
from programs_run import program, run

programs = program("programs")
surface = program("surface_energy")
vacancy = program("vacancy_energy")


@pytest.fixture(scope="module")
def copper():
    return programs.at_rest(bulk("Cu", a=3.59), EMT(), fmax=1e-4)


def test_the_surface_energy_is_what_thicker_slabs_do_not_add(copper):
    cuts = surface.surfaces(copper, EMT(), [(1, 0, 0)], thickness=12.0, vacuum=12.0)
    [(_, (found, _))] = list(cuts)
    a = (4 * copper.get_volume()) ** (1 / 3)
    energies = []
    for layers in (8, 12):
        slab = fcc100("Cu", (1, 1, layers), a=a, vacuum=8.0)
        slab.calc = EMT()
        energies.append(slab.get_potential_energy())
    area = a**2 / 2
    expected = (energies[0] - 8 * (energies[1] - energies[0]) / 4) / (2 * area)
    assert found.cut == pytest.approx(expected * surface.JOULE, rel=0.002)
    assert found.relaxed <= found.cut


def test_close_packed_planes_cost_least(monkeypatch, tmp_path):
    write(tmp_path / "Cu.cif", bulk("Cu", a=3.59, cubic=True))
    given = [tmp_path / "Cu.cif", "-c", "emt", "--thickness", 8, "-o", tmp_path]
    assert run("surface_energy", monkeypatch, *given) == 0
    found = json.loads((tmp_path / "surface_energy.json").read_text())
    assert [one["plane"] for one in found["surfaces"]] == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    energies = [one["relaxed"] for one in found["surfaces"]]
    assert energies[0] <= found["wulff"] <= energies[2]
    assert len(read(tmp_path / "slabs.extxyz", ":")) == 3


def impatient(chosen):
    """Relaxation that gives up at once for what is chosen."""

    def at_rest(atoms, calculator, *, fmax, cell=True):
        steps = 0 if chosen(atoms) else 1000
        return programs.at_rest(atoms, calculator, fmax=fmax, steps=steps, cell=cell)

    return at_rest


def test_a_slab_that_does_not_come_to_rest_is_named_and_the_others_done(
    monkeypatch, tmp_path, capsys
):
    write(tmp_path / "Cu.cif", bulk("Cu", a=3.59, cubic=True))
    given = [tmp_path / "Cu.cif", "-c", "emt", "--thickness", 6, "-o", tmp_path / "out"]
    planes = ["--miller", "1,0,0", "--miller", "1,1,0"]
    oblong = impatient(lambda atoms: np.ptp(atoms.cell.lengths()[:2]) > 0.1)  # of 1,1,0
    monkeypatch.setattr(surface, "at_rest", oblong)
    assert run("surface_energy", monkeypatch, *given, *planes) == 1
    assert "1,1,0 at shift 0.250: Cu" in capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "surface_energy.json").read_text())
    assert [one["plane"] for one in found["surfaces"]] == [[1, 0, 0]]
    [(name, why)] = found["failed"].items()
    assert name == "1,1,0 at shift 0.250"
    assert "still moving" in why
    assert len(read(tmp_path / "out" / "slabs.extxyz", ":")) == 1
    alone = run("surface_energy", monkeypatch, *given, *planes[2:])
    assert "No slab is left; 1 failed" in alone


def test_polar_slabs_are_left_out(rocksalt):
    cell = surface.conventional(rocksalt)
    kept = {
        plane: [surface.good(slab, cell) for slab in slabs]
        for plane in ((1, 0, 0), (1, 1, 1))
        if (slabs := surface.slabs(cell, plane, thickness=10.0, vacuum=10.0))
    }
    assert any(kept[1, 0, 0])
    assert not any(kept[1, 1, 1])


def test_planes_that_enclose_nothing_have_no_shape():
    def of(*planes):
        return [surface.Surface(plane=p, shift=0, atoms=1, cut=1, relaxed=1) for p in planes]

    zinc = bulk("Zn")
    assert surface.wulff(zinc, of((0, 0, 1), (0, 0, 2))) is None
    assert surface.wulff(zinc, of((0, 0, 1), (1, 0, 0))) == pytest.approx(1)


@pytest.mark.parametrize("plane", ["1,1", "0,0,0", "one"])
def test_what_is_no_plane_is_refused(plane, monkeypatch, tmp_path):
    write(tmp_path / "Cu.cif", bulk("Cu"))
    told = run("surface_energy", monkeypatch, tmp_path / "Cu.cif", "-c", "emt", "--miller", plane)
    assert "such as 1,1,0" in told


def test_of_pairs_a_vacancy_costs_the_cohesive_energy():
    crystal = bulk("Ar", "fcc", a=5.3, cubic=True)
    argon = LennardJones(sigma=3.4, epsilon=0.0104, rc=6.0)
    crystal.calc = argon
    energy = crystal.get_potential_energy() / len(crystal)
    before, after, rest = vacancy.vacancy(crystal, 0, argon, reservoir=energy, length=13.0)
    assert before == pytest.approx(-energy, rel=1e-9)
    assert 0 < after <= before
    assert len(rest) == 4 * 27 - 1


def test_every_kind_of_site_is_taken_once(perovskite):
    assert sorted(vacancy.kinds_of_sites(perovskite).values()) == [1, 1, 3]


def test_a_compound_needs_reservoirs(monkeypatch, tmp_path):
    write(tmp_path / "CuAu.cif", bulk("CuAu", "cesiumchloride", a=3.0))
    given = [tmp_path / "CuAu.cif", "-c", "emt", "-o", tmp_path]
    assert "No reservoir of Au, Cu" in run("vacancy_energy", monkeypatch, *given)
    told = [word for pair in ("Cu=0.0", "Au=0.5") for word in ("--reservoir", pair)]
    assert run("vacancy_energy", monkeypatch, *given, *told, "--length", 5) == 0
    found = json.loads((tmp_path / "vacancy_energy.json").read_text())
    assert found["reservoirs"] == {"Cu": 0.0, "Au": 0.5}
    assert sorted(one["element"] for one in found["vacancies"]) == ["Au", "Cu"]


def test_a_vacancy_that_does_not_come_to_rest_is_named_and_the_others_done(
    monkeypatch, tmp_path, capsys
):
    write(tmp_path / "CuAu.cif", bulk("CuAu", "cesiumchloride", a=3.0))
    told = [word for pair in ("Cu=0.0", "Au=0.5") for word in ("--reservoir", pair)]
    given = [tmp_path / "CuAu.cif", "-c", "emt", *told, "--length", 5, "-o", tmp_path / "out"]
    without_copper = impatient(lambda atoms: 2 * atoms.symbols.count("Cu") < len(atoms))
    monkeypatch.setattr(vacancy, "at_rest", without_copper)
    assert run("vacancy_energy", monkeypatch, *given) == 1
    assert "Cu (atom 0): Au8Cu7 is still moving" in capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "vacancy_energy.json").read_text())
    assert [one["element"] for one in found["vacancies"]] == ["Au"]
    assert list(found["failed"]) == ["Cu (atom 0)"]
    assert len(read(tmp_path / "out" / "vacancies.extxyz", ":")) == 1
    monkeypatch.setattr(vacancy, "at_rest", impatient(lambda atoms: len(atoms) > 2))
    assert "No vacancy could be computed" in run("vacancy_energy", monkeypatch, *given)
