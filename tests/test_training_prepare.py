"""Packing the data of a recipe: every crystal in its part."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pytest
from filelock import FileLock
from small_runs import MODEL, SAMPLES

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.readers import load
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.training import prepare as module
from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.prepare import prepare


def packed(tmp_path, source, **told):
    """Pack a set as a recipe would."""
    data = {"packed": tmp_path / "set", "source": source, "directory": SAMPLES}
    data |= told.pop("data", {})
    return prepare(check_recipe({"name": "x", "model": MODEL, "data": data, **told}))


def parts(packed: PackedCrystals) -> Counter:
    return Counter({name: len(packed.where(name)) for name in ("train", "val", "test")})


def test_a_fold_is_the_test_part(tmp_path):
    target = ["formation_energy_per_cell"]
    made = packed(tmp_path, "matbench_perovskites", targets=target, data={"fold": 1})
    rows = list(load("matbench_perovskites", SAMPLES))
    tested = {row.id for row in rows if row.info["fold_test"] == "1"}
    ids = np.array(made.ids)
    assert set(ids[made.where("test")]) == tested
    assert parts(made).total() == len(rows)


def test_frames_that_follow_each_other_are_set_aside_in_runs(tmp_path):
    made = packed(tmp_path, "monbtaw", energy={})
    held = made.where("val")
    assert parts(made)["val"] == len(held) > 0
    series = [made.ids[number].rpartition("/")[0] for number in held]
    for name in set(series):
        numbers = [n for n, other in zip(held, series, strict=True) if other == name]
        assert np.ptp(numbers) == len(numbers) - 1


def test_a_set_packed_for_another_fold_is_refused(tmp_path):
    target = ["formation_energy_per_cell"]
    for _ in range(2):
        packed(tmp_path, "matbench_perovskites", targets=target, data={"fold": 1})
    with pytest.raises(BadRecipe, match=r"data\.fold is 2, but .* was packed for fold 1"):
        packed(tmp_path, "matbench_perovskites", targets=target, data={"fold": 2})


def test_a_source_without_folds_is_refused_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(BadRecipe, match=r"data\.fold is 1, but no crystal of 'monbtaw' has a fold"):
        packed(tmp_path, "monbtaw", energy={}, data={"fold": 1})
    assert parts(packed(tmp_path, "monbtaw", energy={})).total() > 0


@pytest.mark.parametrize("fold", [-1, 5, "first"])
def test_there_are_five_folds(tmp_path, fold):
    with pytest.raises(BadRecipe, match="fold"):
        packed(tmp_path, "matbench_perovskites", targets=["band_gap"], data={"fold": fold})


def test_an_encoder_that_needs_every_atom_refuses_a_set_by_symmetry(tmp_path):
    target = ["formation_energy_per_cell"]
    assert packed(tmp_path, "matbench_perovskites", targets=target).meta["by_symmetry"]
    model = {"cutoff": MODEL["cutoff"], "width": 16}
    with pytest.raises(BadRecipe, match="one atom of each orbit"):
        packed(tmp_path, "matbench_perovskites", targets=target, encoder="ecomformer", model=model)


def test_a_set_that_another_run_packs_is_waited_for(tmp_path, monkeypatch):
    made = packed(tmp_path, "monbtaw", energy={})
    made.folder.rename(tmp_path / "theirs")
    monkeypatch.setattr(module, "pack", Mock(side_effect=AssertionError("packed twice")))
    with ThreadPoolExecutor(1) as pool:
        with FileLock(tmp_path / ".set.lock"):
            other = pool.submit(packed, tmp_path, "monbtaw", energy={})
            with pytest.raises(TimeoutError):
                other.result(timeout=0.5)
            (tmp_path / "theirs").rename(made.folder)
        assert len(other.result(timeout=60)) == len(made)
