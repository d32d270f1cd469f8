"""Averages of rows, each with its unit and how many values it is of."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from ase_crystalformer.assessment.benchmark import ALL, Statistic

#: Share of values that are true, in per cent; written with the same unit everywhere.
PER_CENT = "%"

Average = Callable[[NDArray[np.float64]], float]


def statistic(
    name: str,
    unit: str,
    values: Iterable[float | None],
    average: Average = np.mean,
    group: str = ALL,
) -> Statistic:
    """Average the values there are."""
    known = np.array([value for value in values if value is not None], dtype=float)
    value = float(average(known)) if len(known) else None
    return Statistic(name=name, value=value, unit=unit, n=len(known), group=group)


def share(name: str, values: Iterable[bool], group: str = ALL) -> Statistic:
    """Say of how many values something holds, in per cent."""
    return statistic(name, PER_CENT, [100.0 * value for value in values], group=group)


def mean_absolute(values: NDArray[np.float64]) -> float:
    """Average without signs."""
    return float(np.abs(values).mean())


def median_absolute(values: NDArray[np.float64]) -> float:
    """Middle without signs."""
    return float(np.median(np.abs(values)))


def root_mean_square(values: NDArray[np.float64]) -> float:
    """Average of the squares, and the root of that."""
    return float(np.sqrt((values**2).mean()))
