"""The verb data tells what there is, whom to thank, and fetches what is asked for."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from served import open_to_this_machine, serve
from typer.testing import CliRunner

from ase_crystalformer.cli import app
from ase_crystalformer.data.fetch import fetchable
from ase_crystalformer.data.registry import DATA_SETS

SAMPLES = Path(__file__).parent / "samples"


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == code, result.output
    return result


def names(*arguments):
    lines = run("list", *arguments).stdout.splitlines()
    assert lines[0].split() == ["name", "rows", "from", "about"]
    return {line.split()[0]: line for line in lines[1:]}


def test_all_sets_are_listed():
    listed = names()
    assert listed.keys() == DATA_SETS.keys()
    fetched = {name for name, line in listed.items() if " fetch " in line}
    assert fetched == set(fetchable())


def test_what_a_folder_has_is_listed(tmp_path):
    shutil.copy(SAMPLES / "matbench_perovskites.extxyz.gz", tmp_path)
    shutil.copy(SAMPLES / "published" / "matbench_phonons.json.gz", tmp_path)
    (tmp_path / "salex" / "train").mkdir(parents=True)
    listed = names("--data-dir", tmp_path)
    assert " part " in listed.pop("salex")
    assert " extract " in listed.pop("matbench-perovskites")
    assert " whole " in listed.pop("matbench-phonons")
    assert listed.keys() == {"matbench_perovskites"}


def test_a_folder_that_is_not_there_is_named(tmp_path):
    told = run("list", "--data-dir", tmp_path / "nowhere", code=1)
    assert f"There is no folder {tmp_path / 'nowhere'}" in told.stderr
    assert not told.stdout


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_set_tells_licence_source_and_citation(name):
    known, told = DATA_SETS[name], run("show", name).stdout
    assert all(text in told for text in (known.licence, known.url, *known.citations))
    assert all(f"{label.name} ({label.unit})" in told for label in known.labels)
    for one in known.downloads:
        assert one.url in told
        assert (one.sha256 or one.md5 or "no checksum is published") in told


def test_an_unknown_set_is_answered_with_the_known():
    assert "Did you mean 'mptrj'" in run("show", "mptrjj", code=2).stderr
    assert "set of ours" in run("fetch", "mp_labelled", "--to", ".", code=1).stderr


def test_a_set_is_fetched(tmp_path, monkeypatch, closed_network):
    open_to_this_machine(monkeypatch)
    content = (SAMPLES / "published" / "matbench_phonons.json.gz").read_bytes()
    known = DATA_SETS["matbench-phonons"]
    with serve(content) as served:
        one = replace(known.downloads[0], url=served.url, sha256="")
        monkeypatch.setitem(DATA_SETS, known.name, replace(known, downloads=(one,)))
        result = run("fetch", known.name, "--to", tmp_path)
    assert result.stdout == f"{tmp_path / 'matbench_phonons.json.gz'}\n"
    assert (tmp_path / "matbench_phonons.json.gz").read_bytes() == content
