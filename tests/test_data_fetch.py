"""What is fetched arrives whole, is what was asked for, and is never fetched twice."""

import hashlib
import io
import tarfile

import pytest
from served import open_to_this_machine, serve

import ase_crystalformer.data.fetch as fetching
from ase_crystalformer.data.fetch import fetch, fetch_file, fetchable
from ase_crystalformer.data.registry import DATA_SETS, Download
from ase_crystalformer.errors import DownloadFailed, MissingData, UnknownName

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def here(closed_network, monkeypatch):
    """Let this machine be called, soon again, and told of every little that comes."""
    open_to_this_machine(monkeypatch)
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    monkeypatch.setattr(fetching, "CHUNK", 1000)


@pytest.fixture
def served(here):
    with serve(CONTENT) as told:
        yield told


def told(served, **known):
    return Download(**{"file": "data.json", "url": served.url, **known})


CHECKS = [
    {"sha256": hashlib.sha256(CONTENT).hexdigest()},
    {"md5": hashlib.md5(CONTENT).hexdigest()},
    {"size": len(CONTENT)},
    {},
]


@pytest.mark.parametrize("known", CHECKS, ids=["sha256", "md5", "size", "nothing"])
def test_a_whole_file_is_fetched_once(served, tmp_path, known):
    for _ in range(2):
        path = fetch_file(told(served, **known), tmp_path)
        assert path.read_bytes() == CONTENT
    assert served.asked == [None]
    assert [one.name for one in tmp_path.iterdir()] == ["data.json"]


def test_what_was_cut_off_goes_on_where_it_ended(served, tmp_path):
    served.cuts = [300_000, 500_000]
    seen = []
    path = fetch_file(told(served, **CHECKS[0]), tmp_path, progress=lambda *at: seen.append(at))
    assert path.read_bytes() == CONTENT
    assert served.asked == [None, "bytes=300000-", "bytes=800000-"]
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {len(CONTENT)}


