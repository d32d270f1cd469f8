"""The frames that come with the package: few, of every element, chosen as they say."""

import gzip
from collections import Counter
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from small_runs import SAMPLES

from ase_crystalformer.data import replay
from ase_crystalformer.data.readers import load
from ase_crystalformer.data.replay import choose, replay_frames, write_replay

PACKAGED = files("ase_crystalformer.data") / replay.FILE


def mixture():
    """Real frames of three sources, some with an energy alone; every fifth is held out."""
    rested = [
        row.labelled({"energy": 1.0, "forces": np.zeros((row.atoms, 3))})
        for row in load("mp_labelled", SAMPLES)
    ]
    shaken = list(load("mp_perturbed_sevennet", SAMPLES))
    rested[::3] = [row.labelled({"energy": 1.0}) for row in rested[::3]]
    foreign = list(load("mp_perturbed_chgnet", SAMPLES))
    rows = [*rested, *shaken, *foreign]
    return [row.in_split("val" if n % 5 == 4 else "train") for n, row in enumerate(rows)]


def largest_force(crystal):
    return np.abs(crystal.labels.get("forces", 0.0)).max()


def test_the_packaged_file_is_small_and_holds_what_it_says():
    text = gzip.decompress(PACKAGED.read_bytes()).decode()
    assert len(PACKAGED.read_bytes()) < 2_000_000
    sources = Counter(
        line.partition('id="')[2].partition("/")[0] for line in text.splitlines() if "id=" in line
    )
    told = (files("ase_crystalformer.data") / "replay.md").read_text(encoding="utf-8")
    assert f"{sum(sources.values()):,} frames" in told
    for name, count in sources.items():
        assert name in told or name.startswith("polymlp")
        assert count <= replay.QUOTAS[name][0]
    for name in ("mp_labelled", "mp_perturbed_sevennet"):
        assert f"| `{name}` | {sources[name]:,} |" in told


def test_only_training_frames_of_small_forces_are_chosen():
    crystals = mixture()
    held_out = {crystal.id for crystal in crystals if crystal.split == "val"}
    chosen = choose(crystals)
    assert chosen
    assert not held_out & {crystal.id for crystal in chosen}
    assert any("forces" not in crystal.labels for crystal in chosen)
    for crystal in chosen:
        assert largest_force(crystal) <= replay.LARGEST_FORCE
        assert crystal.atoms <= replay.QUOTAS[crystal.source][1]
    wild = max(map(largest_force, crystals))
    assert wild > replay.LARGEST_FORCE


def test_rare_elements_are_chosen_first_and_the_same_each_time(monkeypatch):
    monkeypatch.setitem(replay.QUOTAS, "mp_labelled", (20, 12))
    first = next(crystal for crystal in mixture() if crystal.split == "train")
    common = [replace(first, id=f"common-{number}") for number in range(500)]
    rare = [crystal for crystal in mixture() if crystal.source == "mp_labelled"][1:]
    chosen = choose([*common, *rare])
    assert [one.id for one in chosen] == [one.id for one in choose([*common, *rare])]
    assert len(chosen) == 20
    assert sum(one.id.startswith("common") for one in chosen) <= 3


def test_frames_survive_the_file_and_foreign_energies_stay_behind(tmp_path, monkeypatch):
    chosen = choose(mixture())
    path = tmp_path / "data" / replay.FILE
    path.parent.mkdir()
    write_replay(chosen, path)
    monkeypatch.setattr(replay, "files", lambda package: path.parent)
    read = replay_frames.__wrapped__()
    assert len(read) == len(chosen)
    for one, other in zip(chosen, read, strict=True):
        assert np.array_equal(one.species, other.species)
        assert np.allclose(one.positions, other.positions, atol=6e-5)
        assert ("forces" in one.labels) == ("forces" in other.labels)
        if "forces" in one.labels:
            assert np.allclose(one.labels["forces"], other.labels["forces"], atol=6e-4)
        assert ("energy" in other.labels) == (one.group == "mp")
        if one.group == "mp":
            assert other.labels["energy"] == pytest.approx(one.labels["energy"], abs=6e-5)
        assert other.id == f"{one.source}/{one.id}"
    parts = {}
    for frame in read:
        parts.setdefault(frame.id.split("/")[1], set()).add(frame.split)
    assert all(len(found) == 1 for found in parts.values())
    again = tmp_path / "again.gz"
    write_replay(chosen, again)
    assert again.read_bytes() == path.read_bytes()
