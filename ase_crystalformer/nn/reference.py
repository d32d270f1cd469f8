"""Directions to compare edges with, read off the surroundings of each atom."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ase_crystalformer.nn.harmonics import COMPONENTS, harmonics
from ase_crystalformer.nn.moments import MomentInvariants

DEGREE = 3


class LocalReference(nn.Module):
    r"""Three references per atom in place of three lattice vectors: moments of degree one to three.

    .. math::
        M_{alm}(i) = \sum_e w_e \, (R e)_a (S x_j)_a \, Y_{lm}(\hat r_e), \quad
        u_{al}(e) = \tfrac{1}{\sqrt{2l + 1}} \sum_m M_{alm}(i) Y_{lm}(\hat r_e)

    The contraction :math:`u` is to a moment what the cosine is to a lattice vector: a sum of
    Legendre polynomials of the angles to all neighbours, at a cost per edge, not per pair of edges.
    Nothing is divided by a length, so it stays smooth where symmetry makes moments vanish. It does
    not change under rotation and reflection, and depends on no cell. The construction is our own.

    Args:
        width: Channels of atoms and edges.
        channels: Number of moments of each degree.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.radial = nn.Linear(width, channels)
        self.colour = nn.Linear(width, channels)
        self.invariants = MomentInvariants(channels, channels, DEGREE)
        self.sizes = nn.ModuleList(nn.Linear(channels, width) for _ in range(DEGREE))

    def forward(
        self,
        x: Float[Tensor, "atoms width"],
        edge: Float[Tensor, "edges width"],
        unit: Float[Tensor, "edges 3"],
        weight: Float[Tensor, " edges"],
        ends: tuple[Int[Tensor, " edges"], Int[Tensor, " edges"]],
    ) -> tuple[Float[Tensor, "atoms 3 width"], Float[Tensor, "edges 3 channels"]]:
        """Return features of each atom's references, and the angles of its edges to them.

        Args:
            x: Features of the atoms.
            edge: Features of the edges.
            unit: Directions of the edges.
            weight: Of each edge; zero where it ends.
            ends: Receivers and senders.
        """
        receiver, sender = ends
        angular = harmonics(unit, DEGREE)
        colour = self.colour(x).index_select(0, sender)
        part = self.radial(edge) * colour * weight[:, None]
        moments = x.new_zeros(x.shape[0], part.shape[1], angular.shape[1])
        moments = moments.index_add(0, receiver, part[:, :, None] * angular[:, None])
        sizes = self.invariants(moments).chunk(DEGREE, dim=1)
        reference = [
            functional.softplus(f(size)) for f, size in zip(self.sizes, sizes, strict=True)
        ]
        return torch.stack(reference, dim=1), _angles(moments.index_select(0, receiver), angular)


def _angles(
    moments: Float[Tensor, "edges channels components"], angular: Float[Tensor, "edges components"]
) -> Float[Tensor, "edges 3 channels"]:
    """Contract every degree of the moments with the same degree of the edge."""
    angles = []
    for degree in range(1, DEGREE + 1):
        part = slice(COMPONENTS[degree - 1], COMPONENTS[degree])
        along = torch.einsum("ecm,em->ec", moments[..., part], angular[:, part])
        angles.append(along * (2 * degree + 1) ** -0.5)
    return torch.stack(angles, dim=1)
