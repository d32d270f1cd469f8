"""Edges of crystals in motion are those a search would find."""

import numpy as np
import pytest
import torch
from ase.build import bulk

from ase_crystalformer.neighbours import Radius, VerletList
from ase_crystalformer.neighbours.moving import Mover, MovingBatch
from ase_crystalformer.structures import as_crystal


@pytest.fixture
def pressed():
    """Crystals whose nuclei repel each other."""
    crystals = [
        bulk("NaCl", "rocksalt", a=5.0),
        bulk("Cu", "fcc", a=3.0),
        bulk("Si", "diamond", a=4.0),
    ]
    for atoms in crystals:
        atoms.rattle(0.05, seed=1)
    return crystals


def test_edges_in_motion_are_those_of_a_search(pressed):
    cutoff = 4.0
    batch = MovingBatch(
        [Mover.of(as_crystal(atoms), cutoff) for atoms in pressed], cutoff, torch.device("cpu")
    )
    lists = [VerletList(Radius(cutoff), skin=0.0) for _ in pressed]
    for _ in range(3):
        assert not batch.stale()
        graph = batch.graph(torch.float64)
        edges = 0
        for number, (atoms, pairs) in enumerate(zip(pressed, lists, strict=True)):
            shown = graph.vector[graph.crystal[graph.receiver] == number]
            expected = pairs.update(atoms)
            torch.testing.assert_close(shown, expected.vector)
            edges += expected.edges
        assert graph.edges == edges > 0
        for number, atoms in enumerate(pressed):
            atoms.rattle(0.02, seed=number)
            atoms.set_cell(atoms.cell.array @ np.diag([1.01, 1.0, 1.005]), scale_atoms=True)
        batch.positions = torch.tensor(np.concatenate([a.positions for a in pressed]))
        batch.cell = torch.tensor(np.stack([a.cell.array for a in pressed]))


@pytest.mark.parametrize(
    ("stretch", "shake", "expected"),
    [
        (1.0, 0.0, []),
        (0.99, 0.0, []),
        (0.8, 0.0, [0, 1, 2]),
        (1.0, 0.5, [0, 2]),
        (5.0, 0, [0, 1, 2]),
    ],
)
def test_stale_pairs_are_noticed(stretch, shake, expected, pressed):
    movers = [Mover.of(as_crystal(atoms), 4.0) for atoms in pressed]
    batch = MovingBatch(movers, 4.0, torch.device("cpu"))
    batch.positions = batch.positions * stretch
    batch.cell = batch.cell * stretch
    batch.positions[[0, 3]] += shake
    assert batch.stale() == expected
