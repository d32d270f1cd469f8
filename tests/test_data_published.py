"""Sets as published and our extracts of them are read alike, in the official parts."""

import gzip
import json
import logging
import random
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ase_crystalformer.data import official
from ase_crystalformer.data.readers import load
from ase_crystalformer.data.registry import DATA_SETS
from ase_crystalformer.errors import BadStructure, MissingData

SAMPLES = Path(__file__).parent / "samples"
PUBLISHED = SAMPLES / "published"


@pytest.fixture
def folder(tmp_path):
    """A data folder to put files into."""

    def put(*names, source=PUBLISHED):
        for name in names:
            shutil.copy(source / name, tmp_path / name)
        return tmp_path

    return put


def by_name(crystals):
    return {crystal.id: crystal for crystal in crystals}


def test_a_matbench_table_and_our_extract_of_it_are_the_same(folder):
    theirs = by_name(load("matbench-perovskites", folder("matbench_perovskites.json.gz")))
    assert list(theirs) == [f"mb-perovskites-{number:05d}" for number in range(1, 9)]
    ours = by_name(load("matbench_perovskites", SAMPLES))
    folds = official.folds(18928)
    for name, crystal in theirs.items():
        assert crystal.split is None
        assert crystal.info["fold_test"] == str(folds[int(name[-5:]) - 1])
        assert crystal.labels.keys() == {"formation_energy_per_cell"}
        if name in ours:
            assert_same(crystal, ours[name])


def assert_same(one, other):
    assert one.species.tolist() == other.species.tolist()
    np.testing.assert_allclose(one.cell, other.cell, atol=1e-6)
    np.testing.assert_allclose(one.positions, other.positions, atol=1e-6)
    assert one.labels == other.labels
    assert one.info["fold_test"] == other.info["fold_test"]


TASKS = {
    "matbench_perovskites": ("matbench-perovskites", "material_id", "fold_test", ""),
    "matbench_log_kgvrh": ("matbench-log-kvrh", "mb_id", "fold_test", ""),
    "matbench_mp_joined": ("matbench-mp-e-form", "mb_id_e_form", "fold_e_form", ""),
    "mp_labelled": ("matbench-mp-gap", "mb_id_gap", "fold_gap", "matbench_mp_labels.csv.gz"),
}


@pytest.mark.parametrize("extract", TASKS)
def test_folds_drawn_by_number_are_those_that_matbench_stores(extract, folder):
    name, key, fold_key, table = TASKS[extract]
    files = [f"{extract}.extxyz.gz", *filter(None, [table])]
    crystals = list(load(name, folder(*files, source=SAMPLES)))
    folds = official.folds(DATA_SETS[name].rows)
    assert crystals
    for crystal in crystals:
        number = int(crystal.id.rpartition("-")[2])
        assert crystal.id == crystal.info[key]
        assert crystal.info["fold_test"] == crystal.info[fold_key] == str(folds[number - 1])
        assert crystal.info["join"] in {"verified", "unique"} or extract == "matbench_perovskites"
        assert crystal.split is None


def test_an_extract_is_told_to_be_part(folder, caplog):
    place = folder("matbench_perovskites.extxyz.gz", source=SAMPLES)
    with caplog.at_level(logging.WARNING):
        crystals = list(load("matbench-perovskites", place))
    assert {crystal.source for crystal in crystals} == {"matbench-perovskites"}
    assert "read 30 of 18,928 rows" in caplog.text


def test_both_moduli_come_of_one_extract_by_their_own_names(folder):
    place = folder("matbench_log_kgvrh.extxyz.gz", source=SAMPLES)
    bulk, shear = (list(load(f"matbench-log-{kind}vrh", place)) for kind in "kg")
    assert [one.labels.keys() for one in bulk[:1] + shear[:1]] == [
        {"bulk_modulus"},
        {"shear_modulus"},
    ]
    assert shear[0].id == bulk[0].id.replace("kvrh", "gvrh")


def test_logarithms_are_taken_back(folder):
    (first, *_) = load("matbench-log-kvrh", folder("matbench_log_kvrh.json.gz"))
    assert first.labels["bulk_modulus"] == pytest.approx(51.0, abs=1e-3)


