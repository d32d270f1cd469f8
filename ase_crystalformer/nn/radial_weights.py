"""Weights that are functions of a distance, and what is made of them alone."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ase_crystalformer.nn.blocks import EdgeBlocks
from ase_crystalformer.nn.equivariant import Directed, DirectedLinear
from ase_crystalformer.nn.radial import ExponentialBasis, cosine_cutoff


class LearnedGaussians(nn.Module):
    """Describe a distance by Gaussians whose centres and widths, of the cutoff, are learned."""

    def __init__(self, size: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.centre = nn.Parameter(torch.rand(size))
        self.spread = nn.Parameter(torch.empty(size).uniform_(1 / size, 1))
        self.scale = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, distance: Float[Tensor, " edges"]) -> Float[Tensor, "edges basis"]:
        x = self.scale * (distance / self.cutoff)[:, None] + self.shift
        spread = self.spread.abs() + 1e-5
        density = torch.exp(-0.5 * ((x - self.centre) / spread).square())
        return density / ((2 * torch.pi) ** 0.5 * spread)


class FadingExponentials(ExponentialBasis):
    """Gaussians of the distance's exponential that vanish at the cutoff."""

    def __init__(self, size: int, cutoff: float) -> None:
        super().__init__(size, cutoff, matched=False)
        self.cutoff = cutoff

    def forward(self, distance: Float[Tensor, " edges"]) -> Float[Tensor, "edges basis"]:
        return super().forward(distance) * cosine_cutoff(distance, self.cutoff)[:, None]


class RadialWeights(nn.Module):
    """Weights as functions of the distance, linear in what ``hidden`` makes of it.

    Args:
        basis: Functions the distance is expanded in.
        width: Hidden channels.
        outputs: Number of weights.
    """

    def __init__(self, basis: int, width: int, outputs: int) -> None:
        super().__init__()
        first, second = nn.Linear(basis, width), nn.Linear(width, width)
        layers = (first, nn.LayerNorm(width), nn.SiLU(), second, nn.LayerNorm(width), nn.SiLU())
        self.hidden = nn.Sequential(*layers)
        self.last = nn.Linear(width, outputs)
        nn.init.zeros_(first.bias)
        nn.init.zeros_(second.bias)

    def forward(self, basis: Float[Tensor, "edges basis"]) -> Float[Tensor, "edges weights"]:
        return self.last(self.hidden(basis))


class Neighbourhood(nn.Module):
    r"""Describe where neighbours are, whichever they are: Equiformer's edge-degree embedding.

    .. math::
        y_{ilm} = \sum_j f_{ij} W_l (w_l(r_{ij}) \odot s)\, Y_{lm}(\hat r_{ij})

    for a learned constant s. All weights but the hidden layers act on atoms, after the sum.

    Args:
        radial: Makes weights of distances, one for each degree and channel of the constant.
        channels: Of each degree that leaves.

    Source: Liao & Smidt, ICLR 2023, arXiv:2206.11990, Sec. 4.2.
    """

    def __init__(self, radial: RadialWeights, channels: tuple[int, ...]) -> None:
        super().__init__()
        size, count = channels[0], len(channels)
        self.radial = radial
        self.constant = nn.Parameter(torch.randn(size))
        self.out = DirectedLinear((size,) * count, channels)

    def forward(
        self,
        basis: Float[Tensor, "edges basis"],
        angular: Float[Tensor, "edges components"],
        receiver: Int[Tensor, " edges"],
        atoms: int,
    ) -> Directed:
        """Sum over the neighbours of every atom.

        Args:
            basis: Functions of distances.
            angular: Harmonics from degree 0, times the weight f of the edge.
            receiver: Ascending.
            atoms: How many there are.
        """
        hidden, last = self.radial.hidden(basis), self.radial.last
        hidden = torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=1)
        blocks = EdgeBlocks.build(receiver, atoms)
        total = blocks.sum_outer(blocks.spread(angular, 0.0), blocks.spread(hidden, 0.0), atoms)
        matrix = torch.cat([last.weight, last.bias[:, None]], dim=1)
        matrices = (matrix.unflatten(0, (-1, len(self.constant))) * self.constant[:, None]).mT
        parts = total.split([2 * degree + 1 for degree in range(len(matrices))], dim=1)
        return self.out(tuple(x @ matrix for x, matrix in zip(parts, matrices, strict=True)))
