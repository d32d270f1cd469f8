"""Validation crystals are no near copies of training crystals, and the same in every run."""

from collections import Counter
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.holdout import (
    FRACTION,
    drawn,
    series,
    split_by_block,
    split_by_fold,
    split_by_name,
    split_by_series,
)
from ase_crystalformer.data.potential import AT_REST, AT_REST_SEED, at_rest
from ase_crystalformer.data.readers import load
from ase_crystalformer.data.replay import SEED, SET_ASIDE, replay_frames

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


def names(letters, seed=0):
    """Two thousand names of so many letters."""
    random = np.random.default_rng([seed, letters])
    rows = random.choice(list("abcdefghijklmnopqrstuvwxyz"), (2000, letters))
    return sorted({"".join(row) for row in rows})


def held_out(seed, among, fraction=FRACTION):
    return {name for name in among if split_by_name(name, seed, fraction) == "val"}


def test_a_name_is_always_in_the_same_part():
    """Parts of the bundled models rest on these."""
    parts = Counter(split_by_name(f"mp-{number}", seed=1) for number in range(4000))
    assert parts["val"] == pytest.approx(200, abs=60)
    among = [f"mp-{number}" for number in range(150)]
    assert held_out(0, among) == {f"mp-{number}" for number in (51, 59, 110, 114, 141, 149)}
    assert split_by_name("mp-149", seed=1) == "train"


@pytest.mark.parametrize("letters", range(4, 10))
def test_two_seeds_hold_out_disjoint_parts_or_nearly_the_same(letters):
    """CRC is linear; where a second choice is to be independent, ``drawn`` makes it."""
    among = names(letters)
    first = held_out(1, among)
    shared = [len(first & held_out(seed, among)) / len(first) for seed in range(2, 10)]
    assert all(share == 0 or share > 0.5 for share in shared)
    assert shared.count(0) > 4


@pytest.mark.parametrize("letters", range(4, 10))
def test_a_share_is_drawn_from_what_a_first_choice_left(letters):
    left = sorted(set(names(letters)) - held_out(0, names(letters)))
    error = (0.1 * 0.9 * len(left)) ** 0.5
    first, second = ({name for name in left if drawn(name, seed, 0.1)} for seed in (1, 2))
    for chosen in (first, second):
        assert len(chosen) == pytest.approx(0.1 * len(left), abs=4 * error)
    assert len(first & second) == pytest.approx(0.01 * len(left), abs=4 * error / 10**0.5)
    assert {name for name in left if drawn(name, 1, 0.1)} == first


def test_shares_of_the_bundled_mixture_are_drawn_independently():
    """Crystals that are told to be at rest, and frames that are never replayed: a tenth each."""
    rows = [replace(frame(f"mp-{number}"), split="train") for number in range(100000, 104000)]
    rows = [replace(row, labels={"energy_per_atom": 0.0}) for row in rows]
    rows = [replace(row, info={"structure_source": "mp_2018"}) for row in rows]
    told = {row.id for row in rows if "forces" in at_rest(row).labels}
    assert told == {row.id for row in rows if drawn(row.id, AT_REST_SEED, AT_REST)}
    assert len(told) == pytest.approx(400, abs=80)
    kept = {one.id.split("/")[1]: one.split for one in replay_frames()}
    aside = {name for name in kept if drawn(name, SEED, SET_ASIDE)}
    assert {name for name, split in kept.items() if split == "test"} == aside
    assert len(aside) / len(kept) == pytest.approx(0.1, abs=4 * (0.09 / len(kept)) ** 0.5)


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