def test_metals_are_known_by_their_gap(folder):
    place = folder("matbench_mp_joined.extxyz.gz", source=SAMPLES)
    gaps = {row.info["material_id"]: row.info for row in load("matbench-mp-gap", place)}
    metals = {row.id: row for row in load("matbench-mp-is-metal", place)}
    assert len({row.labels["is_metal"] for row in metals.values()}) == 2
    for name, row in metals.items():
        assert row.labels["is_metal"] == (float(gaps[name]["mb_gap"]) == 0)
        assert row.info["fold_test"] == gaps[name]["fold_is_metal"]


def table(place, name, values):
    """A table as MatBench's, each row of the same crystal."""
    stored = json.loads(gzip.decompress((PUBLISHED / "matbench_phonons.json.gz").read_bytes()))
    structure = stored["data"][0][0]
    rows = [[structure, value] for value in values]
    told = {"columns": ["structure", "is_metal"], "index": list(range(len(rows))), "data": rows}
    (place / name).write_bytes(gzip.compress(json.dumps(told).encode()))


def test_classes_are_told_apart_in_every_fold(tmp_path, monkeypatch):
    known = DATA_SETS["matbench-mp-is-metal"]
    monkeypatch.setitem(DATA_SETS, known.name, replace(known, rows=20))
    table(tmp_path, "matbench_mp_is_metal.json.gz", [True] * 10 + [False] * 10)
    crystals = list(load(known.name, tmp_path))
    shares = [(row.info["fold_test"], row.labels["is_metal"]) for row in crystals]
    assert {shares.count(share) for share in shares} == {2}
    table(tmp_path, "matbench_mp_is_metal.json.gz", [True] * 10)
    with pytest.raises(BadStructure, match=r"10 rows.*has 20"):
        list(load(known.name, tmp_path))


def test_a_table_longer_than_the_task_is_another(tmp_path, monkeypatch):
    known = DATA_SETS["matbench-phonons"]
    monkeypatch.setitem(DATA_SETS, known.name, replace(known, rows=7))
    shutil.copy(PUBLISHED / "matbench_phonons.json.gz", tmp_path)
    with pytest.raises(BadStructure, match="more rows"):
        list(load(known.name, tmp_path))


def alignn(total):
    """ALIGNN's parts, by its own steps."""
    order = list(range(total))
    random.seed(123)
    random.shuffle(order)
    train, held = int(0.8 * total), int(0.1 * total)
    return {"train": order[:train], "val": order[-2 * held : -held], "test": order[-held:]}


@pytest.mark.parametrize("total", [40, 33, 55723])
def test_the_shuffle_is_alignns(total):
    parts = official.shuffled(total)
    for name, rows in alignn(total).items():
        assert sorted(rows) == [row for row, part in enumerate(parts) if part == name]


def test_the_sizes_are_those_of_the_papers():
    parts = official.shuffled(DATA_SETS["jarvis-dft3d"].rows)
    assert [parts.count(name) for name in ("train", "val", "test")] == [44578, 5572, 5572]


@pytest.fixture
def small(monkeypatch):
    """Sets of as many rows as the samples have."""

    def shrink(name, **sizes):
        monkeypatch.setitem(DATA_SETS, name, replace(DATA_SETS[name], **sizes))

    shrink("jarvis-dft3d", rows=40, file_rows=40)
    shrink("jarvis-dft3d-mbj", rows=33, file_rows=40)
    return shrink


@pytest.mark.parametrize("name", ["jarvis-dft3d", "jarvis-dft3d-mbj"])
def test_jarvis_as_published(name, folder, small):
    crystals = list(load(name, folder("jdft_3d-8-18-2021.json.zip")))
    only = DATA_SETS[name].only
    assert all(only in crystal.labels for crystal in crystals)
    count = {"jarvis-dft3d": 40, "jarvis-dft3d-mbj": 33}[name]
    parts = alignn(count)
    assert len(crystals) == sum(map(len, parts.values()))
    for part, rows in parts.items():
        assert sum(crystal.split == part for crystal in crystals) == len(rows)


@pytest.mark.parametrize("sizes", [{"rows": 41}, {"rows": 40}, {"file_rows": 39}])
def test_no_parts_are_drawn_of_another_number_of_rows(folder, small, sizes):
    small("jarvis-dft3d-mbj", **sizes)
    with pytest.raises(BadStructure, match=r"has (33|40) rows.*cannot be told"):
        list(load("jarvis-dft3d-mbj", folder("jdft_3d-8-18-2021.json.zip")))


