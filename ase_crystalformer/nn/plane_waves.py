r"""Attention in reciprocal space: atoms see each other through a Gaussian, with all their images.

The kernel between two atoms is a lattice sum of Gaussians, which is a sum over plane waves:

.. math::
    G_{ij} = \sum_n e^{-|r_j + n h - r_i|^2 / 2 \sigma^2}
           = \frac{(2 \pi)^{3/2} \sigma^3}{V} \sum_k e^{-\sigma^2 k^2 / 2} \cos k (r_j - r_i)

Since :math:`\cos k (r_j - r_i) = \cos k r_i \cos k r_j + \sin k r_i \sin k r_j`, nobody ever meets
in pairs: sums over all atoms are taken once per wave and read back at every atom. Waves end
smoothly between :math:`6 / \sigma` and :math:`7 / \sigma`, which changes the kernel by
:math:`2 \cdot 10^{-9}`. They are chosen by their length alone, so that every cell of a crystal has
the same: those that only a larger cell has come in with nothing, because its copies cancel.

The number of waves grows with the volume, so that the cost is linear in atoms only while they are
few: with a width of 8 Å it is about the same per atom up to 4,000 atoms, and twice that at 10,000
(``benchmarks.linear_attention``).

Along a direction without period the crystal is repeated farther away than the Gaussian reaches:
ten :math:`\sigma` of empty space. The sum is then that of the images there are, to
:math:`10^{-11}`, whatever the length.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ase_crystalformer.nn.radial import envelope
from ase_crystalformer.nn.slots import CrystalSlots

FADING, LAST = 6.0, 7.0
"""Where waves begin to fade, and end, in units of one over the width of the Gaussian."""

GAP = 10.0
"""Empty space along directions without period, in widths of the Gaussian."""


@dataclass(frozen=True, eq=False)
class PlaneWaves:
    """Cosine and sine of every wave at every atom; crystals are padded to the same size.

    Attributes:
        values: Waves at atoms.
        weight: Of each wave in the kernel, zero where there is no wave.
        slots: The place of each atom.
    """

    values: Float[Tensor, "crystals size waves"]
    weight: Float[Tensor, "crystals waves"]
    slots: CrystalSlots

    @staticmethod
    def build(
        positions: Float[Tensor, "atoms 3"],
        cell: Float[Tensor, "crystals 3 3"],
        periodic: Bool[Tensor, "crystals 3"],
        crystal: Int[Tensor, " atoms"],
        width: float,
    ) -> "PlaneWaves":
        r"""Draw the waves of a batch of crystals, smooth in positions and cell.

        Args:
            positions: Å.
            cell: Rows are the cell vectors, Å; those without period are not read.
            periodic: Along which vectors each crystal repeats.
            crystal: Which crystal each atom belongs to, ascending.
            width: :math:`\sigma`, Å.
        """
        with _full_precision(positions):
            return _build(positions, cell, periodic, crystal, width)

    def spread(self, density: Float[Tensor, "atoms *rest"]) -> Float[Tensor, "atoms *rest"]:
        """Sum a density over all images of all atoms under the Gaussian, at every atom."""
        with _full_precision(density):
            padded = self.slots.spread(density.flatten(1).to(self.values))
            _, size, waves = self.values.shape
            channels = padded.shape[-1]
            if size * (waves + channels) < 2 * waves * channels:
                seen = torch.bmm(self.kernel, padded)  # the same, where atoms are few
            else:
                amplitude = torch.bmm(self.values.mT, padded) * self.weight[..., None]
                seen = torch.bmm(self.values, amplitude)
        return self.slots.collect(seen).unflatten(1, density.shape[1:])

    @cached_property
    def kernel(self) -> Float[Tensor, "crystals size size"]:
        """Lattice sum of Gaussians between all atoms of each crystal."""
        return torch.bmm(self.values * self.weight[:, None], self.values.mT)


def _full_precision(like: Tensor) -> torch.autocast:
    """Where precision is mixed, phases and sums of many waves must not be short."""
    return torch.autocast(like.device.type, enabled=False)


def _build(
    positions: Float[Tensor, "atoms 3"],
    cell: Float[Tensor, "crystals 3 3"],
    periodic: Bool[Tensor, "crystals 3"],
    crystal: Int[Tensor, " atoms"],
    width: float,
) -> PlaneWaves:
    if not bool(periodic.all()):
        cell = _completed(positions.detach(), cell, periodic, crystal, GAP * width)
    inverse = torch.linalg.inv(cell)
    scaled = torch.einsum("ai,aij->aj", positions, inverse.index_select(0, crystal))
    scaled = scaled - scaled.detach().floor()  # by whole lattice vectors: small phases
    order, count = _orders(cell.detach(), inverse.detach(), LAST / width)
    slots = CrystalSlots.build(crystal, len(cell))
    phase = torch.bmm(slots.spread(scaled), 2 * math.pi * order.mT)
    weight = _weight(order, count, inverse, width) / torch.linalg.det(cell).abs()[:, None]
    return PlaneWaves(torch.cat([phase.cos(), phase.sin()], -1), weight.repeat(1, 2), slots)


def _completed(
    positions: Float[Tensor, "atoms 3"],
    cell: Float[Tensor, "crystals 3 3"],
    periodic: Bool[Tensor, "crystals 3"],
    crystal: Int[Tensor, " atoms"],
    gap: float,
) -> Float[Tensor, "crystals 3 3"]:
    """Put long vectors across the others where a crystal does not repeat."""
    across = torch.linalg.svd(cell.detach() * periodic[..., None]).Vh
    # Of the rows of Vh, the last are across all cell vectors there are.
    number = periodic.sum(1, keepdim=True) + (~periodic).cumsum(1) - 1
    across = across.take_along_dim(number.clamp(0, 2)[..., None], dim=1)
    height = torch.einsum("ai,aji->aj", positions, across[crystal])
    index = crystal[:, None].expand_as(height)
    zeros = height.new_zeros(len(cell), 3)
    top = zeros.scatter_reduce(0, index, height, "amax", include_self=False)
    bottom = zeros.scatter_reduce(0, index, height, "amin", include_self=False)
    return torch.where(periodic[..., None], cell, (top - bottom + gap)[..., None] * across)


def _orders(
    cell: Float[Tensor, "crystals 3 3"], inverse: Float[Tensor, "crystals 3 3"], longest: float
) -> tuple[Float[Tensor, "crystals waves 3"], Float[Tensor, "crystals waves"]]:
    """Number the waves up to a length, one of each pair k and -k, and say for how many each is.

    The order of a wave along a cell vector is at most the vector's length in wavelengths.
    """
    most = (longest / (2 * math.pi) * torch.linalg.vector_norm(cell, dim=-1)).floor().long()
    sides = 2 * most + 1
    sides[:, 0] = most[:, 0] + 1
    boxes = sides.prod(1)
    owner = torch.repeat_interleave(torch.arange(len(cell), device=cell.device), boxes)
    local = torch.arange(len(owner), device=cell.device) - (boxes.cumsum(0) - boxes)[owner]
    side = sides[owner]
    third = local % side[:, 2] - most[owner, 2]
    local = local // side[:, 2]
    second, first = local % side[:, 1] - most[owner, 1], local // side[:, 1]
    order = torch.stack([first, second, third], dim=1)
    half = (first > 0) | (second > 0) | ((second == 0) & (third >= 0))
    wave = torch.einsum("wi,wji->wj", order.to(inverse), inverse[owner])
    kept = torch.nonzero(half & ((2 * math.pi * wave).square().sum(1) < longest**2))[:, 0]
    order, owner = order[kept].to(cell), owner[kept]
    found = torch.bincount(owner, minlength=len(cell))
    waves = int(found.max())
    slot = torch.arange(len(kept), device=cell.device) - (found.cumsum(0) - found)[owner]
    slot = owner * waves + slot
    count = 1 + (order != 0).any(1).to(cell)
    shape = (len(cell), waves)
    orders = order.new_zeros(len(cell) * waves, 3).index_copy(0, slot, order)
    counts = count.new_zeros(len(cell) * waves).index_copy(0, slot, count)
    return orders.unflatten(0, shape), counts.unflatten(0, shape)


def _weight(
    order: Float[Tensor, "crystals waves 3"],
    count: Float[Tensor, "crystals waves"],
    inverse: Float[Tensor, "crystals 3 3"],
    width: float,
) -> Float[Tensor, "crystals waves"]:
    """Weight of each wave times the volume of the cell."""
    square = (2 * math.pi * width * (order @ inverse.mT)).square().sum(-1)
    fade = envelope(((square - FADING**2) / (LAST**2 - FADING**2)).clamp(min=0), 1.0)
    return (2 * math.pi) ** 1.5 * width**3 * count * fade * torch.exp(-square / 2)


class PlaneWaveAttention(nn.Module):
    r"""Linear attention under the Gaussian of ``PlaneWaves``, smooth and normalised per atom.

    .. math::
        y_i = \frac{\sum_j \phi(q_i) \phi(k_j) \, G_{ij} \, v_j}
                   {\sum_j \phi(q_i) \phi(k_j) \, G_{ij}}, \quad \phi = \mathrm{softplus} > 0

    The sums hold the atom itself, so that the denominator is never near zero. They cost atoms times
    waves, of which there are :math:`3 V / \sigma^3` in a large cell, and one in a small. A cell of
    few atoms and much space has more waves than pairs; there the same sums are taken over pairs.

    Args:
        width: Channels of an atom.
        channels: Of the values, all heads together.
        heads: Must divide ``channels``.
        features: Components of :math:`\phi` per head.

    Source: kernelised attention of Katharopoulos et al., ICML 2020, arXiv:2006.16236; the lattice
    sum is Poisson's.
    """

    def __init__(self, width: int, channels: int, heads: int, features: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads must divide the channels; {heads} do not divide {channels}.")
        self.heads = heads
        self.query = nn.Linear(width, heads * features)
        self.key = nn.Linear(width, heads * features)
        self.value = nn.Linear(width, channels)
        self.out = nn.Linear(channels, width)

    def forward(
        self, x: Float[Tensor, "atoms width"], waves: PlaneWaves
    ) -> Float[Tensor, "atoms width"]:
        query, key, value = (
            linear(x).unflatten(1, (self.heads, -1))
            for linear in (self.query, self.key, self.value)
        )
        query, key = functional.softplus(query), functional.softplus(key)
        value = torch.cat([value, torch.ones_like(value[..., :1])], dim=-1)
        seen = waves.spread(key[..., None] * value[..., None, :])
        total = (query[..., None] * seen).sum(2)
        return self.out((total[..., :-1] / total[..., -1:]).flatten(1))
