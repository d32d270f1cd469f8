r"""Products with the spherical harmonics of an edge, taken in a frame whose y axis is the edge.

There all harmonics but those of order m = 0 vanish. Coupling degrees :math:`l_1, l_2, l_3` then
joins each order m of the input with the same order of the output or, where :math:`l_1 + l_2 + l_3`
is odd, with order -m: few multiplications in place of a sum over all coefficients (Passaro &
Zitnick, ICML 2023, arXiv:2302.03655). It is exact. Which of the frames around an edge is taken does
not matter, so that the choice may jump and no direction is special.

Aligned features are directed features in such frames. Their components stand in the order
m = 0, 1, -1, 2, -2, ...
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ase_crystalformer.nn.coupling import coupling
from ase_crystalformer.nn.equivariant import Directed


def frames(unit: Float[Tensor, "edges 3"]) -> Float[Tensor, "edges 3 3"]:
    """Rotate every unit vector onto the y axis, smoothly around any direction.

    The x axis comes to lie near the Cartesian axis that is farthest from the vector.
    """
    farthest = unit.detach().abs().argmin(-1)
    helper = nn.functional.one_hot(farthest, 3).to(unit)
    first = helper - (helper * unit).sum(-1, keepdim=True) * unit
    first = first * first.square().sum(-1, keepdim=True).rsqrt()
    return torch.stack([first, unit, torch.linalg.cross(first, unit)], dim=1)


def alignments(unit: Float[Tensor, "edges 3"], degree: int) -> Directed:
    r"""Return, for l = 0 to ``degree``, the matrices that turn features into each edge's frame.

    .. math:: D^{l+1} = (2 l + 3)\, C^{1, l, l+1} (D^1 \otimes D^l)\, C^{1, l, l+1}
    """
    turn = frames(unit)
    turns = [unit.new_ones(unit.shape[0], 1, 1), turn]
    for high in range(2, degree + 1):
        size = 3 * (2 * high - 1)
        pairs = turn[:, :, None, :, None] * turns[-1][:, None, :, None, :]
        isometry = coupling(1, high - 1, high).flatten(0, 1).to(unit) * (2 * high + 1) ** 0.5
        turns.append(isometry.T @ (pairs.reshape(-1, size, size) @ isometry))
    return tuple(turn[:, _order(high)] for high, turn in enumerate(turns[: degree + 1]))


def _order(degree: int) -> list[int]:
    """Where orders 0, 1, -1, 2, -2, ... stand among the components of a degree."""
    return [degree, *(degree + sign * m for m in range(1, degree + 1) for sign in (1, -1))]


def align(x: Directed, turns: Directed) -> Directed:
    """Turn features of edges into their frames."""
    return (x[0], *(turn @ part for part, turn in zip(x[1:], turns[1:], strict=False)))


def restore(x: Directed, turns: Directed) -> Directed:
    """Turn aligned features back."""
    return (x[0], *(turn.mT @ part for part, turn in zip(x[1:], turns[1:], strict=False)))


def _crossed(x: Float[Tensor, "edges signs channels"]) -> Float[Tensor, "edges signs channels"]:
    """Put at order m what stands at -m, and at -m minus what stands at m; nothing for m = 0."""
    return x if x.shape[1] == 1 else torch.stack([x[:, 1], -x[:, 0]], dim=1)


@cache
def _strengths(first: int, second: int, third: int) -> tuple[float, ...]:
    """How much order m of the output has of order m of the input, or of -m, if the sum is odd."""
    sign = (-1) ** (first + second + third)
    joined = coupling(first, second, third)[:, second]
    scale = math.sqrt((2 * second + 1) * (2 * third + 1))
    orders = range(min(first, third) + 1)
    return tuple(scale * joined[first + sign * m, third + m].item() for m in orders)


class Paths:
    r"""All ways to couple features of degrees :math:`l_1` and harmonics :math:`l_2` to :math:`l_3`.

    Channels after the coupling stand in order of :math:`l_3`, then :math:`l_1`, even before odd
    :math:`l_1 + l_2 + l_3`, :math:`l_2` and input channel.

    Args:
        inputs: Channels of each degree :math:`l_1`.
        degree: Largest :math:`l_2`.
        highest: Largest :math:`l_3`.
        handed: Allow odd :math:`l_1 + l_2 + l_3`. Without them features of degree l are multiplied
            by :math:`(-1)^l` under inversion, as harmonics are; with them they have no parity.
    """

    def __init__(self, inputs: tuple[int, ...], degree: int, highest: int, handed: bool) -> None:
        self.inputs, self.degree, self.highest = inputs, degree, highest
        self.parities = 2 if handed else 1

    def seconds(self, first: int, third: int, odd: int) -> range:
        """Degrees of harmonics that couple two degrees, with an even or an odd sum of all three."""
        return range(abs(first - third) + odd, min(first + third, self.degree) + 1, 2)

    def kinds(self, third: int) -> list[tuple[int, int]]:
        """Input degrees and parities that lead to a degree, some of them by no path."""
        return [(first, odd) for first in range(len(self.inputs)) for odd in range(self.parities)]

    def sizes(self, third: int) -> list[int]:
        """Channels of a degree that come of each of its ``kinds``."""
        kinds = self.kinds(third)
        return [len(self.seconds(first, third, odd)) * self.inputs[first] for first, odd in kinds]

    @property
    def outputs(self) -> tuple[int, ...]:
        """Channels of each degree after the coupling."""
        return tuple(sum(self.sizes(third)) for third in range(self.highest + 1))


class Coupling(nn.Module):
    r"""Couple aligned features to the harmonics of their edges, then mix channels per degree.

    .. math::
        y_{l_3 m_3 d} = \tfrac{1}{\sqrt{F}} \sum_{l_1 l_2 c} W_{(l_1 l_2 c) d}\, w_{l_1 l_2 l_3 c}
            \sqrt{2 l_3 + 1} \sum_{m_1 m_2} C_{m_1 m_2 m_3} x_{l_1 m_1 c} Y_{l_2 m_2}
            + \delta_{l_3 0} b_d

    with F terms in the first sum, and a weight w for each path and channel.

    Args:
        paths: What couples to what.
        outputs: Channels of each degree that leave.
    """

    def __init__(self, paths: Paths, outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.paths = paths
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(size, width))
            for size, width in zip(paths.outputs, outputs, strict=True)
        )
        self.bias = nn.Parameter(torch.zeros(outputs[0]))

    def _matrices(self, weights: Sequence[Tensor]) -> Iterator[tuple[int, int, int, Tensor]]:
        """Yield l_3, l_1, parity, ``weights`` times strength: (orders, paths, inputs, outputs)."""
        paths = self.paths
        for third, weight in enumerate(weights):
            blocks = weight.split(paths.sizes(third))
            for (first, odd), block in zip(paths.kinds(third), blocks, strict=True):
                if seconds := paths.seconds(first, third, odd):
                    rows = [_strengths(first, second, third) for second in seconds]
                    strengths = weight.new_tensor(rows) * weight.shape[0] ** -0.5
                    matrices = block.unflatten(0, (len(seconds), -1))
                    yield third, first, odd, strengths.T[..., None, None] * matrices

    def _joined(self, rows: list[list[Tensor | None]], edges: int) -> Directed:
        """Put the orders of each degree together, and shift scalars."""
        parts = []
        for orders in rows:
            rows_of = ((order, min(m, 1) + 1) for m, order in enumerate(orders))
            known = [
                rows.unflatten(0, (edges, signs)) for rows, signs in rows_of if rows is not None
            ]
            parts.append(torch.cat(known, dim=1))
        return (parts[0] + self.bias, *parts[1:])


class RadialCoupling(Coupling):
    """Coupling with weights w of each edge, functions of its length."""

    def forward(self, x: Directed, radial: Float[Tensor, "edges weights"]) -> Directed:
        paths, edges = self.paths, radial.shape[0]
        sources = [_by_parity(part, paths.parities) for degree, part in enumerate(x)]
        shares = [
            dict(zip(paths.kinds(third), share.split(paths.sizes(third), dim=1), strict=True))
            for third, share in enumerate(radial.split(paths.outputs, dim=1))
        ]
        out: list[list[Tensor | None]] = [
            [None] * (third + 1) for third in range(paths.highest + 1)
        ]
        for third, first, odd, matrices in self._matrices(list(self.weights)):
            share = shares[third][first, odd].unflatten(1, (1, *matrices.shape[1:3]))
            for order in range(odd, matrices.shape[0]):
                weighted = sources[first][odd][order][:, :, None] * share
                rows = weighted.flatten(0, 1).flatten(1)
                out[third][order] = _plus(out[third][order], rows, matrices[order].flatten(0, 1))
        return self._joined(out, edges)


class FixedCoupling(Coupling):
    """Coupling with weights w that are learned, the same for all edges.

    All paths of two degrees are then one matrix for each order.
    """

    def __init__(self, paths: Paths, outputs: tuple[int, ...]) -> None:
        super().__init__(paths, outputs)
        self.path_weights = nn.ParameterList(
            nn.Parameter(torch.randn(size)) for size in paths.outputs
        )

    def forward(self, x: Directed) -> Directed:
        paths, edges = self.paths, x[0].shape[0]
        sources = [_by_parity(part, paths.parities) for degree, part in enumerate(x)]
        pairs = zip(self.path_weights, self.weights, strict=True)
        out: list[list[Tensor | None]] = [
            [None] * (third + 1) for third in range(paths.highest + 1)
        ]
        for third, first, odd, matrices in self._matrices([w[:, None] * W for w, W in pairs]):
            for order in range(odd, matrices.shape[0]):
                rows = sources[first][odd][order].flatten(0, 1)
                out[third][order] = _plus(out[third][order], rows, matrices[order].sum(0))
        return self._joined(out, edges)


def _by_parity(
    x: Float[Tensor, "edges components channels"], parities: int
) -> list[tuple[Tensor, ...]]:
    """Cut a degree into its orders, (edges, 1 or 2, channels); where asked for, crossed as well."""
    orders = x.split([1] + [2] * (x.shape[1] // 2), dim=1)
    return [orders, tuple(_crossed(order) for order in orders)][:parities]


def _plus(
    total: Float[Tensor, "rows outputs"] | None,
    x: Float[Tensor, "rows inputs"],
    matrix: Float[Tensor, "inputs outputs"],
) -> Float[Tensor, "rows outputs"]:
    """Add x times a matrix to a total, if there is one yet."""
    return x @ matrix if total is None else torch.addmm(total, x, matrix)
