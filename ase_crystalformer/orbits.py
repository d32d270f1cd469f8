"""Compute equivalent atoms once: the exact saving that symmetry offers.

Atoms related by a space-group operation have the same invariant features, in every layer. A graph
that keeps one atom per orbit, with the orbit's size as its weight in every sum over atoms, gives
the same property at a fraction of the cost.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ase_crystalformer.graph import CrystalGraph


def orbits(graph: CrystalGraph, tolerance: float = 1e-3) -> Int[Tensor, " atoms"]:
    """Name, for every atom of one crystal, the first atom equivalent to it by symmetry.

    Args:
        graph: One crystal. If it is not periodic in three directions, every atom is its own orbit.
        tolerance: How far, in Å, an atom may be from where symmetry puts it.
    """
    import spglib

    own = torch.arange(graph.atoms)
    if not bool(graph.periodic.all()):
        return own
    cell = graph.cell[0].double().numpy()
    scaled = np.linalg.solve(cell.T, graph.positions.double().numpy().T).T
    found = spglib.get_symmetry_dataset((cell, scaled, graph.species.numpy()), symprec=tolerance)
    if found is None:
        return own
    return torch.from_numpy(found.crystallographic_orbits.astype(np.int64))


def reduce(graph: CrystalGraph, tolerance: float = 1e-3) -> CrystalGraph:
    """Keep one atom per orbit of one crystal; its edges now come from representatives.

    The result serves encoders whose claims include ``orbits``. Its ``vector`` is exact; ``image``
    and ``positions`` no longer reproduce it, so forces cannot be had from it.
    """
    orbit = orbits(graph, tolerance)
    kept, label, size = torch.unique(orbit, return_inverse=True, return_counts=True)
    keep = torch.isin(graph.receiver, kept)
    receiver, sender = label[graph.receiver[keep]], label[graph.sender[keep]]
    order = torch.argsort(receiver * kept.shape[0] + sender, stable=True)
    return replace(
        graph,
        species=graph.species[kept],
        positions=graph.positions[kept],
        crystal=graph.crystal[kept],
        multiplicity=size.to(graph.multiplicity.dtype),
        receiver=receiver[order],
        sender=sender[order],
        image=graph.image[keep][order],
        vector=graph.vector[keep][order],
    )
