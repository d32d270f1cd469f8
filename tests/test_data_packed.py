"""A packed set may be replaced; what only bears its name may not."""

import pytest

from ase_crystalformer.data.packed import pack, remove_packed
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
