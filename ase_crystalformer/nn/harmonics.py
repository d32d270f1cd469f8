"""Real spherical harmonics up to degree three, as polynomials of a unit vector."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

#: Number of components up to and including each degree, the constant left out.
COMPONENTS = {0: 0, 1: 3, 2: 8, 3: 15}


def harmonics(unit: Float[Tensor, "*shape 3"], degree: int) -> Float[Tensor, "*shape components"]:
    r"""Evaluate :math:`Y_{lm}` for :math:`l = 1 \dots` ``degree``, component-normalised.

    Component normalisation: :math:`\sum_m Y_{lm}^2 = 2l + 1`. Order, signs and axis (y) are those
    of e3nn, so that ``nn.coupling`` fits.
    """
    x, y, z = unit.unbind(-1)
    parts = []
    if degree >= 1:
        parts += [math.sqrt(3) * c for c in (x, y, z)]
    if degree >= 2:
        parts += [math.sqrt(15) * c for c in (z * x, x * y)]
        parts += [math.sqrt(5) / 2 * (3 * y * y - 1)]
        parts += [math.sqrt(15) * y * z, math.sqrt(15) / 2 * (z * z - x * x)]
    if degree >= 3:
        parts += _cubic(x, y, z)
    return torch.stack(parts, dim=-1)


def _cubic(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    """The seven components of degree three."""
    a, b, c = math.sqrt(70) / 4, math.sqrt(105), math.sqrt(42) / 4
    ring = 5 * y * y - 1
    return [
        a * x * (3 * z * z - x * x),
        b * x * y * z,
        c * x * ring,
        math.sqrt(7) / 2 * y * (5 * y * y - 3),
        c * z * ring,
        b / 2 * y * (z * z - x * x),
        a * z * (z * z - 3 * x * x),
    ]
