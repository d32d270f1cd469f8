"""A number, such as a distance or a cosine, as a learned feature."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ase_crystalformer.nn.radial import FARTHEST


class Expansion(nn.Module):
    r"""Spread a number over wide Gaussians and map it to features.

    .. math:: \mathrm{softplus}(W b(x) + c), \quad b_k(x) = \exp(-(x - x_k)^2 / \Delta)

    with equally spaced :math:`x_k`, a distance :math:`\Delta` apart. The exponent has
    :math:`\Delta`, not its square, so neighbouring Gaussians overlap the more the more there are.

    Args:
        low: Centre of the first Gaussian.
        high: Centre of the last.
        basis: Number of Gaussians.
        width: Number of features.

    Source: Yan et al., ICLR 2024, arXiv:2403.11857, as in their released configuration.
    """

    def __init__(self, low: float, high: float, basis: int, width: int) -> None:
        super().__init__()
        self.low = low
        self.spacing = (high - low) / (basis - 1)
        self.linear = nn.Linear(basis, width)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        k = torch.arange(self.linear.in_features, device=x.device, dtype=x.dtype)
        scale = self.spacing**-0.5
        offset = x[..., None] * scale - (self.low + self.spacing * k) * scale
        return functional.softplus(self.linear(torch.exp(-offset.square().clamp(max=FARTHEST))))
