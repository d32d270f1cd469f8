"""The program about phase diagrams, beside numbers made by hand."""

import json
import runpy
import sys

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write
from PIL import Image
from small_runs import SAMPLES

FOLDER = SAMPLES.parents[1] / "workflows"


@pytest.fixture
def run(monkeypatch, tmp_path):
    def run(*arguments):
        given = ["phase_diagram.py", *map(str, arguments), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", given)
        monkeypatch.syspath_prepend(FOLDER)
        runpy.run_path(str(FOLDER / "phase_diagram.py"), run_name="__main__")
        return pd.read_csv(tmp_path / "out" / "table.csv").set_index("name")

    return run


def energy(atoms: Atoms) -> float:
    return EMT().get_potential_energy(atoms) / len(atoms)


@pytest.fixture
def alloys(tmp_path):
    """Copper, gold and their alloys where they are cubic, near rest."""
    cu3au = bulk("Cu", a=3.72, cubic=True)
    cu3au.symbols[0] = "Au"
    cuau = bulk("Cu", a=3.84, cubic=True)
    cuau.symbols[:2] = "Au"
    crystals = {"cu": bulk("Cu", a=3.58), "au": bulk("Au", a=4.06), "cu3au": cu3au, "cuau": cuau}
    for name, atoms in crystals.items():
        write(tmp_path / f"{name}.cif", atoms)
    return crystals


def test_formation_energies_are_those_by_hand(run, alloys, tmp_path, capsys):
    table = run(*tmp_path.glob("*.cif"), "--calculator", "emt", "--uncorrected")
    pure = energy(alloys["cu"]), energy(alloys["au"])
    for name, gold in (("cu", 0), ("cu3au", 0.25), ("cuau", 0.5), ("au", 1)):
        mixed = np.dot(pure, [1 - gold, gold])
        expected = energy(alloys[name]) - mixed
        found = table.loc[name, "formation energy (eV/atom)"]
        assert found == pytest.approx(expected, abs=1e-5), name
    assert (table["above hull (eV/atom)"] == 0).to_dict() == {
        **{"cu": True, "au": True, "cu3au": True},
        "cuau": False,  # EMT as parameterised in ASE does not order it
    }
    assert "Cu3Au" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "hull.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5, "nothing is drawn"
    assert len(json.loads((tmp_path / "out" / "entries.json").read_text())) == 4


def test_relaxation_undoes_a_stretch(run, alloys, tmp_path):
    files = [tmp_path / "cu.cif", tmp_path / "au.cif", tmp_path / "cu3au.cif"]
    stretched = alloys["cu3au"].copy()
    stretched.set_cell(stretched.cell * 1.03, scale_atoms=True)
    write(files[-1], stretched)
    emt = ["--calculator", "emt", "--uncorrected"]
    assert run(*files, *emt).loc["cu3au", "formation energy (eV/atom)"] > 0.01
    moved = run(*files, *emt, "--relax", "--fmax", 0.01)
    assert moved.loc["cu3au", "formation energy (eV/atom)"] == pytest.approx(-0.0099, abs=1e-3)


def test_what_does_not_come_to_rest_is_named_and_left_out(run, alloys, tmp_path, capsys):
    squeezed = alloys["cuau"].copy()
    squeezed.set_cell(squeezed.cell * 0.9, scale_atoms=True)
    write(tmp_path / "cuau.cif", squeezed)
    emt = ["--calculator", "emt", "--uncorrected", "--relax"]
    with pytest.raises(SystemExit, match="1"):
        run(*tmp_path.glob("*.cif"), *emt, "--fmax", 0.05, "--steps", 5)
    told = capsys.readouterr().err
    assert "cuau: still moving after 5 steps, and left out" in told
    assert "cu3au" not in told
    table = pd.read_csv(tmp_path / "out" / "table.csv").set_index("name")
    assert sorted(table.index) == ["au", "cu", "cu3au"]


def test_references_are_known_phases(run, alloys, tmp_path):
    emt = ["--calculator", "emt", "--uncorrected"]
    run(tmp_path / "cu.cif", tmp_path / "au.cif", tmp_path / "cu3au.cif", *emt)
    (tmp_path / "out" / "entries.json").rename(tmp_path / "known.json")
    table = run(tmp_path / "cuau.cif", *emt, "--references", tmp_path / "known.json")
    assert table.index.tolist() == ["cuau"]
    pure = (energy(alloys["cu"]) + energy(alloys["au"])) / 2
    expected = energy(alloys["cuau"]) - pure
    assert table.loc["cuau", "formation energy (eV/atom)"] == pytest.approx(expected, abs=1e-5)
    assert table.loc["cuau", "decomposes to"] == "0.33 Au + 0.67 Cu3Au"


def test_where_nothing_is_on_the_hull_the_lowest_are_shown(run, alloys, tmp_path, capsys):
    emt = ["--calculator", "emt", "--uncorrected"]
    run(tmp_path / "cu.cif", tmp_path / "au.cif", tmp_path / "cu3au.cif", *emt)
    assert "3 of 3 structures are on the hull. The whole table" in capsys.readouterr().out
    (tmp_path / "out" / "entries.json").rename(tmp_path / "known.json")
    many = []
    for number in range(22):
        squeezed = alloys["cuau"].copy()
        squeezed.set_cell(squeezed.cell * (1 - 0.001 * number), scale_atoms=True)
        many.append(squeezed)
    write(tmp_path / "many.extxyz", many)
    table = run(tmp_path / "many.extxyz", *emt, "--references", tmp_path / "known.json")
    head, *rows, _, told, _, _ = capsys.readouterr().out.splitlines()
    assert "above hull (eV/atom)" in head
    assert [row.split()[0] for row in rows] == table.index[:20].tolist()
    assert told.startswith("0 of 22 structures are on the hull; these 20 are the lowest")
    assert told.endswith(str(tmp_path / "out" / "table.csv"))


def test_without_corrections_references_stay_as_they_are(run, tmp_path):
    """Copper oxide, which corrections would lower by 0.34 eV/atom."""
    crystals = {"cu": bulk("Cu", a=3.6), "o": bulk("O", "fcc", a=3.6)}
    crystals["cuo"] = bulk("CuO", "rocksalt", a=4.2)
    for name, atoms in crystals.items():
        write(tmp_path / f"{name}.cif", atoms)
    emt = ["--calculator", "emt", "--uncorrected"]
    files = [tmp_path / f"{name}.cif" for name in crystals]
    alone = run(*files, *emt)
    (tmp_path / "out" / "entries.json").rename(tmp_path / "known.json")
    again = run(files[-1], *emt, "--references", tmp_path / "known.json")
    column = "above hull (eV/atom)"
    assert again.loc["cuo", column] == pytest.approx(alone.loc["cuo", column], abs=1e-6)
    column = "formation energy (eV/atom)"
    assert again.loc["cuo", column] == pytest.approx(alone.loc["cuo", column], abs=1e-6)


def test_corrected_phases_are_not_mixed_with_uncorrected_energies(run, capsys):
    with pytest.raises(SystemExit):
        run("--known-phases", "--uncorrected")
    assert "corrected scale" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::ase_crystalformer.errors.OutsideTraining")
def test_the_bundled_potential_beside_dft(run, tmp_path, capsys):
    """Manganese oxides of up to 12 atoms."""
    frames = read(FOLDER / "li_mn_o" / "crystals.extxyz.gz", ":")
    small = [
        a for a in frames if "Li" not in a.symbols and (len(a) <= 12 or len(set(a.symbols)) == 1)
    ]
    write(tmp_path / "oxides.extxyz", small)
    table = run(tmp_path / "oxides.extxyz")
    told = capsys.readouterr().out
    assert "stable by both" in told
    assert "eV/atom off" in told
    off = table["formation energy (eV/atom)"] - table["formation energy, DFT"]
    assert off.abs().mean() < 0.1
    assert set(table["run"][table["formula"] == "MnO"]) == {"GGA+U"}


def test_a_crystal_that_fails_is_named_and_the_others_done(run, alloys, tmp_path, capsys):
    write(tmp_path / "wbad.cif", bulk("Po", "sc", a=3.3))
    (tmp_path / "xbad.cif").write_text("nothing")
    with pytest.raises(SystemExit, match="1"):
        run(*tmp_path.glob("*.cif"), "--calculator", "emt", "--uncorrected")
    told = capsys.readouterr().err
    assert "wbad: " in told
    assert "xbad.cif cannot be read: " in told
    assert len(pd.read_csv(tmp_path / "out" / "table.csv")) == 4


def test_elements_that_are_missing_are_named_and_the_rest_is_done(run, alloys, tmp_path, capsys):
    names = ("cu", "au", "cuau", "nicu")
    write(tmp_path / "nicu.cif", bulk("NiCu", "cesiumchloride", a=2.9))
    with pytest.raises(SystemExit, match="1"):
        run(*(tmp_path / f"{name}.cif" for name in names), "--calculator", "emt", "--uncorrected")
    assert "nicu: " in (told := capsys.readouterr().err)
    assert "no pure Ni" in told
    assert set(pd.read_csv(tmp_path / "out" / "table.csv")["name"]) == {"cu", "au", "cuau"}
    assert len(json.loads((tmp_path / "out" / "entries.json").read_text())) == 4


def test_no_pure_phase_at_all_is_told(run, alloys, tmp_path):
    with pytest.raises(SystemExit, match="no structure has a pure phase"):
        run(tmp_path / "cuau.cif", "--calculator", "emt", "--uncorrected")


def test_help_has_an_example(run, capsys):
    with pytest.raises(SystemExit, match="0"):
        run("--help")
    assert "python workflows/phase_diagram.py" in capsys.readouterr().out
