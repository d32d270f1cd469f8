"""A batch is its crystals side by side, and moving a graph is building it elsewhere."""

from dataclasses import fields

import numpy as np
import torch

from ase_crystalformer.graph import CrystalGraph, collate, edge_vectors
from ase_crystalformer.neighbours import Radius, build

RULE = Radius(4.0)


def test_a_batch_holds_its_crystals(crystals):
    graphs = [build(crystal, RULE) for crystal in crystals]
    batch = collate(graphs)
    assert batch.crystals == len(crystals)
    assert batch.atoms == sum(len(crystal) for crystal in crystals)
    assert batch.edges == sum(graph.edges for graph in graphs)
    for number, graph in enumerate(graphs):
        mine = batch.crystal == number
        edges = mine[batch.receiver]
        first = int(torch.nonzero(mine)[0])
        assert torch.equal(batch.species[mine], graph.species)
        assert torch.equal(batch.receiver[edges] - first, graph.receiver)
        assert torch.equal(batch.sender[edges] - first, graph.sender)
        assert torch.equal(batch.vector[edges], graph.vector)
        assert torch.equal(batch.cell[number], graph.cell[0])


def test_no_edge_joins_two_crystals_and_receivers_ascend(crystals):
    batch = collate([build(crystal, RULE) for crystal in crystals])
    assert torch.equal(batch.crystal[batch.receiver], batch.crystal[batch.sender])
    assert (batch.receiver.diff() >= 0).all()


def test_batches_of_batches_are_batches(crystals):
    graphs = [build(crystal, RULE) for crystal in crystals]
    nested = collate([collate(graphs[:2]), collate(graphs[2:])])
    flat = collate(graphs)
    for field in fields(CrystalGraph):
        assert torch.equal(getattr(nested, field.name), getattr(flat, field.name))


def test_edge_vectors_follow_from_positions_and_cell(crystals):
    batch = collate([build(crystal, RULE) for crystal in crystals])
    redrawn = edge_vectors(batch.positions, batch.cell, batch)
    torch.testing.assert_close(redrawn, batch.vector, rtol=0, atol=1e-12)


def test_a_moved_graph_is_the_graph_of_the_moved_crystal(wurtzite, rng):
    graph = build(wurtzite, RULE)
    wurtzite.positions += rng.normal(scale=1e-4, size=wurtzite.positions.shape)
    wurtzite.set_cell(wurtzite.cell * 1.0001)
    moved = graph.moved(torch.tensor(wurtzite.positions), torch.tensor(wurtzite.cell.array)[None])
    expected = build(wurtzite, RULE)
    assert torch.equal(moved.image, expected.image)
    torch.testing.assert_close(moved.vector, expected.vector, rtol=0, atol=1e-12)


def test_gradients_flow_through_the_edge_vectors(rocksalt):
    graph = build(rocksalt, RULE)
    leaf = graph.vector.clone().requires_grad_()
    graph.with_vector(leaf).vector.square().sum().backward()
    torch.testing.assert_close(leaf.grad, 2 * graph.vector)


def test_casting_spares_the_indices(rocksalt):
    single = build(rocksalt, RULE).to(dtype=torch.float32)
    assert single.vector.dtype == single.cell.dtype == single.multiplicity.dtype == torch.float32
    assert single.receiver.dtype == single.image.dtype == single.species.dtype == torch.int64
    assert single.periodic.dtype == torch.bool


def test_the_volume_has_no_sign_and_a_slab_has_none(left_handed, slab):
    graph = collate([build(left_handed, RULE), build(slab, RULE)])
    np.testing.assert_allclose(graph.volume, [left_handed.get_volume(), 0.0])
