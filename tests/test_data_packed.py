"""A packed set may be replaced; what only bears its name may not."""

import pytest

from ase_crystalformer.data.packed import remove_packed
from ase_crystalformer.errors import BadModelFile


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
