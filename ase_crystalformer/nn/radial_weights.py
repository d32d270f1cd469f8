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


class RadialNetwork(nn.Module):
    """Describe a distance by features that radial weights are linear in; the last feature is one.

    Args:
        basis: Functions the distance is expanded in.
        width: Features, but the last.
    """

    def __init__(self, basis: int, width: int) -> None:
        super().__init__()
        first, second = nn.Linear(basis, width), nn.Linear(width, width)
        nn.init.zeros_(first.bias)
        nn.init.zeros_(second.bias)
        layers = (first, nn.LayerNorm(width), nn.SiLU(), second, nn.LayerNorm(width), nn.SiLU())
        self.layers = nn.Sequential(*layers)

    def forward(self, basis: Float[Tensor, "edges basis"]) -> Float[Tensor, "edges features"]:
        return nn.functional.pad(self.layers(basis), (0, 1), value=1.0)


class Neighbourhood(nn.Module):
    r"""Describe where neighbours are, whichever they are: Equiformer's edge-degree embedding.

    .. math::
        y_{ilm} = \sum_j f_{ij} W_l (w_l(r_{ij}) \odot s)\, Y_{lm}(\hat r_{ij})

    for a learned constant s. All weights but those within the radial network act on atoms, after
    the sum.

    Args:
        features: Of the radial network.
        channels: Of each degree that leaves; s has as many as the first.

    Source: Liao & Smidt, ICLR 2023, arXiv:2206.11990.
    """

    def __init__(self, features: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        size, count = channels[0], len(channels)
        self.radial = nn.Parameter(radial_start(features, count, size))
        self.constant = nn.Parameter(torch.randn(size))
        self.out = DirectedLinear((size,) * count, channels)

    def forward(
        self,
        features: Float[Tensor, "edges features"],
        angular: Float[Tensor, "edges components"],
        receiver: Int[Tensor, " edges"],
        atoms: int,
    ) -> Directed:
        """Sum over the neighbours of every atom.

        Args:
            features: Of distances, by the radial network.
            angular: Harmonics from degree 0, times the weight f of the edge.
            receiver: Ascending.
            atoms: How many there are.
        """
        blocks = EdgeBlocks.build(receiver, atoms)
        angular, features = blocks.spread(angular, 0.0), blocks.spread(features, 0.0)
        total = blocks.sum_outer(angular, features, atoms)
        matrices = (self.radial * self.constant).unbind(1)
        parts = total.split([2 * degree + 1 for degree in range(len(matrices))], dim=1)
        return self.out(tuple(x @ matrix for x, matrix in zip(parts, matrices, strict=True)))


def radial_start(features: int, *shape: int) -> Float[Tensor, "features *shape"]:
    """Draw weights of a linear layer, its shift included, as torch draws them."""
    bound = (features - 1) ** -0.5
    return torch.empty(features, *shape).uniform_(-bound, bound)
