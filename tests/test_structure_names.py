"""Which files are read, and what structures are called, whatever the files are called."""

import os
from pathlib import Path

import pytest
from ase.io import write

from ase_crystalformer.data.files import read_file
from ase_crystalformer.screening.settings import digest
from ase_crystalformer.structure_files import read_structures


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_was_made_is_no_source_unless_it_is_named(folder, fcc):
    (folder / "ways").mkdir()
    for name in ("a.cif", "out.extxyz", "ways/a.traj"):
        write(name, fcc)
    made = [folder / "out.extxyz", folder / "ways"]
    for source in (".", "**/*"):
        assert [found.name for found in read_structures([source], made=made)] == ["a.cif"]
    for source in ("ways", "ways/*"):  # all of it was made, and is asked for
        assert [found.name for found in read_structures([source], made=made)] == ["ways/a.traj"]
    named = read_structures(["out.extxyz"], made=made)
    assert [found.error for found in named] == [None]


def test_a_pattern_of_folders_alone_is_no_source(folder):
    (folder / "runs" / "one").mkdir(parents=True)
    (found,) = read_structures(["runs/*"])
    assert "no file matches" in found.error


@pytest.mark.parametrize("name", ["Cu@slab.vasp", "Cu@2.traj", "Cu@1.xsf"])
def test_names_may_hold_the_sign_that_ase_cuts_at(name, folder, fcc):
    write("plain" + Path(name).suffix, fcc)
    (folder / ("plain" + Path(name).suffix)).rename(name)
    (found,) = read_structures([name])
    assert (found.name, found.error) == (name, None)


def test_a_file_named_by_a_table_gives_its_first_structure(folder, fcc, rocksalt):
    write("two.extxyz", [fcc, rocksalt])
    (folder / "table.csv").write_text("id,file\na,two.extxyz\n")
    (found,) = read_structures(["table.csv"])
    assert found.atoms.symbols.get_chemical_formula() == "Cu"
    (labelled,) = read_file("table.csv")  # as it is trained on
    assert labelled.species.tolist() == fcc.numbers.tolist()


def test_names_that_are_no_text_are_told_as_text(folder, fcc):
    write("plain.cif", fcc)
    name = os.fsdecode(b"caf\xe9.cif")
    try:
        (folder / "plain.cif").rename(name)
    except OSError:
        pytest.skip("this file system takes text alone")
    (found,) = read_structures(["."])
    assert found.error is None
    assert found.name.encode() == "caf\ufffd.cif".encode()
    assert digest([folder / name])
