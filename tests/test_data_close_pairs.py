"""Pairs closer than in any crystal: the repulsion of nuclei, whoever they are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ase_crystalformer.data.close_pairs import ALIKE, CLOSEST, FARTHEST, MIXED, close_pairs, push
from ase_crystalformer.data.potential import potential
from ase_crystalformer.repulsion import COVALENT_RADII, repulsion

SAMPLES = Path(__file__).parent / "samples"


def energy(first, second, distance):
    vector = torch.tensor([[distance, 0, 0], [-distance, 0, 0]], dtype=torch.float64)
    ends = torch.tensor([0, 1]), torch.tensor([1, 0])
    return float(repulsion(vector, torch.tensor([first, second]), *ends).sum())


@pytest.mark.parametrize(("first", "second"), [(8, 8), (6, 74), (92, 1)])
def test_the_push_is_the_slope_of_the_repulsion(first, second):
    distance = 0.4 * float(COVALENT_RADII[first] + COVALENT_RADII[second])
    step = 1e-5
    rise = energy(first, second, distance - step) - energy(first, second, distance + step)
    assert push(first, second, distance) == pytest.approx(rise / (2 * step), rel=1e-6)
    assert push(first, second, distance) > 0


def test_every_element_meets_itself_and_others():
    elements = [1, 8, 26, 79]
    rows = list(close_pairs(elements, seed=1))
    assert len(rows) == len({row.id for row in rows}) == len(elements) * (ALIKE + MIXED)
    for row in rows:
        apart = np.linalg.norm(row.positions[1] - row.positions[0])
        reach = float(COVALENT_RADII[torch.from_numpy(row.species)].sum())
        assert CLOSEST <= apart / reach <= FARTHEST
        np.testing.assert_allclose(row.labels["forces"].sum(0), 0)
        assert "energy" not in row.labels
        assert not row.periodic.any()
    assert [row.id for row in close_pairs(elements, seed=1)] == [row.id for row in rows]
    assert [row.id for row in close_pairs(elements, seed=2)] != [row.id for row in rows]


def test_the_mixture_has_pairs_of_the_elements_it_has_energies_of():
    rows = list(potential(SAMPLES))
    pairs = [row for row in rows if row.source == "close_pairs"]
    known = {
        number
        for row in rows
        if row.source == "mp_labelled" and row.split == "train"
        for number in row.species.tolist()
    }
    assert {number for row in pairs for number in row.species.tolist()} == known
    assert max(np.abs(row.labels["forces"]).max() for row in pairs) > 50
