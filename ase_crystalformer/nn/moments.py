"""Angular information from attention weights: invariants of neighbourhood moments."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ase_crystalformer.nn.harmonics import COMPONENTS


class MomentInvariants(nn.Module):
    r"""Turn weighted sums of spherical harmonics into rotation-invariant channels.

    .. math:: I_{cl} = \tfrac{1}{2l+1} \sum_m \bigl(\textstyle\sum_a L^l_{ca} A_{alm}\bigr)
                       \bigl(\sum_a R^l_{ca} A_{alm}\bigr)

    with moments :math:`A_{alm} = \sum_e p_{ae} Y_{lm}(\hat r_e)` of any weights :math:`p`. These
    are low-rank forms of the power spectrum (Drautz 2019, arXiv:2003.00491, two-body correlations);
    they are even under reflection, and cost per atom, not per pair of edges.

    Args:
        channels: Number of moments per degree, :math:`a`.
        size: Number of invariants per degree, :math:`c`.
        degree: Largest :math:`l`; 1, 2 or 3.

    Shapes:
        ``(atoms, channels, components) -> (atoms, size * degree)``
    """

    def __init__(self, channels: int, size: int, degree: int) -> None:
        super().__init__()
        self.degree = degree
        shape = (degree, channels, size)
        self.left = nn.Parameter(torch.randn(shape) / channels**0.5)
        self.right = nn.Parameter(torch.randn(shape) / channels**0.5)

    def forward(
        self, moments: Float[Tensor, "atoms channels components"]
    ) -> Float[Tensor, "atoms invariants"]:
        invariants = []
        for degree in range(1, self.degree + 1):
            part = moments[..., COMPONENTS[degree - 1] : COMPONENTS[degree]].transpose(1, 2)
            product = (part @ self.left[degree - 1]) * (part @ self.right[degree - 1])
            invariants.append(product.mean(1))
        return torch.cat(invariants, dim=-1)
