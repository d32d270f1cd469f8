"""Functions of a distance: cutoff envelopes and bases."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

FARTHEST = 80.0
"""Exponent at which Gaussians are cut off, at 2e-35: smaller numbers slow float32 down fourfold."""


def envelope(distance: Float[Tensor, "*shape"], cutoff: float) -> Float[Tensor, "*shape"]:
    r"""Fade from one to zero at the cutoff, with two continuous derivatives.

    .. math:: f(x) = (1 - x)^3 (1 + 3x + 6x^2 + 10x^3 + 15x^4 + 21x^5), \quad x = \min(r / r_c, 1)

    Written as a product it is never negative, whatever the rounding.

    Source: Gasteiger et al., ICLR 2020, arXiv:2003.03123, Eq. 8 with p = 6, factored.
    """
    x = (distance / cutoff).clamp(max=1)
    rest = 1 - x
    return rest * rest * rest * (1 + x * (3 + x * (6 + x * (10 + x * (15 + x * 21)))))


def cosine_cutoff(distance: Float[Tensor, "*shape"], cutoff: float) -> Float[Tensor, "*shape"]:
    r"""Fade from one to zero as :math:`\tfrac12 (1 + \cos \pi r / r_c)`; its curvature jumps there.

    Source: Behler, J. Chem. Phys. 134, 074106 (2011), Eq. 2; what several publications use.
    """
    return 0.5 * (1 + torch.cos(math.pi / cutoff * distance.clamp(max=cutoff)))


class ExponentialBasis(nn.Module):
    r"""Describe a distance by Gaussians of its exponential, dense where atoms are close.

    .. math::
        b_k(r) = \exp(-\beta (e^{-5 r / r_c} - \mu_k)^2), \quad
        \mu_k \in [e^{-r_c}, 1], \quad \beta = (2 (1 - e^{-r_c}) / K)^{-2}

    with :math:`\mu_k` equally spaced and, in the smallest, :math:`r_c` in Å, as published: centres
    fit the distances only for a cutoff of 5 Å. ``matched`` has :math:`e^{-5}` in its place, the
    same at 5 Å and right elsewhere.

    Args:
        size: Number of functions :math:`K`.
        cutoff: :math:`r_c`, Å.
        matched: Let centres fit the cutoff.

    Source: Unke & Meuwly, J. Chem. Theory Comput. 15, 3678 (2019), as in Thölke & De Fabritiis,
    ICLR 2022, arXiv:2202.02541. The cutoff function is not part of it.
    """

    centre: Tensor

    def __init__(self, size: int, cutoff: float, matched: bool = True) -> None:
        super().__init__()
        self.rate = 5 / cutoff
        lowest = math.exp(-5.0 if matched else -cutoff)
        self.sharpness = (2 * (1 - lowest) / size) ** -2
        self.register_buffer("centre", torch.linspace(lowest, 1, size), persistent=False)

    def forward(self, distance: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape basis"]:
        offset = torch.exp(-self.rate * distance)[..., None] - self.centre.to(distance)
        return torch.exp(-(self.sharpness * offset * offset).clamp(max=FARTHEST))


class GaussianBasis(nn.Module):
    r"""Describe a distance by equally spaced Gaussians.

    .. math::
        b_k(r) = \exp(-\tfrac12 ((r - k\delta) / \delta)^2), \quad \delta = R / K,\; k = 1 \dots K

    Args:
        size: Number of Gaussians :math:`K`.
        radius: Centre of the last one :math:`R`, Å.

    Source: Taniai et al., ICLR 2024, arXiv:2403.11686, Appendix; also its value at r = 0, which the
    self term of the attention needs.
    """

    def __init__(self, size: int, radius: float) -> None:
        super().__init__()
        self.size = size
        self.spacing = radius / size

    def forward(self, distance: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape basis"]:
        k = torch.arange(1, self.size + 1, device=distance.device, dtype=distance.dtype)
        offset = distance[..., None] / self.spacing - k
        return torch.exp(-0.5 * offset * offset)

    def at_zero(self, like: Tensor) -> Float[Tensor, " basis"]:
        """Value at distance zero, on the device and in the precision of ``like``."""
        return self(like.new_zeros(()))


def norm(vector: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape"]:
    """Length of non-zero vectors, twice differentiable."""
    return (vector * vector).sum(-1).sqrt()
