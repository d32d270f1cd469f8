r"""Constants of tensor products that are coupled on edges, or on atoms.

A convolution couples features h of a neighbour at q with the direction in which an atom at p sees
it. Solid harmonics :math:`R_l(r) = |r|^l Y_l` of a difference are sums of products, and recoupling
moves one factor to the sender and one to the receiver:

.. math::
    R_l(q - p) = \sum_{u + v = l} c_{vu} [R_v(q) \otimes R_u(-p)]_l, \quad
    [h \otimes [R_v \otimes R_u]_l]_o = \sum_k b_k [[h \otimes R_v]_k \otimes R_u]_o.

:math:`b_k` is a 6j symbol times 2k + 1, up to sign.

Source: Li et al. 2025, arXiv:2501.19216.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from ase_crystalformer.nn.coupling import couples, coupling
from ase_crystalformer.nn.equivariant import Directed

Path = tuple[int, int, int]
"""Degrees of the feature, of the harmonic, and of what they make."""

HIGHEST_ORDER = 2
"""Largest degree of solid harmonics."""

Table = Float[Tensor, "_ _ _"]
"""Rows, harmonics, columns: a map from columns to rows for every component of the harmonics."""


@dataclass(frozen=True)
class Couplings:
    """Which couplings a convolution has.

    Attributes:
        degree: Largest degree of the features.
        order: Largest degree of the harmonics, two at most.
        outputs: Largest degree of the result.
        odd: Include couplings of odd sum, such as the cross product. They break mirror symmetry.
    """

    degree: int
    order: int
    outputs: int
    odd: bool = False

    def paths(self, order: int) -> list[Path]:
        """Couplings with harmonics of one order."""
        return [
            (degree, order, output)
            for output in range(self.outputs + 1)
            for degree in range(self.degree + 1)
            if couples(degree, order, output) and (self.odd or (degree + order + output) % 2 == 0)
        ]

    def channels(self, width: int) -> tuple[int, ...]:
        """Channels of the result per degree: those of all couplings side by side."""
        ends = [output for order in range(self.order + 1) for *_, output in self.paths(order)]
        return tuple(width * ends.count(output) for output in range(self.outputs + 1))

    def collect(self, results: Sequence[Float[Tensor, "atoms _ width"]]) -> Directed:
        """Sort by degree what comes per order, couplings one below the other."""
        parts: list[list[Tensor]] = [[] for _ in range(self.outputs + 1)]
        for order, rows in enumerate(results):
            paths = self.paths(order)
            pieces = rows.split([2 * output + 1 for *_, output in paths], dim=1)
            for (*_, output), piece in zip(paths, pieces, strict=True):
                parts[output].append(piece)
        return tuple(torch.cat(part, dim=-1) for part in parts)


@dataclass(frozen=True, eq=False)
class Tables:
    """Constants of a convolution, each per order; nobody may write to them.

    Attributes:
        whole: Features to results, given harmonics of the edge.
        before: Features to what is summed, given harmonics of the sender's place.
        after: Sums to results, given harmonics of minus the receiver's place.
    """

    whole: tuple[Table, ...]
    before: tuple[Table, ...]
    after: tuple[Table, ...]


@cache
def tables(couplings: Couplings, dtype: torch.dtype, device: torch.device) -> Tables:
    """Return the constants of a convolution; results have the variance of the features."""
    orders = range(couplings.order + 1)
    # Made in inference mode, they could never be differentiated through.
    with torch.inference_mode(False):
        return Tables(
            *(
                tuple(make(couplings, order).to(device, dtype) for order in orders)
                for make in (_whole, _before, _after)
            )
        )


def solid_harmonics(
    vector: Float[Tensor, "*shape 3"], order: int
) -> Float[Tensor, "*shape harmonics"]:
    r"""Evaluate :math:`|r|^l Y_{lm}` for :math:`l = 0 \dots` ``order``, at the origin too."""
    x, y, z = vector.unbind(-1)
    parts = [torch.ones_like(x)]
    if order >= 1:
        parts += [math.sqrt(3) * c for c in (x, y, z)]
    if order >= HIGHEST_ORDER:
        parts += [math.sqrt(15) * c for c in (z * x, x * y)]
        parts += [math.sqrt(5) / 2 * (2 * y * y - x * x - z * z)]
        parts += [math.sqrt(15) * y * z, math.sqrt(15) / 2 * (z * z - x * x)]
    return torch.stack(parts, dim=-1)


def part(degree: int) -> slice:
    """Where the components of a degree are among those of all degrees."""
    return slice(degree**2, (degree + 1) ** 2)


@cache
def addition(v: int, u: int) -> float:
    """Return the factor of ``[R_v(a) ⊗ R_u(b)]`` in ``R_(v + u)(a + b)``."""
    point = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    harmonics = solid_harmonics(point, HIGHEST_ORDER)
    whole = harmonics[part(v + u)]
    product = torch.einsum(
        "i,j,ijk->k", harmonics[part(v)], harmonics[part(u)], coupling(v, u, v + u)
    )
    return math.comb(v + u, u) * (whole @ whole / (product @ whole)).item()


@cache
def recoupling(feature: int, v: int, u: int, output: int, middle: int) -> float:
    """Return the factor of ``[[h ⊗ v]_middle ⊗ u]_output`` in ``[h ⊗ [v ⊗ u]_(v + u)]_output``.

    It is a contraction of four 3j symbols: the 6j symbol of ``feature v middle`` and
    ``u output v + u``, times ``2 middle + 1``, up to sign.
    """
    apart = torch.einsum("acx,xdo->acdo", coupling(feature, v, middle), coupling(middle, u, output))
    outer, inner = coupling(feature, v + u, output), coupling(v, u, v + u)
    together = torch.einsum("abo,cdb->acdo", outer, inner)
    return (2 * middle + 1) * (apart * together).sum().item()


def _middles(couplings: Couplings, order: int) -> list[Path]:
    """Couplings (feature, v, middle) with the sender's place that any path of an order needs."""
    return sorted(
        {
            (feature, v, middle)
            for feature, _, output in couplings.paths(order)
            for v in range(order + 1)
            for middle in range(abs(feature - v), feature + v + 1)
            if couples(middle, order - v, output)
        }
    )


