"""Files that say something else than they seem to, and sets that became others: told by name."""

import csv
import json
import os
from dataclasses import fields
from unittest.mock import create_autospec

import pytest
from pymatgen.core import Lattice, Structure
from small_runs import MODEL, TARGETS, crystals_with_properties, packed_set, property_recipe
from typer.testing import CliRunner

from ase_crystalformer.cli import app
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import remove_packed
from ase_crystalformer.encoders import ENCODERS
from ase_crystalformer.errors import BadModelFile, BadRecipe, MissingData
from ase_crystalformer.leaderboards.runs import open_run
from ase_crystalformer.training import origin
from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.evaluate import evaluate
from ase_crystalformer.training.prepare import COUNTED, prepare
from ase_crystalformer.training.run import fit


def table(path, **columns):
    """Write a table of rock salts, each a little larger, with these columns."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["structure", *columns])
        for number, cells in enumerate(zip(*columns.values(), strict=True)):
            lattice = Lattice.cubic(4.2 + 0.001 * number)
            salt = Structure(lattice, ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
            writer.writerow([json.dumps(salt.as_dict()), *cells])
    return path


def gaps(source, packed, **told):
    """Pack a table as a recipe for band gaps would."""
    data = {"packed": packed, "source": str(source), **told.pop("data", {})}
    recipe = {"name": "x", "targets": ["band_gap"], "model": MODEL, "data": data, **told}
    return prepare(check_recipe(recipe))


def test_a_run_is_not_judged_by_a_set_packed_anew(tmp_path):
    """It may have learned from the crystals that judge now."""
    rows = crystals_with_properties()
    recipe = property_recipe(tmp_path / "packed")
    packed_set(rows, recipe.data.packed, *TARGETS)
    fit(recipe, tmp_path / "ra", progress=False)
    remove_packed(recipe.data.packed)
    turned = [row.in_split("val" if row.split == "train" else "train") for row in rows]
    packed_set(turned, recipe.data.packed, *TARGETS)
    fit(recipe, tmp_path / "rb", progress=False)
    with pytest.raises(BadRecipe, match=r"not the set the run in .*ra began with"):
        open_run(tmp_path / "ra", "val")
    done = CliRunner().invoke(app, ["table", str(tmp_path / "ra"), str(tmp_path / "rb")])
    assert done.exit_code == 1
    assert "is not the set the run in" in done.output
    assert done.output.count("| packed |") == len(TARGETS)


def test_a_file_of_one_name_and_size_is_another_if_its_content_is(tmp_path, caplog):
    first = table(tmp_path / "a" / "fix.csv", band_gap=[1.0, 2.0, 3.0])
    packed = gaps(first, tmp_path / "set")
    same = table(tmp_path / "b" / "fix.csv", band_gap=[1.0, 2.0, 3.0])
    gaps(same, tmp_path / "set")
    assert not caplog.text
    other = table(tmp_path / "c" / "fix.csv", band_gap=[3.0, 2.0, 1.0])
    assert other.stat().st_size == first.stat().st_size
    with pytest.raises(BadRecipe, match=r"a.fix\.csv, and .*c.fix\.csv is another file"):
        gaps(other, tmp_path / "set")
    first.write_bytes(other.read_bytes())
    gaps(first, tmp_path / "set")
    assert "fix.csv has changed since" in caplog.text
    told = packed.folder / "meta.json"
    meta = {key: value for key, value in json.loads(told.read_text()).items() if key != "files"}
    told.write_text(json.dumps(meta))  # as sets were packed before
    caplog.clear()
    assert isinstance(gaps(other, tmp_path / "set"), PackedCrystals)
    assert not caplog.text


def test_a_file_is_read_again_only_if_it_was_written_since(tmp_path, caplog, monkeypatch):
    source = table(tmp_path / "fix.csv", band_gap=[1.0] * 9)
    hashed = create_autospec(origin._hash, side_effect=origin._hash)
    monkeypatch.setattr(origin, "_hash", hashed)
    for _ in range(3):
        gaps(source, tmp_path / "set")
    assert hashed.call_count == 1
    os.utime(source, (0, 0))
    gaps(source, tmp_path / "set")
    assert hashed.call_count == 2
    assert not caplog.text


def test_a_folder_of_frames_that_grew_is_told(tmp_path, caplog):
    (tmp_path / "frames").mkdir()
    text = "1\nLattice='3 0 0 0 3 0 0 0 {}' energy=-1.0\nCu 0 0 0\n".replace("'", '"')
    (tmp_path / "frames" / "a.extxyz").write_text(text.format(3) + text.format(3.1))
    data = {"packed": tmp_path / "set", "source": (str(tmp_path / "frames"),)}
    recipe = check_recipe({"name": "x", "energy": {}, "model": MODEL, "data": data})
    prepare(recipe)
    prepare(recipe)
    assert "has changed since" not in caplog.text
    (tmp_path / "frames" / "b.extxyz").write_text(text.format(3.2))
    prepare(recipe)
    assert "frames has changed since" in caplog.text


def test_another_seed_than_the_one_that_split_a_set_is_told(tmp_path, caplog):
    source = table(tmp_path / "fix.csv", id=range(30), band_gap=[1.0] * 30)
    packed = gaps(source, tmp_path / "set", seed=3)
    gaps(source, tmp_path / "set", seed=3)
    assert not caplog.text
    again = gaps(source, tmp_path / "set", seed=1)
    assert "was split with seed 3, not 1" in caplog.text
    assert again.fingerprint() == packed.fingerprint()
    caplog.clear()
    told = packed.folder / "meta.json"
    meta = {key: value for key, value in json.loads(told.read_text()).items() if key != "seed"}
    told.write_text(json.dumps(meta))  # as sets were packed before
    gaps(source, tmp_path / "set", seed=1)
    assert not caplog.text


def test_a_target_without_a_column_is_named_and_nothing_is_packed(tmp_path, caplog):
    source = table(tmp_path / "fix.csv", gap=[1.0] * 9, formula=["MgO"] * 9)
    told = r"No row of .*fix\.csv has a number in band_gap; its columns are gap, formula"
    with pytest.raises(MissingData, match=told):
        gaps(source, tmp_path / "set")
    assert not (tmp_path / "set").exists()
    table(tmp_path / "fix.csv", band_gap=[1.0] * 9, formula=["MgO"] * 9)
    assert len(gaps(source, tmp_path / "set")) == 9
    assert "has changed since" not in caplog.text
    with pytest.raises(MissingData, match="number in bulk_modulus; its columns are band_gap"):
        gaps(source, tmp_path / "both", targets=["band_gap", "bulk_modulus"])


def test_a_file_of_which_nothing_can_be_read_is_named(tmp_path):
    (tmp_path / "fix.csv").write_text("cif,band_gap\nnothing,1.0\n")
    with pytest.raises(MissingData, match=r"No row of .*fix\.csv can be read"):
        gaps(tmp_path / "fix.csv", tmp_path / "set")


@pytest.mark.parametrize("name", ["stress", "forces"])
def test_a_number_called_stress_is_no_label_and_throws_no_row_out(tmp_path, caplog, name):
    columns = {"band_gap": [1.0] * 4, "energy": [-1.0] * 4, name: [0.5, "", "[[1, 2, 3]]", "high"]}
    source = table(tmp_path / "fix.csv", **columns)
    assert len(gaps(source, tmp_path / "set")) == 4
    assert not caplog.text
    told = {"packed": tmp_path / "potential", "source": str(source)}
    prepare(check_recipe({"name": "x", "energy": {}, "model": MODEL, "data": told}))
    assert f"{name} is no array, and so no label, in 3 of the rows" in caplog.text


def test_entries_that_are_no_numbers_are_counted_and_told(tmp_path, caplog):
    cells = ["> 5", "1,2", "inf", "", "NaN", "n/a", 0.5, 1.5]
    source = table(tmp_path / "fix.csv", id=[f"salt-{n}" for n in range(8)], band_gap=cells)
    assert len(gaps(source, tmp_path / "set")) == 2
    assert "band_gap is no finite number, and so no label, in 3 of the rows" in caplog.text
    assert "e.g. '> 5' of salt-0" in caplog.text
    caplog.clear()
    gaps(table(tmp_path / "fine.csv", band_gap=cells[3:]), tmp_path / "fine")
    assert not caplog.text


def test_labels_that_errors_leave_out_are_told(tmp_path, caplog):
    packed_set(crystals_with_properties(), tmp_path / "packed", *TARGETS)
    model = fit(property_recipe(tmp_path / "packed"), tmp_path / "run", progress=False)
    source = table(tmp_path / "k.csv", bulk_modulus=[0.0, -3.0, 150.0, "soft", "", 160.0])
    scores = evaluate(model, source, split=None, out=tmp_path / "out", progress=False)
    assert "bulk_modulus is no finite number, and so no label, in 1 of the rows" in caplog.text
    assert "2 labels of bulk_modulus are not above zero, have no logarithm" in caplog.text
    assert (scores["bulk_modulus"].n, scores["log10 bulk_modulus"].n) == (4, 2)


def parts_of(packed):
    return [len(packed.where(part)) for part in ("train", "val", "test")]


def test_folds_counted_from_one_are_refused(tmp_path):
    folds = [1 + number % 5 for number in range(10)]
    source = table(tmp_path / "fix.csv", fold_test=folds, band_gap=[1.0] * 10)
    with pytest.raises(BadRecipe, match=r"of fold '5'. Write 0 to 4, counted from 0"):
        gaps(source, tmp_path / "set", data={"fold": 1})
    source = table(tmp_path / "fix.csv", fold_test=[1, 2, 3, 4], band_gap=[1.0] * 4)
    with pytest.raises(BadRecipe, match=r"No row is of fold 0, .* there are rows of 1, 2, 3, 4\."):
        gaps(source, tmp_path / "set", data={"fold": 0})
    assert not (tmp_path / "set").exists()
    source = table(tmp_path / "fix.csv", fold_test=["0.0", "0.5"], band_gap=[1.0] * 2)
    with pytest.raises(BadRecipe, match=r"of fold '0\.5'"):
        gaps(source, tmp_path / "set", data={"fold": 0})


def test_rows_without_a_name_are_numbered(tmp_path):
    plain = table(tmp_path / "plain.csv", band_gap=[1.0] * 40)
    blank = table(tmp_path / "blank.csv", id=[" ", ""] * 20, band_gap=[1.0] * 40)
    with blank.open(newline="") as file:
        told = [{**row, "id": None, "band_gap": 1.0} for row in csv.DictReader(file)]
    for row, number in zip(told, (float("nan"), None, 7), strict=False):
        row["id"] = number
    (tmp_path / "null.json").write_text(json.dumps(told))
    numbers = [str(number) for number in range(40)]
    assert gaps(plain, tmp_path / "plain").ids == numbers
    assert gaps(blank, tmp_path / "blank").ids == numbers
    assert gaps(tmp_path / "null.json", tmp_path / "null").ids == ["0", "1", "7", *numbers[3:]]
    sets = [PackedCrystals(tmp_path / name) for name in ("plain", "blank")]
    assert parts_of(sets[0]) == parts_of(sets[1])
    assert parts_of(sets[0])[1] > 0


def test_rows_of_too_few_names_are_parted_row_by_row(tmp_path, caplog):
    alike = table(tmp_path / "alike.csv", name=["x", "y"] * 100, band_gap=[1.0] * 200)
    packed = gaps(alike, tmp_path / "set")
    assert "The 200 rows of alike have 2 names, e.g. 'x'" in caplog.text
    assert 2 <= len(packed.where("val")) <= 20
    caplog.clear()
    names = [f"{number // 2}" for number in range(60)]
    twins = gaps(table(tmp_path / "twins.csv", name=names, band_gap=[1.0] * 60), tmp_path / "twins")
    assert not caplog.text
    split = twins.arrays["split"].reshape(-1, 2)
    assert (split[:, 0] == split[:, 1]).all()
    told = ["train", "val"] * 20
    gaps(
        table(tmp_path / "told.csv", name=["x"] * 40, split=told, band_gap=[1.0] * 40),
        tmp_path / "a",
    )
    assert not caplog.text


SIZES = [
    (encoder, entry.name)
    for encoder, (_, config) in ENCODERS.items()
    for entry in fields(config)
    if entry.name in COUNTED
]


@pytest.mark.parametrize(("encoder", "name"), SIZES)
def test_networks_of_nothing_are_refused(tmp_path, encoder, name):
    """Before anything is read: there is no such file."""
    with pytest.raises(BadRecipe, match=rf"\[model\] {name} is 0\. Write one or more"):
        gaps(tmp_path / "no.csv", tmp_path / "set", encoder=encoder, model={name: 0})


@pytest.mark.parametrize(
    ("encoder", "told"),
    [
        ("ecoformer", {"neighbours": 0.0}),
        ("crystalformer", {"degree": -1}),
    ],
)
def test_networks_that_cannot_be_made_are_refused_in_a_sentence(tmp_path, encoder, told):
    with pytest.raises(BadRecipe, match=rf"does not fit encoder '{encoder}'.* Its keys: mode,"):
        gaps(tmp_path / "no.csv", tmp_path / "set", encoder=encoder, model=told)


def test_elements_beyond_those_of_the_network_are_refused(tmp_path):
    source = table(tmp_path / "fix.csv", id=["a", "b"], band_gap=[1.0] * 2)
    gaps(source, tmp_path / "set", model={**MODEL, "elements": 12})
    for more in ({}, {"mixer": {}}):
        told = {"packed": tmp_path / ("mixed" if more else "set"), **more}
        with pytest.raises(BadRecipe, match=r"elements is 11, but a in .*model\.elements=12 or"):
            gaps(source, told.pop("packed"), model={**MODEL, "elements": 11}, **told)
    small = {"largest_crystal": 1}
    gaps(source, tmp_path / "set", model={**MODEL, "elements": 11}, data=small)


def test_a_set_without_edges_is_told_each_time(tmp_path, caplog):
    source = table(tmp_path / "fix.csv", band_gap=[1.0] * 3)
    for _ in range(2):
        gaps(source, tmp_path / "set", model={**MODEL, "cutoff": 3.638})
        assert "2 of 3 crystals in" in caplog.text
        caplog.clear()
    gaps(source, tmp_path / "whole")
    assert not caplog.text


def test_the_folder_where_a_program_runs_is_no_packed_set(tmp_path, monkeypatch):
    source = table(tmp_path / "a" / "fix.csv", band_gap=[1.0] * 3)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(
        BadModelFile, match="here would be replaced, but it is where this program runs"
    ):
        gaps(source, ".")
    assert len(gaps(source, "../here/sub/..//sub")) == 3
