"""Laws of mechanics: forces and stress are derivatives of the energy."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ase_crystalformer.encoders.base import Encoder
from ase_crystalformer.graph import CrystalGraph, collate
from ase_crystalformer.heads import EnergyHead, forces_and_stress, sum_over_atoms
from ase_crystalformer.structures import HEAVIEST, Crystal
from ase_crystalformer.testing import crystals
from ase_crystalformer.testing.measure import draw, largest, relative
from ase_crystalformer.testing.weights import randomised

STEP = 1e-3
"""Å, or strain, of finite differences."""

Deformation = Callable[[int, float], Crystal]
"""A crystal after the move of a given number, by a given amount."""


def forces(encoder: Encoder) -> float:
    """Compare forces with differences of the energy, relative to the largest of each crystal."""
    tested = crystals.general(encoder.rule)
    del tested["cell smaller than any cutoff"]  # its one atom feels no force
    return largest(_force_error(encoder, crystal) for crystal in tested.values())


def stress(encoder: Encoder) -> float:
    """Compare the stress likewise, of every crystal with a volume."""
    tested = crystals.general(encoder.rule).values()
    return largest(_stress_error(encoder, each) for each in tested if each.periodic.all())


def _force_error(encoder: Encoder, crystal: Crystal) -> float:
    moves = np.eye(crystal.positions.size).reshape(-1, *crystal.positions.shape)

    def moved(number: int, by: float) -> Crystal:
        return replace(crystal, positions=crystal.positions + by * moves[number])

    true = -_differences(encoder, moved, len(moves))
    given, _ = _derivatives(encoder, crystal)
    return relative(given.flatten() - true, true)


def _stress_error(encoder: Encoder, crystal: Crystal) -> float:
    strains = np.eye(9).reshape(9, 3, 3)

    def deformed(number: int, by: float) -> Crystal:
        symmetric = (strains[number] + strains[number].T) / 2
        return crystals.transformed(crystal, np.eye(3) + by * symmetric)

    true = _differences(encoder, deformed, len(strains)) / abs(np.linalg.det(crystal.cell))
    _, given = _derivatives(encoder, crystal)
    return relative(given.flatten() - true, true)


def _energies(encoder: Encoder, graph: CrystalGraph) -> Float[Tensor, " crystals"]:
    """Energy of every crystal by an arbitrary, but always the same head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = randomised(EnergyHead(encoder.width, elements=HEAVIEST)).double()
    return sum_over_atoms(head.interaction(encoder(graph), graph), graph)


def _derivatives(
    encoder: Encoder, crystal: Crystal
) -> tuple[Float[Tensor, "atoms 3"], Float[Tensor, "1 3 3"]]:
    """Forces and stress as the package computes them."""
    graph = draw(encoder, crystal)
    graph = graph.with_vector(graph.vector.requires_grad_())
    return forces_and_stress(_energies(encoder, graph).sum(), graph)


@torch.no_grad()
def _differences(encoder: Encoder, moved: Deformation, count: int) -> Float[Tensor, " moves"]:
    """Differentiate the energy along ``count`` moves from five points; each graph is drawn anew."""
    points = STEP * np.array([-2, -1, 1, 2])
    graphs = [draw(encoder, moved(number, by)) for number in range(count) for by in points]
    energies = _energies(encoder, collate(graphs)).reshape(count, len(points))
    return energies @ energies.new_tensor([1.0, -8.0, 8.0, -1.0]) / (12 * STEP)
