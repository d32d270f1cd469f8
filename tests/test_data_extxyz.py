"""Our own reader of extended XYZ sees what ASE sees, and stops at what it does not understand."""

import gzip
import io
from pathlib import Path

import ase.io
import numpy as np
import pytest

from ase_crystalformer.data.extxyz import read_extxyz
from ase_crystalformer.errors import BadStructure

SAMPLES = Path(__file__).parent / "samples"
FILES = sorted(SAMPLES.glob("*.extxyz.gz"))

COPPER = """1
Lattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3:forces:R:3 name="a b" pbc="T F T"
Cu 0 0.5 1e-3 1 2 3
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "some.extxyz"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.partition(".")[0])
def test_every_sample_reads_as_in_ase(path):
    with gzip.open(path, "rt") as file:
        theirs = ase.io.read(io.StringIO(file.read()), ":", format="extxyz")
    for frame, atoms in zip(read_extxyz(path), theirs, strict=True):
        np.testing.assert_array_equal(frame.species, atoms.numbers)
        np.testing.assert_allclose(frame.positions, atoms.positions, rtol=0, atol=1e-12)
        np.testing.assert_allclose(frame.cell, atoms.cell.array, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(frame.periodic, atoms.pbc)
        if "forces" in frame.columns:
            np.testing.assert_array_equal(frame.columns["forces"], atoms.get_forces())
        if "energy" in frame.info:
            assert float(frame.info["energy"]) == atoms.get_potential_energy()


def test_all_parts_of_a_frame(written):
    (frame,) = read_extxyz(written(COPPER))
    assert frame.species.tolist() == [29]
    assert frame.positions.tolist() == [[0, 0.5, 0.001]]
    assert frame.columns["forces"].tolist() == [[1, 2, 3]]
    assert frame.periodic.tolist() == [True, False, True]
    assert frame.info == {"name": "a b"}


def test_nothing_is_read_from_an_empty_file(written):
    assert list(read_extxyz(written(""))) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Cu", "Xx"),
        ("1e-3", "nonsense"),
        ("1 2 3", "1 2"),
        ("species:S:1", "species:I:1"),
        ("Lattice=", "Cell="),
        ('"3 0 0', '"3 0'),
    ],
)
def test_a_broken_frame_is_named_by_file_and_line(written, before, after):
    path = written(COPPER + COPPER.replace(before, after))
    frames = read_extxyz(path)
    next(frames)
    with pytest.raises(BadStructure, match=r"some\.extxyz, line 4"):
        next(frames)


def test_a_truncated_file_is_noticed(written):
    with pytest.raises(BadStructure, match="line 1"):
        list(read_extxyz(written("\n".join(COPPER.splitlines()[:2]))))
