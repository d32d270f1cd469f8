import pytest

from ase_crystalformer.writing import whole


def test_a_file_appears_when_it_is_written(tmp_path):
    path = tmp_path / "rows.csv.gz"
    path.write_text("old")
    with whole(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.parent == path.parent
        assert partial.suffixes == path.suffixes
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_breaks_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), whole(path) as partial:
        partial.write_text("new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
