"""How models are judged where files have splits in part, or predictions are not finite."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from command import run
from small_runs import MODEL, crystals_with_forces, made_up, packed_set

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import BadModelFile, MissingData, UnknownName
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.structures import Crystal, to_atoms
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training import evaluate as evaluation
from ase_crystalformer.training.comparison import compare, judge
from ase_crystalformer.training.evaluate import evaluate


@pytest.fixture
def gaps():
    """A model of gaps with random weights."""
    return CrystalModel("crystalformer", MODEL, targets=[TARGETS["band_gap"]]).eval()


def in_parts(*parts):
    """Crystals with gaps in these parts of the data."""
    rows = made_up(band_gap=1.0) * 3
    return [
        replace(row.in_split(part), id=str(number))
        for number, (row, part) in enumerate(zip(rows, parts, strict=False))
    ]


def set_or_file(kind, rows, folder):
    """Pack crystals, or write them into a file."""
    if kind == "set":
        packed_set(rows, folder / "set", "band_gap")
        return folder / "set"
    from ase.io import write

    frames = []
    for row in rows:
        atoms = to_atoms(Crystal(row.species, row.positions, row.cell, row.periodic))
        atoms.info |= {"band_gap": row.labels["band_gap"]}
        atoms.info |= {"split": row.split} if row.split else {}
        frames.append(atoms)
    write(folder / "mine.extxyz", frames)
    return folder / "mine.extxyz"


@pytest.mark.parametrize("kind", ["set", "file"])
def test_unmarked_rows_are_no_test_part_where_others_are_marked(kind, gaps, tmp_path, caplog):
    told: dict[str, Any] = {"out": tmp_path / "out", "progress": False}
    parts = ["train"] * 5 + ["val"] * 2 + [None] * 3
    data = set_or_file(kind, in_parts(*parts), tmp_path)
    with pytest.raises(MissingData, match=r"of split test; it has train 5, val 2, and 3 in none"):
        evaluate(gaps, data, split="test", **told)
    assert evaluate(gaps, data, split="val", **told)["band_gap"].n == 2
    assert evaluate(gaps, data, split=None, **told)["band_gap"].n == 10
    with pytest.raises(UnknownName, match=r"no split named 'tst'\. Did you mean 'test'"):
        evaluate(gaps, data, split="tst", **told)
    assert "are in no split" not in caplog.text
    (tmp_path / "bare").mkdir()
    bare = set_or_file(kind, in_parts(None, None), tmp_path / "bare")
    scores = evaluate(gaps, bare, split="test", **told)
    assert (scores["band_gap"].n, scores["band_gap"].on) == (2, "all")
    assert "in no split: all 2 are judged" in caplog.text


def test_a_split_of_no_known_name_is_refused_by_the_command(gaps, tmp_path):
    gaps.save(tmp_path / "model")
    data = set_or_file("file", in_parts("test", "test"), tmp_path)
    result = run("evaluate", tmp_path / "model", data, "--split", "tests", "-o", tmp_path, code=2)
    assert "no split named 'tests'" in result.stderr


@pytest.fixture
def broken(monkeypatch):
    """Let a potential predict no number for the forces and the energy of its first crystal."""
    whole = evaluation._compare_energies

    def lacking(model, batch):
        for key, predicted, label in whole(model, batch):
            broken = predicted.clone()
            if getattr(model, "breaks", False) and key[0] != "stress":
                broken[0] = torch.nan
            yield key, broken, label

    monkeypatch.setattr(evaluation, "_compare_energies", lacking)


def test_one_prediction_that_is_no_number_leaves_the_table(broken, tmp_path, caplog):
    packed = packed_set(crystals_with_forces(), tmp_path / "set", "energy")
    model = CrystalModel("crystalformer", MODEL, energy_scale="mp").eval()
    which = np.arange(len(packed))
    sound = judge(model, packed, which, "all")
    model.breaks = True
    found = judge(model, packed, which, "all", tmp_path / "parity.png")
    for name in ("energy", "energy, elements fitted", "forces", "stress"):
        assert np.isfinite(found[name].mae)
    assert found["forces"].n == sound["forces"].n - 1
    assert found["energy"].n == sound["energy"].n - 1
    assert found["stress"] == sound["stress"]
    assert "2 labels have no finite prediction beside them, and are left out" in caplog.text
    [forces] = [one for one in compare(model, model, packed, which) if one.quantity == "forces"]
    assert forces.after == found["forces"].mae


def test_energies_of_another_scale_are_fitted_without_those_that_are_no_number(broken, tmp_path):
    rows = crystals_with_forces()
    packed = packed_set([*rows[12:], *rows[:12]], tmp_path / "set", "energy")
    model = CrystalModel("crystalformer", MODEL, energy_scale="mp").eval()
    model.breaks = True
    found = judge(model, packed, np.arange(len(packed)), "all")["energy, elements fitted"]
    assert (found.n, np.isfinite(found.mae)) == (11, True)


def test_a_model_that_gives_no_number_is_not_mistaken_for_missing_labels(gaps, tmp_path):
    packed_set(in_parts("test", "test"), tmp_path / "set", "band_gap")
    for weight in gaps.parameters():
        weight.data.fill_(torch.nan)
    with pytest.raises(BadModelFile, match=r"has labels of band_gap, but none .* is finite"):
        evaluate(gaps, tmp_path / "set", split="test", out=tmp_path, progress=False)
    assert PackedCrystals(tmp_path / "set").label("band_gap").tolist() == [1.0, 1.0]
