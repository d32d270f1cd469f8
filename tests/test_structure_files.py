"""Whatever users have is read one by one; what is broken is named, and the rest goes on."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import read, write
from jarvis.core.atoms import Atoms as JarvisAtoms
from pymatgen.core import Lattice, Structure

from ase_crystalformer.structure_files import expand, read_structures
from ase_crystalformer.structures import as_crystal


def names(*sources):
    return [found.name for found in read_structures(sources)]


def assert_same(atoms, expected):
    assert (atoms.numbers == expected.numbers).all()
    assert (atoms.pbc == expected.pbc).all()
    apart = atoms.get_scaled_positions() - expected.get_scaled_positions()
    np.testing.assert_allclose(apart - np.round(apart), 0, atol=1e-6)
    np.testing.assert_allclose(atoms.cell.cellpar(), expected.cell.cellpar(), atol=1e-6)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pymatgen_structure(wurtzite):
    return Structure(wurtzite.cell.array, list(wurtzite.symbols), wurtzite.get_scaled_positions())


@pytest.mark.parametrize(
    "name",
    ["a.cif", "POSCAR", "POSCAR.gz", "a.vasp", "a.xyz", "a.extxyz", "a.xyz.gz", "a.traj", "a.xsf"],
)
def test_one_structure_in_a_file_has_its_name(name, folder, wurtzite):
    write(name, wurtzite, format="vasp" if name.startswith("POSCAR") else None)
    (found,) = read_structures([name])
    assert (found.name, found.error) == (name, None)
    assert_same(found.atoms, wurtzite)


def test_a_gzipped_cif_is_read(folder, wurtzite):
    write("a.cif", wurtzite)
    (folder / "a.cif.gz").write_bytes(gzip.compress((folder / "a.cif").read_bytes()))
    (found,) = read_structures(["a.cif.gz"])
    assert_same(found.atoms, wurtzite)


def test_symmetry_of_a_cif_is_applied(folder, diamond):
    structure = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]])
    structure.to(filename="si.cif", symprec=0.01)
    (found,) = read_structures(["si.cif"])
    assert len(found.atoms) == 8
    assert found.atoms.info == {}
    assert set(found.atoms.arrays) == {"numbers", "positions"}


@pytest.mark.parametrize("name", ["many.xyz", "many.extxyz.gz", "many.traj", "many.cif"])
def test_frames_are_counted(name, folder, rocksalt, diamond, wurtzite):
    write(name, [rocksalt, diamond, wurtzite])
    found = list(read_structures([name]))
    assert [item.name for item in found] == [f"{name}#{index}" for index in range(3)]
    assert [item.atoms.symbols.get_chemical_formula() for item in found] == ["ClNa", "Si2", "O2Zn2"]


def test_a_plain_xyz_is_a_molecule(folder, water):
    write("water.xyz", water, format="xyz", comment="from a drawing")
    (found,) = read_structures(["water.xyz"])
    assert not found.atoms.pbc.any()


def test_rows_of_a_database_go_by_their_id(folder, rocksalt, diamond):
    with connect("some.db") as rows:
        rows.write(rocksalt)
        rows.write(diamond)
        rows.write(rocksalt)
        del rows[1]
    assert names("some.db") == ["some.db#2", "some.db#3"]


def test_a_fixed_atom_stays_fixed(folder, rocksalt):
    rocksalt.set_constraint(FixAtoms([1]))
    write("a.traj", rocksalt)
    (found,) = read_structures(["a.traj"])
    assert found.atoms.constraints[0].index.tolist() == [1]


def as_jarvis(atoms):
    return JarvisAtoms(atoms.cell.array, atoms.positions, list(atoms.symbols), cartesian=True)


def test_json_of_three_libraries(folder, wurtzite, pymatgen_structure):
    told = {
        "pymatgen.json": pymatgen_structure.as_dict(),
        "jarvis.json": as_jarvis(wurtzite).to_dict(),
        "list.json": [pymatgen_structure.as_dict(), pymatgen_structure.as_dict()],
    }
    for name, content in told.items():
        (folder / name).write_text(json.dumps(content))
    write("ase.json", wurtzite)
    found = list(read_structures([*told, "ase.json"]))
    expected = ["pymatgen.json", "jarvis.json", "list.json#0", "list.json#1", "ase.json#1"]
    assert [item.name for item in found] == expected
    for item in found:
        assert_same(item.atoms, wurtzite)


def cells(atoms, structure, folder):
    """One structure in every form a cell of a table may have."""
    write(folder / "POSCAR", atoms)
    return {
        "cif": structure.to(fmt="cif"),
        "poscar": (folder / "POSCAR").read_text(),
        "json": json.dumps(structure.as_dict()),
        "path": "POSCAR",
    }


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet", "json"])
def test_a_table_holds_structures_in_any_form(suffix, folder, wurtzite, pymatgen_structure):
    inner = folder / "inner"
    inner.mkdir()
    forms = cells(wurtzite, pymatgen_structure, inner)
    table = pd.DataFrame({"id": list(forms), "structure": list(forms.values()), "gap": 1.0})
    path = inner / f"table.{suffix}"
    getattr(table, f"to_{suffix.removesuffix('.gz')}")(path)
    found = list(read_structures([path]))
    assert [item.name for item in found] == [f"{path}#{form}" for form in forms]
    for item in found:
        assert_same(item.atoms, wurtzite)


@pytest.mark.parametrize("orient", ["records", "split", "columns"])
def test_json_tables_of_pandas(orient, folder, wurtzite, pymatgen_structure):
    rows = [[pymatgen_structure.as_dict(), 1.0], [None, 2.0]]
    pd.DataFrame(rows, columns=["structure", "gap"]).to_json("table.json", orient=orient)
    good, bad = read_structures(["table.json"])
    assert (good.name, bad.name) == ("table.json#0", "table.json#1")
    assert_same(good.atoms, wurtzite)
    assert "The cell holds None" in bad.error


def test_structures_of_a_parquet_may_be_nested(folder, wurtzite):
    crystal = {"lattice_mat": wurtzite.cell.tolist(), "coords": wurtzite.positions.tolist()}
    crystal |= {"elements": list(wurtzite.symbols), "cartesian": True, "props": [""] * 4}
    pd.DataFrame({"atoms": [crystal], "jid": ["JVASP-1"]}).to_parquet("jarvis.parquet")
    (found,) = read_structures(["jarvis.parquet"])
    assert found.name == "jarvis.parquet#JVASP-1"
    assert_same(found.atoms, wurtzite)


def test_a_folder_gives_its_structure_files_at_every_depth(folder, rocksalt):
    (folder / "set" / "run").mkdir(parents=True)
    for name in ("set/b.cif", "set/a.xyz", "set/run/POSCAR"):
        write(name, rocksalt)
    for name in ("set/notes.txt", "set/run/results.csv", "set/references.json"):
        (folder / name).write_text("no structure")
    assert names("set") == ["set/a.xyz", "set/b.cif", "set/run/POSCAR"]


@pytest.mark.parametrize("absolute", [True, False])
def test_a_pattern_gives_what_matches(absolute, folder, rocksalt):
    for name in ("b.cif", "a.cif", "c.xyz"):
        write(name, rocksalt)
    prefix = f"{folder}/" if absolute else ""
    assert names(f"{prefix}*.cif") == [f"{prefix}a.cif", f"{prefix}b.cif"]


def test_what_was_never_written_to_its_end_is_passed_by(folder, rocksalt):
    write(folder / "a.extxyz", rocksalt)
    (folder / ".partial-a.extxyz").write_text("2\ncut off")
    for source in (folder, folder / "*"):
        assert [item.name for item in read_structures([source])] == [str(folder / "a.extxyz")]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_single_source_is_one(kind, folder, rocksalt):
    write("a.cif", rocksalt)
    path = folder / "a.cif"
    assert [found.name for found in read_structures(kind(path))] == [str(path)]
    assert list(expand(kind("a.cif"))) == [(Path("a.cif"), None)]


def test_a_file_named_twice_is_read_once(folder, rocksalt):
    write("a.cif", rocksalt)
    assert names("a.cif", "*.cif") == ["a.cif"]


def test_equal_ids_are_told_apart(folder, rocksalt):
    write("a.cif", rocksalt)
    pd.DataFrame({"id": ["x", "x"], "file": ["a.cif", "a.cif"]}).to_csv("table.csv", index=False)
    assert names("table.csv") == ["table.csv#x", "table.csv#x~2"]


def test_reading_is_lazy(folder, rocksalt, monkeypatch):
    write("many.xyz", [rocksalt] * 50)
    opened = read_structures(["many.xyz", "missing.cif"])
    next(opened)
    calls = []
    monkeypatch.setattr("ase.io.read", lambda *args, **kwargs: calls.append(args))
    next(opened)
    assert len(calls) == 1


# --------------------------------------------------------------------------------- failures


def test_bad_files_are_named_and_the_rest_is_read(folder, rocksalt):
    write("good.cif", rocksalt)
    (folder / "text.cif").write_text("this is no crystal")
    (folder / "empty.xyz").write_text("")
    (folder / "broken.json").write_text("{")
    (folder / "sheet.csv").write_text("material,gap\nNaCl,5.0\n")
    (folder / "none").mkdir()
    sources = ["text.cif", "empty.xyz", "broken.json", "sheet.csv", "none", "lost.cif", "good.cif"]
    found = {item.name.partition("#")[0]: item for item in read_structures(sources)}
    assert list(found) == sources
    assert found["good.cif"].atoms is not None
    for name in sources[:-1]:
        assert found[name].atoms is None
        assert "\n" not in found[name].error
    assert "no CIF" in found["text.cif"].error
    assert "no structure" in found["empty.xyz"].error
    assert "material, gap" in found["sheet.csv"].error
    assert "no structure file" in found["none"].error
    assert "no such file" in found["lost.cif"].error


def test_a_broken_frame_does_not_hide_the_others(folder, rocksalt):
    write("many.xyz", [rocksalt] * 3)
    lines = (folder / "many.xyz").read_text().splitlines()
    lines[6] = "Na 0 0"  # second frame, first atom
    (folder / "many.xyz").write_text("\n".join(lines))
    found = list(read_structures(["many.xyz"]))
    assert [item.error is None for item in found] == [True, False, True]
    assert found[1].name == "many.xyz#1"


def test_a_truncated_file_gives_what_is_whole(folder, rocksalt):
    write("cut.xyz", [rocksalt] * 2)
    text = (folder / "cut.xyz").read_text().splitlines()[:-1]
    (folder / "cut.xyz").write_text("\n".join(text))
    first, second = read_structures(["cut.xyz"])
    assert first.error is None
    assert second.error is not None


@pytest.mark.parametrize("occupancy", [{"Au": 0.5, "Cu": 0.5}, {"Au": 0.8}])
@pytest.mark.parametrize("form", ["cif", "json"])
def test_a_disordered_crystal_is_refused(form, occupancy, folder):
    Structure(Lattice.cubic(3), [occupancy], [[0, 0, 0]]).to(filename=f"alloy.{form}")
    (found,) = read_structures([f"alloy.{form}"])
    assert found.atoms is None
    assert "disordered" in found.error


def test_what_is_read_can_be_computed(folder, crystals):
    for atoms in crystals:
        atoms.info.clear()
    write("all.xyz", crystals)
    for found, atoms in zip(read_structures(["all.xyz"]), crystals, strict=True):
        assert isinstance(found.atoms, Atoms)
        np.testing.assert_allclose(as_crystal(found.atoms).positions, atoms.positions, atol=1e-7)


def test_ase_agrees_on_a_database_of_json(folder, rocksalt, diamond):
    with connect("two.json") as rows:
        rows.write(rocksalt)
        rows.write(diamond)
    found = list(read_structures(["two.json"]))
    for item, expected in zip(found, read("two.json", ":"), strict=True):
        assert_same(item.atoms, expected)
