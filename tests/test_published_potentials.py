"""The published potentials of mlearn: how they are asked, and the table they stand in."""

import json
import stat
import sys

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.units import Bohr, Hartree

from ase_crystalformer.errors import MissingData, MissingExtra
from benchmarks import mlearn_table, published_potentials
from benchmarks.published_potentials import ByElement, NnpPredict

#: Stands in for n2p2: tells the sum of all coordinates, atomic units.
PROGRAM = """\
#!{python}
from pathlib import Path
rows = [line.split() for line in Path("input.data").read_text().splitlines()]
places = [[float(x) for x in row[1:4]] for row in rows if row[0] == "atom"]
assert Path("weights.029.data").read_text() == "weights"
energy = sum(map(sum, places))
Path("energy.out").write_text(f"# comment\\n1 {{len(places)}} 0.0 {{energy!r}} 0.0 0.0\\n")
Path("nnforces.out").write_text("".join("1 1 0 0 0 -1 -1 -1\\n" for _ in places))
"""


def test_every_element_has_a_potential_for_each_number_of_atoms():
    made = []

    def make(element):
        made.append(element)
        return EMT()

    calculator = ByElement(make)
    for atoms in (bulk("Cu"), bulk("Cu", cubic=True), bulk("Ni"), bulk("Cu", a=3.5)):
        expected = atoms.copy()
        expected.calc = EMT()
        atoms.calc = calculator
        assert atoms.get_potential_energy() == expected.get_potential_energy()
        np.testing.assert_array_equal(atoms.get_stress(), expected.get_stress())
    assert made == ["Cu", "Cu", "Ni"]
    with pytest.raises(ValueError, match="knows one element; given were Au, Cu"):
        calculator.get_potential_energy(bulk("CuAu", "rocksalt", a=4))


def test_missing_files_and_programs_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv(published_potentials.FOLDER, str(tmp_path))
    with pytest.raises(MissingData, match="mvl_models/pes"):
        published_potentials.snap().get_potential_energy(bulk("Cu"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="nnp-predict"):
        NnpPredict("Cu")


def test_networks_are_asked_in_atomic_units(tmp_path, monkeypatch):
    folder = tmp_path / "Cu" / "nnp.2020.01"
    folder.mkdir(parents=True)
    for name, text in (("input.nn", ""), ("scaling.data", ""), ("weights.014.data", "weights")):
        (folder / name).write_text(text)
    program = tmp_path / "nnp-predict"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(published_potentials.FOLDER, str(tmp_path))
    atoms = bulk("Cu", cubic=True)
    atoms.calc = published_potentials.nnp()
    scale = Hartree / Bohr
    assert atoms.get_potential_energy() == pytest.approx(scale * atoms.positions.sum())
    np.testing.assert_allclose(atoms.get_forces(), -scale)
    slope = scale * atoms.positions.sum(0) / atoms.get_volume()
    np.testing.assert_allclose(atoms.get_stress()[:3], slope, rtol=1e-6)


def told(folder, model, **changes):
    statistics = [
        {"name": name, "group": "Li", "value": 0.5, "n": 7, "unit": "x"}
        for name, _, _ in mlearn_table.SHOWN
    ]
    summary = {"benchmark": "mlearn", "model": model, "seed": 0, "options": {}, "crystals": 3}
    folder.mkdir()
    summary |= {"failed": {}, "statistics": statistics, **changes}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_the_table_tells_who_is_who_and_refuses_other_frames(tmp_path, monkeypatch):
    ours = told(tmp_path / "ours", "default")
    other = told(tmp_path / "other", "benchmarks.published_potentials:mtp")
    out = tmp_path / "mlearn.md"
    monkeypatch.setattr(sys, "argv", ["x", str(ours), str(other), "--out", str(out)])
    mlearn_table.main()
    text = out.read_text()
    assert "| element | n | ours, small | MTP |" in text
    assert "| Li | 7 | 500 | 500 |" in text
    for name, change in (("fewer", {"crystals": 2}), ("broken", {"failed": {"a": "b"}})):
        with pytest.raises(SystemExit, match=r"other frames|1 failed"):
            mlearn_table.read([ours, told(tmp_path / name, name, **change)])
