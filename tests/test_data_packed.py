"""A packed set may be replaced, what only bears its name may not; its names stay on disk."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from ase_crystalformer.data.packed import IDS, PackedCrystals
from ase_crystalformer.data.packing import pack, remove_packed
from ase_crystalformer.data.readers import load
from ase_crystalformer.errors import BadModelFile
from ase_crystalformer.neighbours import Radius


def test_only_packed_sets_are_removed(tmp_path):
    mine = tmp_path / "packed" / "precious"
    mine.mkdir(parents=True)
    with pytest.raises(BadModelFile, match="no packed set"):
        remove_packed(tmp_path / "packed")
    assert mine.is_dir()
    (tmp_path / "packed" / "meta.json").write_text("{}")
    remove_packed(tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
    remove_packed(tmp_path / "packed")


def test_nothing_but_a_packed_set_is_replaced(tmp_path):
    thesis = tmp_path / "data" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("all of it")
    for folder in (thesis.parent, thesis):
        with pytest.raises(BadModelFile, match="no packed set"):
            pack([], Radius(4.0), folder, labels=())
    assert thesis.read_text() == "all of it"
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        assert pack([], Radius(4.0), tmp_path / "empty", labels=()) == []
    assert (tmp_path / "empty" / "meta.json").is_file()


def named(count, length):
    """The smallest crystals of a sample, over and over, under long names."""
    rows = sorted(load("mp_labelled", Path(__file__).parent / "samples"), key=lambda row: row.atoms)
    for number in range(count):
        yield replace(rows[number % 5], id=f"{number:0{length}d}")


def peak(folder, count):
    """Most bytes of Python and NumPy while a set of so many crystals is written."""
    tracemalloc.start()
    try:
        pack(named(count, 100_000), Radius(3.0), folder, labels=())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_more_memory_for_more_crystals(tmp_path):
    peak(tmp_path / "warm", 2)
    assert peak(tmp_path / "many", 40) < peak(tmp_path / "few", 10) + 500_000


def test_names_are_read_when_they_are_asked_for(tmp_path):
    rows = [replace(row, id="two\nlines") for row in named(3, 1)]
    pack(rows, Radius(3.0), tmp_path / "set", labels=())
    packed = PackedCrystals(tmp_path / "set")
    assert len(packed) == 3
    assert "ids" not in vars(packed)
    assert packed.ids == ["two\nlines"] * 3


@pytest.mark.parametrize("lines", [2, 4, None])
def test_names_of_another_set_are_refused(tmp_path, lines):
    pack(named(3, 1), Radius(3.0), tmp_path / "set", labels=())
    names = tmp_path / "set" / IDS
    names.unlink()
    if lines:
        names.write_text('"name"\n' * lines)
    with pytest.raises(BadModelFile, match="Pack anew"):
        _ = PackedCrystals(tmp_path / "set").ids


def test_sets_packed_before_names_had_a_file_are_read(tmp_path):
    pack(named(3, 1), Radius(3.0), tmp_path / "set", labels=())
    (tmp_path / "set" / IDS).unlink()
    meta = tmp_path / "set" / "meta.json"
    told = json.loads(meta.read_text())
    del told["crystals"]
    meta.write_text(json.dumps({**told, "ids": ["a", "b", "c"]}))
    packed = PackedCrystals(tmp_path / "set")
    assert (len(packed), packed.ids) == (3, ["a", "b", "c"])