def _whole(couplings: Couplings, order: int) -> Table:
    paths = couplings.paths(order)
    table = _zeros(_size(paths), 2 * order + 1, (couplings.degree + 1) ** 2)
    for row, path in zip(_rows(paths), paths, strict=True):
        table[row, :, part(path[0])] = _scaled(path)
    return table


def _before(couplings: Couplings, order: int) -> Table:
    middles = _middles(couplings, order)
    table = _zeros(_size(middles), (order + 1) ** 2, (couplings.degree + 1) ** 2)
    for row, (feature, v, middle) in zip(_rows(middles), middles, strict=True):
        table[row, part(v), part(feature)] = _scaled((feature, v, middle))
    return table


def _after(couplings: Couplings, order: int) -> Table:
    paths, middles = couplings.paths(order), _middles(couplings, order)
    table = _zeros(_size(paths), (order + 1) ** 2, _size(middles))
    for row, (feature, _, output) in zip(_rows(paths), paths, strict=True):
        for column, (own, v, middle) in zip(_rows(middles), middles, strict=True):
            u = order - v
            if own == feature and couples(middle, u, output):
                factor = addition(v, u) * recoupling(feature, v, u, output, middle)
                factor *= (2 * middle + 1) ** -0.5
                table[row, part(u), column] = factor * _scaled((middle, u, output))
    return table


def _scaled(path: Path) -> Table:
    """3j symbols, result first, so scaled that it has the variance of what is coupled."""
    return (2 * path[2] + 1) ** 0.5 * coupling(*path).permute(2, 1, 0)


def _zeros(rows: int, harmonics: int, columns: int) -> Table:
    return torch.zeros(rows, harmonics, columns, dtype=torch.float64)


def _size(paths: Iterable[Path]) -> int:
    """Count the components that couplings make."""
    return sum(2 * output + 1 for *_, output in paths)


def _rows(paths: Sequence[Path]) -> list[slice]:
    """Where the result of every coupling is, one below the other."""
    starts = [_size(paths[:number]) for number in range(len(paths))]
    return [slice(at, at + 2 * path[2] + 1) for at, path in zip(starts, paths, strict=True)]
