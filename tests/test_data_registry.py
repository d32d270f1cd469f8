"""Every public data set says where it comes from, and its labels have the units they claim."""

import json
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from ase_crystalformer.data import official
from ase_crystalformer.data.properties import MEGNET_MINUS_MATBENCH
from ase_crystalformer.data.published import matbench_name
from ase_crystalformer.data.readers import load, load_labels, path_of
from ase_crystalformer.data.registry import DATA_SETS, Label
from ase_crystalformer.errors import MissingData, UnknownName
from ase_crystalformer.leaderboards import matbench
from ase_crystalformer.units import UNITS

SAMPLES = Path(__file__).parent / "samples"
STRUCTURES = [name for name, known in DATA_SETS.items() if (SAMPLES / known.file).is_file()]
STRUCTURES = [name for name in STRUCTURES if DATA_SETS[name].file.endswith(".extxyz.gz")]


@pytest.mark.parametrize("data_set", DATA_SETS.values(), ids=lambda known: known.name)
def test_whom_to_thank(data_set):
    assert re.search("CC-BY-4.0|MIT|BSD-3-Clause|public domain", data_set.licence)
    assert data_set.citations
    assert all(re.search(r"doi:10\.|arXiv:\d", citation) for citation in data_set.citations)
    assert data_set.url.startswith("https://")
    assert data_set.use in {"training", "validation", "benchmark", "structures"}
    assert bool(data_set.labels or data_set.dynamics) == (data_set.use != "structures")


@pytest.mark.parametrize("data_set", DATA_SETS.values(), ids=lambda known: known.name)
def test_a_quantity_has_one_unit_everywhere(data_set):
    for label in data_set.labels:
        assert label.unit == UNITS.get(label.name, label.unit)
        assert label.unit


@pytest.mark.parametrize("name", STRUCTURES)
def test_samples_have_labels_and_names(name):
    crystals = list(load(name, SAMPLES))
    assert len({crystal.id for crystal in crystals}) == len(crystals) > 0
    known = {label.name for label in DATA_SETS[name].labels} | {"energy", "forces", "stress"}
    for crystal in crystals:
        assert crystal.labels
        assert crystal.labels.keys() <= known
        assert (crystal.source, crystal.group) == (name, DATA_SETS[name].group)


def test_every_training_set_has_a_sample():
    training = {name for name, known in DATA_SETS.items() if known.use == "training"}
    assert training <= set(STRUCTURES)


def test_stress_is_ases_sign():
    """A crystal in its smallest volume is squeezed: its stress is negative."""
    aluminium = [row for row in load("eos_vasp_pbe", SAMPLES) if row.id.startswith("Al")]
    by_volume = sorted(aluminium, key=lambda row: row.volume)
    volumes = np.array([row.volume for row in by_volume])
    energies = np.array([row.labels["energy"] for row in by_volume])
    middle = len(volumes) // 2
    slope = np.gradient(energies, volumes)
    for row, derivative in list(zip(by_volume, slope, strict=True))[1:-1]:
        trace = np.trace(row.labels["stress"]) / 3
        assert trace == pytest.approx(derivative, abs=1e-3)
    assert np.trace(by_volume[0].labels["stress"]) < 0 < np.trace(by_volume[-1].labels["stress"])
    assert np.argmin(energies) in {middle - 1, middle, middle + 1}


def test_moduli_of_the_two_sources_agree():
    """One holds GPa, the other decimal logarithms."""
    ours = {row.id: row.labels for row in load("mp_labelled", SAMPLES)}
    logarithms = load("matbench_log_kgvrh", SAMPLES)
    both = [row for row in logarithms if "bulk_modulus" in ours.get(row.id, {})]
    ratios = [row.labels["bulk_modulus"] / ours[row.id]["bulk_modulus"] for row in both]
    assert len(ratios) > 10
    assert np.median(ratios) == pytest.approx(1, abs=0.01)


def test_a_column_is_named_or_has_the_name_of_its_label():
    assert Label(name="n", unit="1").column == "n"
    assert Label(name="n", unit="1", column="m").column == "m"
    assert Label(name="k", unit="GPa", log10=True).read("2") == pytest.approx(100)


def test_labels_without_structures():
    rows = list(load_labels("jarvis_dft3d_labels", SAMPLES))
    assert len(rows) == 20
    assert rows[0].id == "JVASP-100000"
    assert rows[0].split == "train"
    assert rows[0].labels["formation_energy_per_atom"] == pytest.approx(-0.66917)
    assert "bulk_modulus" not in rows[0].labels


