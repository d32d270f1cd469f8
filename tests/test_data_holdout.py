"""Validation crystals are no near copies of training crystals, and the same in every run."""

from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.holdout import (
    series,
    split_by_block,
    split_by_fold,
    split_by_name,
    split_by_series,
)
from ase_crystalformer.data.readers import load

SAMPLES = Path(__file__).parent / "samples"


def frame(name):
    return LabelledCrystal(
        species=np.array([1]),
        positions=np.zeros((1, 3)),
        cell=np.eye(3),
        periodic=np.ones(3, dtype=bool),
        labels={},
        id=name,
        source="test",
        group="test",
    )


FRAMES = [frame(f"{run}/{number}") for run in ("hot", "cold") for number in range(100)]


def test_a_name_is_always_in_the_same_part():
    parts = Counter(split_by_name(f"mp-{number}", seed=1) for number in range(4000))
    assert parts["val"] == pytest.approx(200, abs=60)
    assert split_by_name("mp-7", seed=1) == split_by_name("mp-7", seed=1)


def test_another_seed_holds_out_others():
    first, second = (
        {number for number in range(4000) if split_by_name(f"mp-{number}", seed=seed) == "val"}
        for seed in (1, 2)
    )
    assert len(first & second) < 40


def test_one_block_of_each_run_is_held_out():
    split = list(split_by_block(FRAMES, seed=3))
    for run in ("hot", "cold"):
        members = [row for row in split if series(row) == run]
        blocks = [(part, len(list(rows))) for part, rows in groupby(members, lambda row: row.split)]
        assert [length for part, length in blocks if part == "val"] == [5]
    assert sorted(row.id for row in split) == sorted(row.id for row in FRAMES)


def test_blocks_are_the_same_in_every_run():
    def held_out(seed):
        return [row.id for row in split_by_block(FRAMES, seed) if row.split == "val"]

    assert held_out(3) == held_out(3)
    assert held_out(3) != held_out(4)


def test_a_series_is_held_out_as_a_whole():
    parts = Counter()
    for seed in range(20):
        split = {(series(row), row.split) for row in split_by_series(FRAMES, seed, fraction=0.5)}
        assert len(split) == 2
        parts.update(part for _, part in split)
    assert min(parts["train"], parts["val"]) > 5


def test_each_perovskite_is_tested_in_one_fold():
    rows = list(load("matbench_perovskites", SAMPLES))
    tested = Counter(
        row.id
        for fold in range(5)
        for row in split_by_fold(rows, fold, seed=0)
        if row.split == "test"
    )
    assert tested == Counter(row.id for row in rows)


def test_a_fold_is_learned_and_validated_on_the_others():
    rows = list(load("matbench_perovskites", SAMPLES))
    split = list(split_by_fold(rows, 2, seed=0, fraction=0.3))
    assert {row.split for row in split} == {"train", "val", "test"}
    assert {row.id for row in split if row.split == "test"} == {
        row.id for row in rows if row.info["fold_test"] == "2"
    }


def test_rows_without_a_fold_are_left_out():
    rows = list(load("matbench_mp_joined", SAMPLES))
    with_gap = [row for row in rows if "fold_gap" in row.info]
    assert 0 < len(with_gap) < len(rows)
    assert len(list(split_by_fold(rows, 0, seed=0, key="fold_gap"))) == len(with_gap)
