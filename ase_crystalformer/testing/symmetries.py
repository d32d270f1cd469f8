"""Laws of symmetry: the same crystal, written otherwise, is the same crystal."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from ase_crystalformer import orbits
from ase_crystalformer.encoders.base import Encoder
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.structures import Crystal
from ase_crystalformer.testing import crystals
from ase_crystalformer.testing.measure import (
    change,
    draw,
    largest,
    moments,
    relative,
    response,
    summary,
)


def rotation(encoder: Encoder) -> float:
    """Rotate every crystal by an arbitrary angle."""
    turn = _rotation()
    return _over_all(encoder, lambda crystal: crystals.transformed(crystal, turn))


def reflection(encoder: Encoder) -> float:
    """Mirror every crystal, chiral ones too."""
    mirror = _rotation() @ np.diag([1.0, 1.0, -1.0])
    return _over_all(encoder, lambda crystal: crystals.transformed(crystal, mirror))


def translation(encoder: Encoder) -> float:
    """Move every crystal as a whole."""
    by = np.array([12.3, -4.56, 0.789])
    return _over_all(encoder, lambda crystal: replace(crystal, positions=crystal.positions + by))


def lattice_vector(encoder: Encoder) -> float:
    """Move one atom of every crystal by a lattice vector."""

    def moved(crystal: Crystal) -> Crystal:
        positions = crystal.positions.copy()
        positions[-1] += np.where(crystal.periodic, [2.0, -1.0, 3.0], 0.0) @ crystal.cell
        return replace(crystal, positions=positions)

    return _over_all(encoder, moved)


def permutation(encoder: Encoder) -> float:
    """Renumber the atoms of every crystal, and of every graph."""

    def reversed_order(crystal: Crystal) -> Crystal:
        order = np.arange(len(crystal.species))[::-1]
        return replace(crystal, species=crystal.species[order], positions=crystal.positions[order])

    graphs = (_renumbering(encoder, crystal) for crystal in crystals.general(encoder.rule).values())
    return largest([_over_all(encoder, reversed_order), *graphs])


def supercell(encoder: Encoder) -> float:
    """Repeat the cell of every crystal."""
    return _over_all(encoder, lambda crystal: crystals.repeated(crystal, (2, 1, 3)))


def choice_of_cell(encoder: Encoder) -> float:
    """Describe every crystal by other lattice vectors, right- and left-handed."""
    whole = [[[1, 1, 0], [0, 1, -1], [0, 2, -1]], [[0, 0, 1], [1, 0, 1], [2, -1, 0]]]
    layer = [[[1, 2, 0], [0, 1, 0], [0, 0, 1]], [[1, 1, 0], [1, 0, 0], [0, 0, 1]]]
    return largest(
        change(encoder, crystal, crystals.recelled(crystal, choice))
        for crystal in crystals.general(encoder.rule).values()
        for choice in (whole if crystal.periodic.all() else layer)
    )


def equivalent_atoms(encoder: Encoder) -> float:
    """Compute equivalent atoms once."""
    return largest(_reduction(encoder, crystal) for crystal in crystals.symmetric().values())


@torch.no_grad()
def _reduction(encoder: Encoder, crystal: Crystal) -> float:
    few = orbits.reduce(draw(encoder, crystal))
    difference = moments(encoder(few), few) - summary(encoder, crystal)
    return relative(difference, response(encoder, crystal))


def _over_all(encoder: Encoder, rewritten: Callable[[Crystal], Crystal]) -> float:
    """Largest change when crystals are rewritten."""
    tested = crystals.general(encoder.rule).values()
    return largest(change(encoder, crystal, rewritten(crystal)) for crystal in tested)


@torch.no_grad()
def _renumbering(encoder: Encoder, crystal: Crystal) -> float:
    """Largest change of any atom's own features when its graph is renumbered."""
    graph = draw(encoder, crystal)
    order = torch.arange(graph.atoms).flip(0)
    difference = encoder(graph).invariant[order] - encoder(_renumbered(graph, order)).invariant
    return relative(difference, response(encoder, crystal))


def _renumbered(graph: CrystalGraph, order: Int[Tensor, " atoms"]) -> CrystalGraph:
    rank = torch.argsort(order)
    receiver, sender = rank[graph.receiver], rank[graph.sender]
    edge = torch.argsort(receiver * graph.atoms + sender, stable=True)
    return replace(
        graph,
        species=graph.species[order],
        positions=graph.positions[order],
        receiver=receiver[edge],
        sender=sender[edge],
        image=graph.image[edge],
        vector=graph.vector[edge],
    )


def _rotation() -> Float[ndarray, "3 3"]:
    """Return a proper rotation about no special axis."""
    matrix, _ = np.linalg.qr(np.array([[0.3, -1.2, 0.8], [1.1, 0.4, -0.6], [-0.5, 0.9, 1.4]]))
    return matrix * np.linalg.det(matrix)