def test_matbench_lies_below_megnet_by_the_elements():
    """The sign of the shift: adding it brings every pair nearer."""
    ours = {row.id: row for row in load("mp_labelled", SAMPLES)}
    rows = list(load_labels("matbench_mp_labels", SAMPLES))
    shifted = 0
    for row in rows:
        crystal = ours[row.id]
        shift = sum(MEGNET_MINUS_MATBENCH.get(int(z), 0) for z in crystal.species) / crystal.atoms
        if abs(shift) > 1e-3 and row.info["join"] == "verified":
            apart = (
                crystal.labels["formation_energy_per_atom"]
                - row.labels["formation_energy_per_atom"]
            )
            assert abs(apart - shift) < abs(apart) / 2
            shifted += 1
    assert shifted > 5


def test_an_unknown_name_is_answered_with_the_known():
    with pytest.raises(UnknownName, match="Did you mean 'mlearn'"):
        load("mlern", SAMPLES)
    with pytest.raises(UnknownName, match="jarvis_dft3d_labels"):
        load_labels("mlearn", SAMPLES)


def test_a_missing_file_is_named_with_its_origin(tmp_path):
    with pytest.raises(MissingData, match=r"mlearn\.extxyz\.gz.*github"):
        load("mlearn", tmp_path)
    with pytest.raises(MissingData, match="Name the folder"):
        load("mlearn")
    with pytest.raises(MissingData):
        path_of(replace(DATA_SETS["mlearn"], file="elsewhere"), SAMPLES)


def test_a_set_takes_from_another_what_it_does_not_say():
    hull, all_rows = DATA_SETS["jarvis-dft3d-ehull"], DATA_SETS["jarvis-dft3d"]
    assert (hull.labels, hull.downloads) == (all_rows.labels, all_rows.downloads)
    assert (hull.only, hull.rows, hull.extracts) == ("energy_above_hull", 0, ())
    assert hull.about != all_rows.about


PUBLISHED = [known for known in DATA_SETS.values() if known.downloads]


@pytest.mark.parametrize("known", PUBLISHED, ids=lambda known: known.name)
def test_published_sets_say_how_they_are_split(known):
    assert known.split
    assert known.file == known.downloads[0].place
    assert sum(one.lists for one in known.downloads) == (known.parts == "listed")
    assert (known.parts in {"folds", "stratified"}) == known.name.startswith("matbench-")
    assert known.rows or known.parts not in {"folds", "stratified"}
    assert (known.parts == "shuffled") <= (known.only in {label.name for label in known.labels})
    for one in known.downloads:
        assert one.url.startswith("https://")
        assert re.fullmatch("([0-9a-f]{64})?", one.sha256)
        assert re.fullmatch("([0-9a-f]{32})?", one.md5)
    for part in known.extracts:
        held = {label.name for label in DATA_SETS[part.labels or part.set].labels}
        assert held & {label.name for label in known.labels}


def test_checksums_and_sizes_of_matbench_are_those_of_matminer():
    folder = Path(find_spec("matminer").origin).parent / "datasets"
    told = json.loads((folder / "dataset_metadata.json").read_text())
    ours = {name: known for name, known in DATA_SETS.items() if name.startswith("matbench-")}
    assert len(ours) == 9
    for name, known in ours.items():
        theirs, (one,) = told[name.replace("-", "_")], known.downloads
        assert (one.url, one.sha256) == (theirs["url"], theirs["hash"])
        assert known.rows == theirs["num_entries"]
        assert known.labels[0].column in theirs["columns"]


def test_files_of_jarvis_are_those_of_jarvis_tools():
    text = (Path(find_spec("jarvis").origin).parent / "db" / "figshare.py").read_text()
    for name, known in DATA_SETS.items():
        if name.startswith("jarvis-"):
            (one,) = known.downloads
            at = text.index(one.url)
            assert one.file.removesuffix(".zip") in text[at : at + 200]


@pytest.mark.parametrize("task", matbench.TASKS)
def test_leaderboard_and_data_sets_agree_on_rows_names_and_folds(task):
    known = DATA_SETS[task.replace("_", "-")]
    assert matbench.TASKS[task].rows == known.rows
    assert matbench.row_name(task, 7) == matbench_name(known, 7)
    if not matbench.TASKS[task].classes:
        drawn = np.flatnonzero(official.folds(known.rows) == 3).tolist()
        assert matbench.fold_rows(task, 3) == [matbench_name(known, row + 1) for row in drawn]


def test_folds_are_drawn_in_one_place(monkeypatch):
    before = matbench.fold_rows("matbench_jdft2d", 0)
    monkeypatch.setattr(official, "FOLD_SEED", 1)
    assert matbench.fold_rows("matbench_jdft2d", 0) != before
