r"""Products with the spherical harmonics of an edge, taken in a frame whose y axis is the edge.

There all harmonics but those of order m = 0 vanish. Coupling degrees :math:`l_1, l_2, l_3` then
joins each order m of the input with the same order of the output or, where :math:`l_1 + l_2 + l_3`
is odd, with order -m: few multiplications in place of a sum over all coefficients (Passaro &
Zitnick, ICML 2023, arXiv:2302.03655). It is exact. Which of the frames around an edge is taken does
not matter, so that the choice may jump and no direction is special.

Aligned features are directed features in such frames, cut into orders: for each degree l a tuple
over m = 0 ... l of tensors ``(edges, 1 or 2, channels)``, with the components m and -m.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ase_crystalformer.nn.coupling import coupling
from ase_crystalformer.nn.equivariant import Directed
from ase_crystalformer.nn.radial_weights import radial_start

Aligned = tuple[tuple[Tensor, ...], ...]
"""One tensor ``(edges, 1 or 2, channels)`` per degree and order."""


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
        # Where precision is mixed, rotations stay rotations.
        with torch.autocast(unit.device.type, enabled=False):
            turns.append(isometry.T @ (pairs.reshape(-1, size, size) @ isometry))
    return tuple(turn[:, _order(high)] for high, turn in enumerate(turns[: degree + 1]))


def _order(degree: int) -> list[int]:
    """Where orders 0, 1, -1, 2, -2, ... stand among the components of a degree."""
    return [degree, *(degree + sign * m for m in range(1, degree + 1) for sign in (1, -1))]


def align(x: Directed, turns: Directed) -> Aligned:
    """Turn features of edges into their frames."""
    higher = (turn @ part for part, turn in zip(x[1:], turns[1:], strict=True))
    return ((x[0],), *(part.split([1] + [2] * (part.shape[1] // 2), dim=1) for part in higher))


def restore(x: Aligned, turns: Directed) -> Directed:
    """Turn aligned features, of as many degrees as there are, back."""
    return tuple(turn.mT @ torch.cat(orders, dim=1) for orders, turn in zip(x, turns, strict=False))


def _crossed(x: Float[Tensor, "edges 2 channels"]) -> Float[Tensor, "edges 2 channels"]:
    """Put at order m what stands at -m, and at -m minus what stands at m."""
    positive, negative = x.unbind(1)
    return torch.stack([negative, -positive], dim=1)


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

    @property
    def kinds(self) -> list[tuple[int, int]]:
        """Every input degree with every parity."""
        return [(first, odd) for first in range(len(self.inputs)) for odd in range(self.parities)]

    def sizes(self, third: int) -> list[int]:
        """Channels of a degree that come of each of the ``kinds``, some of them by no path."""
        return [
            len(self.seconds(first, third, odd)) * self.inputs[first] for first, odd in self.kinds
        ]

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
            for (first, odd), block in zip(paths.kinds, blocks, strict=True):
                if seconds := paths.seconds(first, third, odd):
                    rows = [_strengths(first, second, third) for second in seconds]
                    strengths = weight.new_tensor(rows) * weight.shape[0] ** -0.5
                    matrices = block.unflatten(0, (len(seconds), -1))
                    yield third, first, odd, strengths.T[..., None, None] * matrices


class RadialCoupling(Coupling):
    """Coupling with weights w of each edge, linear in features of its length.

    Args:
        paths: What couples to what.
        outputs: Channels of each degree that leave.
        features: Of lengths.
    """

    def __init__(self, paths: Paths, outputs: tuple[int, ...], features: int) -> None:
        super().__init__(paths, outputs)
        self.radial = nn.Parameter(radial_start(features, sum(paths.outputs)))

    def forward(self, x: Aligned, features: Float[Tensor, "edges features"]) -> Aligned:
        thirds = range(self.paths.highest + 1)
        sizes = [size for third in thirds for size in self.paths.sizes(third) if size]
        blocks = iter(self.radial.split(sizes, dim=1))
        sums = _Sums((0, 0), self.bias)
        for third, first, odd, matrices in self._matrices(list(self.weights)):
            weights = (features @ next(blocks)).unflatten(1, (1, *matrices.shape[1:3]))
            for order in range(odd, len(matrices)):
                weighted = (x[first][order][:, :, None] * weights).flatten(2)
                sums.add((third, order), odd, weighted, matrices[order].flatten(0, 1))
        return tuple(tuple(sums[third, order] for order in range(third + 1)) for third in thirds)


class FixedCoupling(Coupling):
    """Coupling with weights w that are learned, the same for all edges.

    All paths that keep an order are then one matrix, and all that cross it another.
    """

    def __init__(self, paths: Paths, outputs: tuple[int, ...]) -> None:
        super().__init__(paths, outputs)
        self.path_weights = nn.ParameterList(
            nn.Parameter(torch.randn(size)) for size in paths.outputs
        )

    def forward(self, x: Aligned) -> Aligned:
        widths = [weight.shape[1] for weight in self.weights]
        thirds = range(len(widths))
        pairs = zip(self.path_weights, self.weights, strict=True)
        columns = defaultdict(list)
        for third, _, odd, matrices in self._matrices([w[:, None] * matrix for w, matrix in pairs]):
            for order, block in enumerate(matrices.sum(1)):
                columns[order, odd, third].append(block)
        sums = _Sums((0, 0), nn.functional.pad(self.bias, (0, sum(widths[1:]))))
        for order in thirds:
            rows = torch.cat([orders[order] for orders in x[order:]], dim=2)
            for odd in range(self.paths.parities if order else 1):
                blocks = [torch.cat(columns[order, odd, third]) for third in thirds[order:]]
                sums.add((order, order), odd, rows, torch.cat(blocks, dim=1))
        parts = [sums[order, order].split(widths[order:], dim=2) for order in thirds]
        return tuple(
            tuple(parts[order][third - order] for order in thirds[: third + 1]) for third in thirds
        )


class _Sums:
    """Sums of matrix products by degree and order, of even and of odd paths apart.

    Args:
        key: Of the sum that starts with a bias.
        bias: What it starts with.
    """

    def __init__(self, key: tuple[int, int], bias: Float[Tensor, " outputs"]) -> None:
        self.biases = {(key, 0): bias}
        self.parts: dict[tuple[tuple[int, int], int], Tensor] = {}
        self.shapes: dict[tuple[int, int], torch.Size] = {}

    def add(
        self,
        key: tuple[int, int],
        odd: int,
        x: Float[Tensor, "edges signs inputs"],
        matrix: Float[Tensor, "inputs outputs"],
    ) -> None:
        """Add x times a matrix."""
        rows, whole = x.flatten(0, 1), (key, odd)
        total = self.parts.get(whole, self.biases.get(whole))
        self.parts[whole] = rows @ matrix if total is None else torch.addmm(total, rows, matrix)
        self.shapes[key] = x.shape[:2]

    def __getitem__(self, key: tuple[int, int]) -> Float[Tensor, "edges signs outputs"]:
        """Even paths keep the order, odd ones cross it."""
        shape, odd = self.shapes[key], self.parts.get((key, 1))
        even = self.parts[key, 0].unflatten(0, shape)
        return even if odd is None else even + _crossed(odd.unflatten(0, shape))
