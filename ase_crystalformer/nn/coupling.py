"""How two directed features make a third: coupling coefficients of the rotation group."""

import csv
from collections import defaultdict
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

TABLE = Path(__file__).with_name("couplings.csv")
HIGHEST = 4
"""Largest degree in the table."""

Entry = tuple[int, int, int, float]


@cache
def _table() -> dict[tuple[int, int, int], list[Entry]]:
    """Non-zero coefficients by their three degrees."""
    entries = defaultdict(list)
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            degrees = (int(row["l1"]), int(row["l2"]), int(row["l3"]))
            place = (int(row["m1"]), int(row["m2"]), int(row["m3"]))
            entries[degrees].append((*place, float(row["value"])))
    return dict(entries)


@cache
def coupling(first: int, second: int, third: int) -> Float[Tensor, "first second third"]:
    r"""Return the real 3j symbols of three degrees, float64; do not write to them.

    .. math:: z_{m_3} = \sum_{m_1 m_2} C_{m_1 m_2 m_3} x_{m_1} y_{m_2}

    turns as a tensor of degree :math:`l_3` if x and y turn as tensors of degrees :math:`l_1` and
    :math:`l_2`; :math:`\sum C^2 = 1`. Components are in the order of ``nn.harmonics``. The numbers
    are those of e3nn's ``wigner_3j``, tabulated: importing e3nn takes as long as importing torch.

    Raises:
        ValueError: if no such coupling exists, or a degree is above four.
    """
    degrees = (first, second, third)
    if degrees not in _table():
        raise ValueError(
            f"Degrees {degrees} do not couple: each must be at most {HIGHEST}, and none larger "
            "than the sum of the others."
        )
    with torch.inference_mode(False):  # kept, and so must serve in training too
        values = torch.zeros([2 * degree + 1 for degree in degrees], dtype=torch.float64)
    for *place, value in _table()[degrees]:
        values[tuple(place)] = value
    return values


def couples(first: int, second: int, third: int) -> bool:
    """Whether tensors of the first two degrees make one of the third."""
    return abs(first - second) <= third <= first + second
