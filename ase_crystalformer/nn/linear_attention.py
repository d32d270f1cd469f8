r"""Attention by hashing: whoever shares bits attends to each other, at a cost linear in atoms.

Queries and keys are one and the same, of length one, and become b bits of -1 and 1 each:

.. math:: h(x) = \mathrm{sign}(A (\kappa(x) - \mu)), \quad \kappa_p(x) = e^{-|x - a_p|^2 / 2}

The similarity of two atoms is :math:`h_i h_j + b + 1 > 0`, and sums over all atoms come first:

.. math::
    y_i = \frac{h_i \sum_j h_j \otimes v_j + (b + 1) \sum_j v_j}
               {h_i \sum_j h_j + (b + 1) N}

This is the mean of values under that similarity. The released code of the publication has the same
denominator, but :math:`(b + 1) v_i` in place of the sum in the numerator: its weights do not add up
to one.

A sign has no slope. Learning pretends that it is the clipped identity (straight through), so that
anchors, projection and queries train with everything else. ``HashAttention.fit`` draws them anew
from features, as the publication does at intervals, and as training from a recipe does not: bits
are to tell the most similar atoms from the least. It finds them one after the other by
eigenvectors, where the publication descends gradients.

Source: Liu et al., NeurIPS 2022, arXiv:2209.09004; kernel-based supervised hashing of Liu et al.,
CVPR 2012.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ase_crystalformer.nn.slots import CrystalSlots

ALIKE = 1e-5
"""Difference of queries, whose length is one, that may be rounding."""


def bits_of(score: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Sign of a score, never zero, with the slope of the score between -1 and 1."""
    slope = functional.hardtanh(score)
    return slope + (torch.where(score >= 0, 1.0, -1.0).to(score) - slope).detach()


class HashAttention(nn.Module):
    """Linear attention over all atoms of each crystal by hashed queries.

    Args:
        width: Channels of an atom.
        heads: Must divide ``width``.
        bits: Of a hash, b.
        anchors: Points a that features are compared with.
    """

    mean: Tensor

    def __init__(self, width: int, heads: int, bits: int, anchors: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide width; {heads} do not divide {width}.")
        self.heads, self.bits = heads, bits
        self.query = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        points = functional.normalize(torch.randn(heads, anchors, width // heads), dim=-1)
        self.anchor = nn.Parameter(points)
        self.projection = nn.Parameter(torch.randn(heads, bits, anchors))
        self.register_buffer("mean", self._compare(points.transpose(0, 1)).mean(0).detach())

    def forward(
        self,
        x: Float[Tensor, "atoms width"],
        multiplicity: Float[Tensor, " atoms"],
        slots: CrystalSlots,
    ) -> Float[Tensor, "atoms width"]:
        bits = slots.spread(self.hash(x))
        value = self.value(x).unflatten(1, (self.heads, -1))
        value = torch.cat([value, torch.ones_like(value[..., :1])], dim=-1)
        value = slots.spread(value * multiplicity[:, None, None])
        state = torch.einsum("cshb,cshd->chbd", bits, value)
        seen = torch.einsum("cshb,chbd->cshd", bits, state)
        seen = slots.collect(seen + (self.bits + 1) * value.sum(1, keepdim=True))
        return self.out((seen[..., :-1] / seen[..., -1:]).flatten(1))

    def hash(self, x: Float[Tensor, "atoms width"]) -> Float[Tensor, "atoms heads bits"]:
        """Bits of every atom, -1 or 1."""
        centred = self._compare(self._queries(x)) - self.mean
        return bits_of(torch.einsum("ahp,hbp->ahb", centred, self.projection))

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "atoms width"], nearest: int = 10, most: int = 512) -> None:
        """Choose anchors among atoms, and bits that tell the similar from the dissimilar.

        Args:
            x: Features, of many atoms that are as different as those to come.
            nearest: How many of the most similar atoms to each shall share its bits, and how many
                of the least similar shall not.
            most: Learn from this many atoms at most, evenly chosen.

        Raises:
            ValueError: All atoms are the same.
        """
        query = _evenly(self._queries(x), most)
        if (query - query[0]).abs().amax((0, 2)).min() < ALIKE:
            raise ValueError(
                f"All {len(x)} atoms have the same features; there is nothing for bits to tell "
                "apart. Give atoms of several elements or surroundings."
            )
        self.anchor.copy_(_evenly(query, self.anchor.shape[1]).transpose(0, 1))
        kernel = self._compare(query)
        self.mean.copy_(kernel.mean(0))
        for head, centred in enumerate((kernel - self.mean).unbind(1)):
            aim = _labels(query[:, head] @ query[:, head].T, nearest)
            self.projection[head] = _greedy_bits(centred, aim, self.bits)

    def _queries(self, x: Float[Tensor, "atoms width"]) -> Float[Tensor, "atoms heads depth"]:
        return functional.normalize(self.query(x).unflatten(1, (self.heads, -1)), dim=-1)

    def _compare(
        self, query: Float[Tensor, "atoms heads depth"]
    ) -> Float[Tensor, "atoms heads anchors"]:
        """Gaussian of the distance to every anchor."""
        square = query.square().sum(-1, keepdim=True) + self.anchor.square().sum(-1)
        return torch.exp(torch.einsum("ahd,hpd->ahp", query, self.anchor) - square / 2)


def _evenly(rows: Float[Tensor, "rows *rest"], number: int) -> Float[Tensor, "chosen *rest"]:
    """Choose rows at equal intervals."""
    number = max(number, 1)
    return rows[torch.linspace(0, len(rows) - 1, number, device=rows.device).long()]


def _labels(similarity: Float[Tensor, "n n"], nearest: int) -> Float[Tensor, "n n"]:
    """Label the most similar pairs 1, the least similar -1, and others 0."""
    number = min(nearest, len(similarity) // 2)
    label = torch.zeros_like(similarity)
    label.scatter_(1, similarity.topk(number, dim=1, largest=False).indices, -1.0)
    label.scatter_(1, similarity.topk(number, dim=1).indices, 1.0)
    return (label + label.T) / 2


def _greedy_bits(
    kernel: Float[Tensor, "n anchors"], label: Float[Tensor, "n n"], bits: int
) -> Float[Tensor, "bits anchors"]:
    r"""Find projections one by one, each for what the bits before it leave of b times the labels.

    The relaxed problem, the largest :math:`a^T K^T R K a` where :math:`|K a| = 1`, is an eigenvalue
    problem in the space that K spans. Pairs without label count nothing.
    """
    left, scale, right = torch.linalg.svd(kernel, full_matrices=False)
    kept = scale > 1e-3 * scale[0]
    left, back = left[:, kept], right[kept].T / scale[kept]
    residual, labelled, found = bits * label, (label != 0).to(label), []
    for _ in range(bits):
        projected = left.T @ residual @ left
        direction = back @ torch.linalg.eigh(projected).eigenvectors[:, -1]
        score = kernel @ direction
        found.append(direction / score.square().mean().sqrt())
        bit = torch.where(score >= 0, 1.0, -1.0).to(score)
        residual = residual - torch.outer(bit, bit) * labelled
    return torch.stack(found)
