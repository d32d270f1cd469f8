"""A packed set gives back the graphs and labels that went in."""

from dataclasses import replace
from threading import current_thread, main_thread

import numpy as np
import pytest
import torch
from small_runs import RULE, crystals_with_forces, made_up, packed_set

from ase_crystalformer.data import packing
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import AT_ONCE, pack
from ase_crystalformer.errors import BadModelFile
from ase_crystalformer.graph import collate
from ase_crystalformer.neighbours import build
from ase_crystalformer.orbits import reduce
from ase_crystalformer.structures import Crystal

FIELDS = ("species", "positions", "cell", "periodic", "crystal", "multiplicity")
EDGES = ("receiver", "sender", "image", "vector")


def graph_of(crystal):
    bare = Crystal(crystal.species, crystal.positions, crystal.cell, crystal.periodic)
    return build(bare, RULE)


@pytest.mark.parametrize("by_symmetry", [False, True])
def test_a_batch_is_the_collated_graphs(tmp_path, by_symmetry):
    crystals = made_up(energy=1.0)
    pack(crystals, RULE, tmp_path / "set", labels=["energy"], by_symmetry=by_symmetry)
    which = [2, 0, 3]
    batch, _ = PackedCrystals(tmp_path / "set").batch(which)
    graphs = [graph_of(crystals[number]) for number in which]
    if by_symmetry:
        graphs = [reduce(graph) for graph in graphs]
        assert sum(graph.atoms for graph in graphs) < sum(crystals[n].atoms for n in which)
    expected = collate(graphs)
    for name in (*FIELDS, *EDGES):
        got, wanted = getattr(batch, name), getattr(expected, name)
        assert got.shape == wanted.shape
        torch.testing.assert_close(got, wanted.to(got.dtype), rtol=1e-6, atol=1e-6)


def test_labels_come_back_and_missing_ones_are_nan(tmp_path):
    crystals = crystals_with_forces()
    del crystals[3].labels["stress"]
    del crystals[0].labels["energy"]
    packed = packed_set(crystals, tmp_path / "set", "energy")
    _, labels = packed.batch([3, 0])
    assert labels["energy"][0] == crystals[3].labels["energy"]
    assert labels["energy"][1].isnan()
    assert labels["stress"][0].isnan().all()
    forces = np.concatenate([crystals[n].labels["forces"] for n in (3, 0)])
    np.testing.assert_allclose(labels["forces"], forces, rtol=1e-6)
    assert labels["group"].tolist() == [0, 0]
    assert packed.meta["names"]["group"] == ["mp", "other"]


def test_splits_are_kept(tmp_path):
    crystals = made_up()
    parts = ["train", None, "val", "test"]
    placed = [crystal.in_split(part) for crystal, part in zip(crystals, parts, strict=True)]
    packed = packed_set(placed, tmp_path / "set")
    assert [packed.where(name).tolist() for name in ("train", "val", "test")] == [[0], [2], [3]]


def test_crystals_that_cannot_be_computed_are_left_out_by_name(tmp_path):
    crystals = made_up(energy=1.0)
    crystals[1] = replace(crystals[1], positions=np.zeros((2, 3)))
    crystals[2] = crystals[2].labelled({"forces": np.zeros((1, 3))})
    told = pack(crystals, RULE, tmp_path / "set", labels=["energy"])
    assert [line.split(":")[0] for line in told] == ["made-up/1", "made-up/2"]
    assert PackedCrystals(tmp_path / "set").ids == ["made-up/0", "made-up/3"]


def test_two_processes_write_what_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "TURNS", 1)
    window = 2 * AT_ONCE
    crystals = [
        replace(crystal, id=f"{crystal.id}-{turn}")
        for turn in range(window)
        for crystal in made_up(energy=float(turn))
    ]
    crystals[AT_ONCE] = replace(crystals[AT_ONCE], positions=0 * crystals[AT_ONCE].positions)
    options = {"labels": ["energy"], "by_symmetry": True}
    told = pack(iter(crystals), RULE, tmp_path / "one", **options)

    def watched():
        for number, crystal in enumerate(crystals):
            yield crystal
            assert current_thread() is main_thread()  # SQLite is read by one thread alone
            if number == 3 * window:
                written = tmp_path / "two.partial" / "vector.bin"
                assert written.stat().st_size > 0  # while others are still to be read

    assert pack(watched(), RULE, tmp_path / "two", processes=2, **options) == told
    assert len(told) == 1
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    for name in names:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_an_interrupted_pack_leaves_the_old_set(tmp_path):
    def broken():
        yield made_up()[1]
        raise KeyboardInterrupt

    packed_set(made_up()[:1], tmp_path / "set")
    with pytest.raises(KeyboardInterrupt):
        pack(broken(), RULE, tmp_path / "set", labels=[])
    assert PackedCrystals(tmp_path / "set").ids == ["made-up/0"]
    packed_set(made_up(), tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_a_pack_that_is_killed_leaves_nothing_to_mistake_for_a_set(tmp_path):
    def watched():
        for crystal in made_up():
            yield crystal
            assert not (tmp_path / "set").exists()
            with pytest.raises(BadModelFile, match="not a packed data set"):
                PackedCrystals(tmp_path / "set.partial")

    packed_set(watched(), tmp_path / "set")
    assert len(PackedCrystals(tmp_path / "set")) == 4


@pytest.mark.parametrize("name", ["vector", "species", "atoms", "label.energy"])
def test_a_truncated_set_is_refused(tmp_path, name):
    packed_set(made_up(energy=1.0), tmp_path / "set", "energy")
    path = tmp_path / "set" / f"{name}.bin"
    path.write_bytes(path.read_bytes()[:-24])
    with pytest.raises(BadModelFile, match="truncated"):
        PackedCrystals(tmp_path / "set")