def test_a_second_call_goes_on_too(served, tmp_path):
    served.cuts = [300_000] + [0] * fetching.ATTEMPTS
    with pytest.raises(DownloadFailed, match=r"cut off after 300,000 bytes.*Call again"):
        fetch_file(told(served), tmp_path)
    assert not (tmp_path / "data.json").exists()
    served.asked.clear()
    assert fetch_file(told(served), tmp_path).read_bytes() == CONTENT
    assert served.asked == ["bytes=300000-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(served, tmp_path):
    (tmp_path / "data.json.part").write_bytes(b"old" * 1000)
    (tmp_path / "data.json.part.etag").write_text('"before"')
    assert fetch_file(told(served), tmp_path).read_bytes() == CONTENT
    assert served.asked == ["bytes=3000-"]


def test_a_server_without_ranges_sends_all_again(served, tmp_path):
    served.cuts, served.ranges = [300_000], False
    assert fetch_file(told(served), tmp_path).read_bytes() == CONTENT
    assert len(served.asked) == 2


@pytest.mark.parametrize("status", [200, 202], ids=["a page", "a page that asks to wait"])
def test_what_is_no_file_is_refused_and_the_part_kept(served, tmp_path, status):
    part = tmp_path / "data.json.part"
    part.write_bytes(CONTENT[:5000])
    served.kind, served.status = "text/html; charset=utf-8", None if status == 200 else status
    with pytest.raises(DownloadFailed, match=f"answers {206 if status == 200 else 202} with text"):
        fetch_file(told(served, **CHECKS[0]), tmp_path)
    assert part.read_bytes() == CONTENT[:5000]
    assert len(served.asked) == 1


def test_an_empty_answer_is_no_file(served, tmp_path):
    (tmp_path / "data.json.part").write_bytes(b"some")
    served.cuts = [0] * fetching.ATTEMPTS
    with pytest.raises(DownloadFailed, match="nothing came"):
        fetch_file(told(served), tmp_path)
    assert (tmp_path / "data.json.part").read_bytes() == b"some"


def test_bytes_of_elsewhere_are_not_appended(served, tmp_path, monkeypatch):
    (tmp_path / "data.json.part").write_bytes(CONTENT[:5000])
    monkeypatch.setattr(fetching, "Request", lambda url, headers: shifted(url))
    with pytest.raises(DownloadFailed, match=r"sends bytes 7000-.*from 5000 on"):
        fetch_file(told(served, **CHECKS[0]), tmp_path)


def shifted(url):
    """A request that is answered from byte 7000 on, whatever is asked for."""
    from urllib.request import Request

    request = Request(url, headers={"Range": "bytes=7000-"})
    request.add_header = lambda *told: None
    return request


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_a_version_is_known_by_its_date_too(served, tmp_path, etag):
    served.modified, served.etag = "Wed, 21 Oct 2015 07:28:00 GMT", etag
    served.cuts = [300_000] + [0] * fetching.ATTEMPTS
    with pytest.raises(DownloadFailed):
        fetch_file(told(served), tmp_path)
    served.content, served.modified = CONTENT[::-1], "Thu, 22 Oct 2015 07:28:00 GMT"
    served.asked.clear()
    assert fetch_file(told(served), tmp_path).read_bytes() == CONTENT[::-1]
    assert served.asked == ["bytes=300000-"]


def test_without_version_and_checksum_a_file_begins_anew(served, tmp_path):
    served.etag, served.cuts = "", [300_000]
    assert fetch_file(told(served), tmp_path).read_bytes() == CONTENT
    assert served.asked == [None, None]
    (tmp_path / "data.json").unlink()
    served.cuts = [300_000]
    assert fetch_file(told(served, **CHECKS[0]), tmp_path).read_bytes() == CONTENT
    assert served.asked[2:] == [None, "bytes=300000-"]


@pytest.mark.parametrize("what", ["version", "length"])
def test_a_server_that_goes_on_with_another_file_is_noticed(served, tmp_path, what):
    served.cuts, served.versions = [300_000] + [0] * fetching.ATTEMPTS, False
    with pytest.raises(DownloadFailed):
        fetch_file(told(served), tmp_path)
    served.content = CONTENT[::-1] if what == "version" else CONTENT + b"more"
    served.etag = '"second"' if what == "version" else served.etag
    assert fetch_file(told(served), tmp_path).read_bytes() == served.content


def test_lengths_that_go_up_and_down_are_no_progress(served, tmp_path):
    served.cuts, served.ranges = [300_000, 200_000] * 10, False
    with pytest.raises(DownloadFailed, match="cut off"):
        fetch_file(told(served), tmp_path)
    assert len(served.asked) == 1 + fetching.ATTEMPTS


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_server_that_is_busy_is_asked_again(served, tmp_path, status):
    served.statuses = [status]
    assert fetch_file(told(served), tmp_path).read_bytes() == CONTENT
    assert len(served.asked) == 2


@pytest.mark.parametrize("surplus", [0, 10])
def test_a_part_that_is_all_there_is_is_taken_and_a_longer_one_is_not(served, tmp_path, surplus):
    (tmp_path / "data.json.part").write_bytes(CONTENT + b"x" * surplus)
    (tmp_path / "data.json.part.etag").write_text(served.etag)
    assert fetch_file(told(served), tmp_path).read_bytes() == CONTENT
    assert len(served.asked) == (2 if surplus else 1)


@pytest.mark.parametrize(
    "known", [{"sha256": "0" * 64}, {"md5": "0" * 32}, {"size": 7}], ids=["sha256", "md5", "size"]
)
def test_another_file_is_refused_and_removed(served, tmp_path, known):
    with pytest.raises(DownloadFailed, match=r"should have .* It was removed"):
        fetch_file(told(served, **known), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_that_is_there_is_told_and_left(served, tmp_path):
    (tmp_path / "data.json").write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadFailed, match="move it away"):
        fetch_file(told(served, **CHECKS[0]), tmp_path)
    assert (tmp_path / "data.json").exists()
    assert served.asked == []


def test_what_is_gone_is_not_asked_for_again(served, tmp_path):
    served.status = 404
    with pytest.raises(DownloadFailed, match="answers 404"):
        fetch_file(told(served), tmp_path)
    assert len(served.asked) == 1


def test_a_disk_that_is_too_small_is_told(served, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: type("", (), {"free": 10}))
    with pytest.raises(DownloadFailed, match="10 bytes left"):
        fetch_file(told(served), tmp_path)


def archive(*names):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 4
            file.addfile(entry, io.BytesIO(b"data"))
    return packed.getvalue()


def test_an_archive_is_unpacked_once(served, tmp_path):
    served.content = archive("rattled/a.aselmdb", "rattled/b.aselmdb")
    packed = told(served, file="train/rattled.tar.gz")
    for _ in range(2):
        place = fetch_file(packed, tmp_path)
        assert sorted(path.name for path in place.rglob("*.aselmdb")) == ["a.aselmdb", "b.aselmdb"]
    assert len(served.asked) == 1
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["rattled"]


@pytest.mark.parametrize(
    "content",
    [archive("../outside"), archive("a")[:-20], b"no archive"],
    ids=["outside", "cut off", "none"],
)
def test_an_archive_that_is_none_or_wants_out_is_refused(served, tmp_path, content):
    served.content = content
    with pytest.raises(DownloadFailed, match="cannot be unpacked"):
        fetch_file(told(served, file="in/it.tar.gz"), tmp_path)
    assert not (tmp_path / "in" / "it").exists()
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left"), tarfile.ReadError("bad")])
def test_what_was_unpacked_in_part_is_removed(served, tmp_path, monkeypatch, error):
    def fill(self, place, **how):
        place.mkdir()
        raise error

    served.content = archive("a.aselmdb")
    monkeypatch.setattr(tarfile.TarFile, "extractall", fill)
    advice = "make room" if isinstance(error, OSError) else "remove it"
    with pytest.raises(DownloadFailed, match=advice):
        fetch_file(told(served, file="it.tar.gz"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["it.tar.gz"]


def test_a_data_set_is_fetched_by_its_name(served, tmp_path, monkeypatch):
    known = DATA_SETS["matbench-phonons"]
    one = told(served, file=known.downloads[0].file)
    monkeypatch.setitem(DATA_SETS, "matbench-phonons", replace_downloads(known, one))
    assert fetch("matbench-phonons", tmp_path) == [tmp_path / "matbench_phonons.json.gz"]


def replace_downloads(data_set, *downloads):
    from dataclasses import replace

    return replace(data_set, downloads=downloads)


def test_names_that_cannot_be_fetched():
    with pytest.raises(UnknownName, match="Did you mean 'mptrj'"):
        fetch("mptrjj", ".")
    with pytest.raises(MissingData, match=r"set of ours.*matbench-phonons"):
        fetch("mp_labelled", ".")
    assert "mp" in fetchable()
    assert "mp_labelled" not in fetchable()
