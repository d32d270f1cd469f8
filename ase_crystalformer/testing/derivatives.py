"""Laws of mechanics: forces and stress are derivatives of the energy."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ase_crystalformer.encoders.base import Encoder
from ase_crystalformer.graph import CrystalGraph, collate
from ase_crystalformer.heads import EnergyHead, forces_and_stress, sum_over_atoms, with_leaves
from ase_crystalformer.structures import HEAVIEST, Crystal
from ase_crystalformer.testing import crystals
from ase_crystalformer.testing.measure import draw, largest, relative
from ase_crystalformer.testing.weights import randomised

STEP = 1e-3
"""Å, or strain, of finite differences."""

MOVES = 2
"""Arbitrary directions along which each crystal is moved; all atoms move in each."""

Deformation = Callable[[Float[ndarray, "rows 3"]], Crystal]
"""A crystal after a move of all its atoms, or after a strain."""


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
    def moved(by: Float[ndarray, "atoms 3"]) -> Crystal:
        return replace(crystal, positions=crystal.positions + by)

    moves = _directions(len(crystal.species))
    true = -_differences(encoder, moved, moves)
    given, _ = _derivatives(encoder, crystal)
    return relative(torch.einsum("mij,ij->m", torch.from_numpy(moves), given) - true, true)


def _stress_error(encoder: Encoder, crystal: Crystal) -> float:
    def deformed(by: Float[ndarray, "3 3"]) -> Crystal:
        return crystals.transformed(crystal, np.eye(3) + by)

    strains = _directions(3)
    strains = (strains + strains.swapaxes(1, 2)) / 2
    true = _differences(encoder, deformed, strains) / abs(np.linalg.det(crystal.cell))
    _, given = _derivatives(encoder, crystal)
    return relative(torch.einsum("mij,ij->m", torch.from_numpy(strains), given[0]) - true, true)


def _directions(rows: int) -> Float[ndarray, "moves rows 3"]:
    """Return arbitrary directions of unit length."""
    found = np.random.default_rng(0).normal(size=(MOVES, rows, 3))
    return found / np.linalg.norm(found, axis=(1, 2), keepdims=True)


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
    graph = with_leaves(draw(encoder, crystal), encoder)
    return forces_and_stress(_energies(encoder, graph).sum(), graph)


@torch.no_grad()
def _differences(
    encoder: Encoder, moved: Deformation, moves: Float[ndarray, "moves rows 3"]
) -> Float[Tensor, " moves"]:
    """Differentiate the energy along every move from five points; each graph is drawn anew."""
    points = STEP * np.array([-2, -1, 1, 2])
    graphs = [draw(encoder, moved(by * move)) for move in moves for by in points]
    energies = _energies(encoder, collate(graphs)).reshape(len(moves), len(points))
    return energies @ energies.new_tensor([1.0, -8.0, 8.0, -1.0]) / (12 * STEP)
