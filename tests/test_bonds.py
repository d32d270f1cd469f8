"""An edge and its reverse are one bond."""

import torch

from ase_crystalformer.graph import collate
from ase_crystalformer.neighbours import Radius, build
from ase_crystalformer.nn.bonds import bonds, mean_of_bonds


def test_an_edge_and_its_reverse_share_a_bond_and_no_others_do(crystals):
    graph = collate([build(crystal, Radius(6.0)) for crystal in crystals])
    bond = bonds(graph.receiver, graph.sender, graph.image)
    numbers = {}
    for number, *ends, image in zip(
        bond.tolist(),
        graph.receiver.tolist(),
        graph.sender.tolist(),
        graph.image.tolist(),
        strict=True,
    ):
        there = (*ends, *image)
        back = (*reversed(ends), *(-step for step in image))
        numbers.setdefault(number, set()).add(frozenset([there, back]))
    assert all(len(found) == 1 for found in numbers.values())
    assert 2 * len(numbers) == graph.edges
    assert sorted(numbers) == list(range(len(numbers)))


def test_an_edge_without_a_reverse_is_a_bond_of_its_own(fcc):
    graph = build(fcc, Radius(4.0))
    bond = bonds(graph.receiver[1:], graph.sender[1:], graph.image[1:])
    assert torch.bincount(bond).tolist().count(1) == 1


def test_no_edges_make_no_bonds():
    nothing = torch.zeros(0, dtype=torch.int64)
    bond = bonds(nothing, nothing, nothing[:, None].expand(-1, 3))
    assert bond.shape == (0,)
    assert mean_of_bonds(torch.zeros(0), bond).shape == (0,)


def test_a_mean_of_bonds_is_that_of_both_edges():
    values = torch.tensor([1.0, 5.0, 3.0])
    assert mean_of_bonds(values, torch.tensor([0, 1, 0])).tolist() == [2.0, 5.0]
