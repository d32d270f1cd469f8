"""Known crystals have their known neighbours; a pair list in motion gives what a search gives."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from ase_crystalformer.errors import BadStructure
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import Radius, VerletList, build

RULE = Radius(4.0)


def assert_same(graph, other):
    for field in fields(CrystalGraph):
        mine, theirs = getattr(graph, field.name), getattr(other, field.name)
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs), field.name


@pytest.mark.parametrize(
    ("crystal", "distance", "count"),
    [
        (bulk("Cu", "fcc", a=3.6), 3.6 / np.sqrt(2), 12),
        (bulk("Fe", "bcc", a=2.9), 2.9 * np.sqrt(3) / 2, 8),
        (bulk("Si", "diamond", a=5.4), 5.4 * np.sqrt(3) / 4, 4),
        (bulk("NaCl", "rocksalt", a=5.6), 5.6 / 2, 6),
        (bulk("CsCl", "cesiumchloride", a=4.1), 4.1 * np.sqrt(3) / 2, 8),
    ],
    ids=["fcc", "bcc", "diamond", "rocksalt", "caesium chloride"],
)
def test_coordination_numbers(crystal, distance, count):
    graph = build(crystal, Radius(distance + 0.01))
    assert graph.receiver.bincount().tolist() == [count] * len(crystal)
    np.testing.assert_allclose(graph.vector.norm(dim=1), distance)
    assert build(crystal, Radius(distance - 0.01)).edges == 0


def test_a_graph_describes_its_crystal(crystals):
    for crystal in crystals:
        graph = build(crystal, RULE)
        assert graph.species.tolist() == crystal.numbers.tolist()
        assert torch.equal(graph.positions, torch.tensor(crystal.positions))
        assert torch.equal(graph.cell, torch.tensor(crystal.cell.array)[None])
        assert graph.periodic.tolist() == [crystal.pbc.tolist()]
        assert graph.crystal.tolist() == [0] * len(crystal)
        assert graph.multiplicity.tolist() == [1.0] * len(crystal)
        assert (graph.vector.norm(dim=1) < RULE.cutoff).all()


def test_a_lone_atom_has_an_empty_graph():
    graph = build(Atoms("He"), RULE)
    assert (graph.atoms, graph.edges, graph.crystals) == (1, 0, 1)
    assert graph.vector.shape == graph.image.shape == (0, 3)
    assert graph.vector.dtype == torch.float64
    assert graph.image.dtype == graph.receiver.dtype == graph.sender.dtype == torch.int64


def test_the_graph_does_not_follow_later_motion(rocksalt):
    graph = build(rocksalt, RULE)
    rocksalt.positions += 1.0
    assert graph.positions.abs().max() < 3


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan, np.inf])
def test_a_radius_out_of_range(cutoff):
    with pytest.raises(ValueError, match="a positive number of Å is needed"):
        Radius(cutoff)


@pytest.mark.parametrize("name", ["wurtzite", "left_handed", "slab", "water"])
def test_a_pair_list_gives_what_a_search_gives_along_a_walk(name, rng, request):
    crystal = request.getfixturevalue(name)
    pairs = VerletList(RULE, skin=0.4)
    for _ in range(40):
        crystal.positions += rng.normal(scale=0.03, size=crystal.positions.shape)
        strain = np.eye(3) + rng.normal(scale=0.002, size=(3, 3))
        crystal.set_cell(crystal.cell.array @ strain, scale_atoms=bool(crystal.pbc.any()))
        assert_same(pairs.update(crystal), build(crystal, RULE))
    assert pairs.builds + pairs.reuses == 40
    assert 1 < pairs.builds < 20


def test_a_pair_from_outside_the_list_is_not_missed():
    pair = Atoms("H2", [[0, 0, 0], [0, 0, RULE.cutoff + 0.5 + 1e-9]])
    pairs = VerletList(RULE, skin=0.5)
    assert pairs.update(pair).edges == 0
    pair.positions += [[0, 0, 0.2499], [0, 0, -0.2499]]
    assert pairs.update(pair).edges == 0
    assert pairs.reuses == 1
    pair.positions += [[0, 0, 0.0002], [0, 0, -0.0002]]
    assert pairs.update(pair).edges == 2
    assert pairs.builds == 2


def test_a_strain_alone_uses_up_the_skin():
    crystal = bulk("Cu", "fcc", a=3.61)
    pairs = VerletList(RULE, skin=0.4)
    pairs.update(crystal)
    for scale, builds in [(0.95, 1), (0.92, 1), (0.90, 2), (1.1, 2)]:
        strained = crystal.copy()
        strained.set_cell(crystal.cell * scale, scale_atoms=True)
        assert_same(pairs.update(strained), build(strained, RULE))
        assert pairs.builds == builds


def test_a_shift_of_all_atoms_costs_nothing(slab):
    pairs = VerletList(RULE)
    for _ in range(3):
        slab.positions += [1.0, -2.0, 3.0]
        assert_same(pairs.update(slab), build(slab, RULE))
    assert (pairs.builds, pairs.reuses) == (1, 2)


def test_an_atom_wrapped_into_the_cell_makes_a_new_search(wurtzite):
    pairs = VerletList(RULE)
    pairs.update(wurtzite)
    wurtzite.positions[2] += wurtzite.cell.array[1]
    assert_same(pairs.update(wurtzite), build(wurtzite, RULE))
    assert pairs.builds == 2


def test_another_crystal_makes_a_new_search(rocksalt, perovskite):
    pairs = VerletList(RULE)
    opened = rocksalt.copy()
    opened.pbc = [True, True, False]
    for crystal in (rocksalt, perovskite, rocksalt, opened):
        assert_same(pairs.update(crystal), build(crystal, RULE))
    assert (pairs.builds, pairs.reuses) == (4, 0)


def test_atoms_that_change_their_kind_need_no_search(rocksalt):
    pairs = VerletList(RULE)
    swapped = rocksalt.copy()
    swapped.numbers = rocksalt.numbers[::-1]
    for crystal in (rocksalt, swapped):
        assert_same(pairs.update(crystal), build(crystal, RULE))
    assert (pairs.builds, pairs.reuses) == (1, 1)


def test_atoms_that_collide_between_searches_are_refused():
    pair = Atoms("H2", [[0, 0, 0], [0, 0, 0.4]])
    pairs = VerletList(RULE, skin=1.0)
    pairs.update(pair)
    pair.positions[1, 2] = 0.001
    with pytest.raises(BadStructure, match="Atoms 0 and 1"):
        pairs.update(pair)
    assert pairs.builds == 1


def test_a_skin_out_of_range():
    with pytest.raises(ValueError, match="zero or a positive number"):
        VerletList(RULE, skin=-0.1)