def test_what_jarvis_does_not_know_is_no_label(folder, small):
    crystals = list(load("jarvis-dft3d", folder("jdft_3d-8-18-2021.json.zip")))
    counts = [len(crystal.labels) for crystal in crystals]
    assert 4 <= min(counts) < max(counts)
    first = crystals[0]
    assert first.id.startswith("JVASP-")
    assert first.group == "jarvis"


def test_megnet_as_published_and_our_extract_of_it(folder, caplog):
    place = folder("mp.2018.6.1.json.zip", "megnet_e_form.json.zip")
    theirs = by_name(load("mp-2018", place))
    assert [row.split for row in theirs.values()].count("train") == 8
    assert [row.split for row in theirs.values()].count("val") == 4
    assert len(theirs) == 12  # two rows are in no list
    ours = by_name(load("mp-2018", SAMPLES))
    assert {row.split for row in ours.values()} == {"train", "val"}
    assert all("formation_energy_per_atom" in row.labels for row in theirs.values())
    for name in theirs.keys() & ours.keys():
        assert theirs[name].labels["band_gap"] == ours[name].labels["band_gap"]
        assert theirs[name].split == ours[name].split


def test_lists_of_other_rows_are_refused(folder):
    place = folder("mp.2018.6.1.json.zip")
    lists(place, {"train": ["mp-x"], "test": ["mp-y"]})
    with pytest.raises(BadStructure, match=r"None of the 14 rows.*megnet_e_form"):
        list(load("mp-2018", place))
    (place / "megnet_e_form.json.zip").write_bytes(b"no archive")
    with pytest.raises(BadStructure, match="no list of parts"):
        list(load("mp-2018", place))


def lists(place, stored):
    """Another file of lists."""
    with zipfile.ZipFile(place / "megnet_e_form.json.zip", "w") as archive:
        archive.writestr("megnet_e_form.json", json.dumps(stored))


@pytest.mark.parametrize("stored", [{}, {"a": ["mp-1"]}, {"train": []}])
def test_lists_of_no_part_are_refused(folder, stored):
    place = folder("mp.2018.6.1.json.zip")
    lists(place, stored)
    with pytest.raises(BadStructure, match="lists no rows under train"):
        list(load("mp-2018", place))


def test_lists_of_other_rows_do_not_make_all_rows_the_test(folder):
    place = folder("mp.2018.6.1.json.zip")
    lists(place, {"train": ["mp-x"], "val": ["mp-y"]})
    with pytest.raises(BadStructure, match="None of the 14 rows"):
        list(load("mp-2018", place))


@pytest.mark.parametrize("rows", [13, 14, 15])
def test_lists_of_numbers_are_of_as_many_rows(folder, small, rows):
    place = folder("mp.2018.6.1.json.zip")
    lists(place, {"train": list(range(10)), "valid": [10, 11], "test": [12, 13]})
    small("mp-2018", rows=rows)
    if rows == 14:
        assert [row.split for row in load("mp-2018", place)][9:] == ["train"] + ["val"] * 2 + [
            "test"
        ] * 2
        return
    with pytest.raises(BadStructure, match="another version"):
        list(load("mp-2018", place))


def test_fewer_rows_or_files_than_there_are_is_told(folder, caplog, small):
    list(load("matbench-perovskites", folder("matbench_perovskites.json.gz")))
    assert "matbench-perovskites: 8 of 18,928 rows are there" in caplog.text
    place = folder()
    (place / "salex" / "train").mkdir(parents=True)
    with pytest.raises(BadStructure, match="None of the 0 rows"):
        list(load("salex", place))
    assert "salex is read without salex/val" in caplog.text


def test_what_is_missing_is_named_with_what_to_do(folder):
    place = folder("mp.2018.6.1.json.zip")
    with pytest.raises(
        MissingData,
        match=r"megnet_e_form.json.zip, which does not.*mp_labelled.*data fetch mp-2018",
    ):
        load("mp-2018", place)
    with pytest.raises(MissingData, match="data fetch mptrj --to"):
        load("mptrj")
