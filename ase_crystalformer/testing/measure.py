"""How much an encoder's answer changes, in units of how much it should when atoms really move.

Features may be large and say little, or small and say much; so every difference is divided by the
*response*: the change under a strain of one per cent.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from ase_crystalformer.encoders.base import AtomFeatures, Encoder
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.heads import mean_over_atoms, with_leaves
from ase_crystalformer.neighbours import build
from ase_crystalformer.structures import Crystal
from ase_crystalformer.testing.crystals import strained


def draw(encoder: Encoder, crystal: Crystal) -> CrystalGraph:
    """Draw the graph the encoder asks for."""
    return build(crystal, encoder.rule)


def moments(features: AtomFeatures, graph: CrystalGraph) -> Float[Tensor, "crystals moments"]:
    """Average features and their squares over atoms: the same for every cell and order of atoms."""
    values = features.invariant
    return mean_over_atoms(torch.cat([values, values * values], dim=1), graph)


@torch.no_grad()
def summary(encoder: Encoder, crystal: Crystal) -> Float[Tensor, "1 moments"]:
    """Say in few numbers what the encoder makes of a crystal."""
    graph = draw(encoder, crystal)
    return moments(encoder(graph), graph)


def response(encoder: Encoder, crystal: Crystal) -> Tensor:
    """Change of the summary under a strain of one per cent."""
    return summary(encoder, crystal) - summary(encoder, strained(crystal))


def change(encoder: Encoder, before: Crystal, after: Crystal) -> float:
    """Largest difference between two crystals, relative to the response."""
    start = summary(encoder, before)
    return relative(start - summary(encoder, after), start - summary(encoder, strained(before)))


def relative(difference: Tensor, to: Tensor) -> float:
    """Largest difference in units of the largest of what it is compared with.

    Raises:
        ValueError: That is nothing; every law would hold for want of an answer.
    """
    unit = largest([to])
    if unit == 0:
        raise ValueError(
            "The encoder answers nothing: its features or their derivatives are the same whatever "
            "the atoms do, so no law can be tested. Check that its weights are not all zero."
        )
    return largest([difference]) / unit


def largest(values: Iterable[Tensor | float]) -> float:
    """Largest magnitude; NaN if there is any, zero if there is nothing."""
    flat = [torch.as_tensor(value, dtype=torch.float64).abs().flatten() for value in values]
    return torch.cat([*flat, torch.zeros(1, dtype=torch.float64)]).max().item()


def slopes(
    encoder: Encoder, graph: CrystalGraph, *, create_graph: bool = False
) -> Float[Tensor, "rows 3"]:
    """Differentiate a fixed mixture of the features per atom with respect to ``geometry``."""
    graph = with_leaves(graph, encoder)
    pooled = mean_over_atoms(encoder(graph).invariant, graph)
    generator = torch.Generator().manual_seed(0)
    mixture = (pooled * torch.randn(pooled.shape[1], generator=generator)).sum()
    leaves = [leaf for leaf in (graph.vector, graph.positions, graph.cell) if leaf.requires_grad]
    if not mixture.requires_grad:
        return torch.zeros_like(geometry(encoder, graph))
    found = torch.autograd.grad(mixture, leaves, create_graph=create_graph, materialize_grads=True)
    return torch.cat([slope.reshape(-1, 3) for slope in found])


def geometry(encoder: Encoder, graph: CrystalGraph) -> Float[Tensor, "rows 3"]:
    """Stack what the encoder reads the geometry off: edge vectors, perhaps positions and cell."""
    if not encoder.reads_positions:
        return graph.vector.detach()
    return torch.cat([graph.vector, graph.positions, graph.cell.flatten(0, 1)]).detach()
