"""Errors of forces and stresses, summed so that they can be averaged over any set of atoms."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ase_crystalformer.assessment.benchmark import ALL, Statistic


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """Sums over components of the difference between prediction and label.

    Attributes:
        absolute: Sum of absolute differences.
        squared: Sum of squared differences.
        label: Sum of absolute labels: the error of predicting nothing.
        n: How many components.
    """

    absolute: float = 0.0
    squared: float = 0.0
    label: float = 0.0
    n: int = 0

    @classmethod
    def of(cls, predicted: Any, label: Any) -> "Deviation":
        """Compare arrays of one shape."""
        difference = np.asarray(predicted) - np.asarray(label)
        return cls(
            absolute=float(np.abs(difference).sum()),
            squared=float((difference**2).sum()),
            label=float(np.abs(label).sum()),
            n=difference.size,
        )


def pooled(deviations: Iterable[Deviation]) -> Deviation:
    """Add sums up."""
    known = list(deviations)
    return Deviation(
        absolute=sum((one.absolute for one in known), 0.0),
        squared=sum((one.squared for one in known), 0.0),
        label=sum((one.label for one in known), 0.0),
        n=sum(one.n for one in known),
    )


def told(
    name: str, unit: str, deviations: Sequence[Deviation], group: str = ALL, scale: float = 1.0
) -> list[Statistic]:
    """Mean absolute error, its root mean square kin, and the mean size of the labels."""
    total = pooled(deviations)
    if total.n == 0:
        averages: list[float | None] = [None, None, None]
    else:
        mean_square = total.squared / total.n
        averages = [total.absolute / total.n, float(np.sqrt(mean_square)), total.label / total.n]
    names = (f"{name} MAE", f"{name} RMSE", f"{name}, mean of labels")
    return [
        Statistic(
            name=what,
            value=None if value is None else scale * value,
            unit=unit,
            n=total.n,
            group=group,
        )
        for what, value in zip(names, averages, strict=True)
    ]
