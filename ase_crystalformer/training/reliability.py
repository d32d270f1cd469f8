"""How expected errors compare with true ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

#: Shares of errors whose bounds are compared.
LEVELS = np.linspace(0.05, 0.95, 19)

#: Shares whose bounds are told, in units of the expected error.
TOLD = (0.5, 0.68, 0.9, 0.95, 0.99)

#: Groups with fewer errors are not told of.
LEAST = 20


@dataclass(frozen=True, eq=False, kw_only=True)
class Compared:
    """Expected and true errors of what the expectation was not fitted to.

    It lies in two quarters. What is told of each was scaled by the other.

    Attributes:
        name: Of the quantity.
        unit: Of both.
        raw: Expected errors before they are scaled.
        error: Lengths or absolute values.
        quarter: Which of the two each belongs to.
        groups: Labels of each by kind, e.g. its set of data.
    """

    name: str
    unit: str
    raw: Float[ndarray, " rows"]
    error: Float[ndarray, " rows"]
    quarter: Bool[ndarray, " rows"]
    groups: dict[str, ndarray]

    @property
    def scale(self) -> float:
        """Factor that makes true errors as large as expected ones, on average of their ratio."""
        return float((self.error / self.raw).mean())

    @property
    def expected(self) -> Float[ndarray, " rows"]:
        """Expected errors, those of each quarter scaled by the other."""
        ratio = self.error / self.raw
        of = [ratio[self.quarter != side].mean() for side in (False, True)]
        return self.raw * np.where(self.quarter, of[1], of[0])

    @property
    def bounds(self) -> Float[ndarray, "levels rows"]:
        """Below which each share of the errors is expected, from ratios of the other quarter."""
        ratio = self.error / self.raw
        of = [np.quantile(ratio[self.quarter != side], LEVELS) for side in (False, True)]
        return np.where(self.quarter, of[1][:, None], of[0][:, None]) * self.raw

    def observed(self, rows: Bool[ndarray, " rows"] | None = None) -> Float[ndarray, " levels"]:
        """Share of the errors, or of some, below the bound of every level."""
        below = self.error <= self.bounds
        return below.mean(1) if rows is None else below[:, rows].mean(1)

    def miscalibration(self, rows: Bool[ndarray, " rows"] | None = None) -> float:
        """Miscalibration area, mean of the quarters: pooled, what one lacks the other may have."""
        rows = np.ones(len(self.error), dtype=bool) if rows is None else rows
        below = self.error <= self.bounds
        parts = [rows & (self.quarter == side) for side in (False, True)]
        areas = [area(below[:, part].mean(1)) for part in parts if part.any()]
        return float(np.average(areas, weights=[part.sum() for part in parts if part.any()]))

    def gaussian(self) -> Float[ndarray, " levels"]:
        """Share of the errors below the bounds of Gaussian ones with the expected mean.

        Lengths of three components follow Maxwell's distribution, absolute values the half-normal.
        """
        from scipy.stats import halfnorm, maxwell

        kind = maxwell if self.name == "forces" else halfnorm
        bounds = kind.ppf(LEVELS) / kind.mean()
        return ((self.error / self.expected)[:, None] <= bounds).mean(0)

    def told(self) -> dict[str, Any]:
        """Sum up for a card."""
        ratio = np.quantile(self.error / self.expected, TOLD)
        return {
            "unit": self.unit,
            **self._summary(np.ones(len(self.error), dtype=bool)),
            "gaussian_miscalibration_area": _rounded(area(self.gaussian())),
            "errors_below": {
                f"{level:.0%}": f"{bound:.2f} x expected"
                for level, bound in zip(TOLD, ratio, strict=True)
            },
            **{f"by_{kind}": self._by(labels) for kind, labels in self.groups.items()},
        }

    def _by(self, labels: ndarray) -> dict[str, Any]:
        names = sorted(set(labels.tolist()))
        rows = {str(name): labels == name for name in names}
        return {name: self._summary(own) for name, own in rows.items() if own.sum() >= LEAST}

    def _summary(self, rows: Bool[ndarray, " rows"]) -> dict[str, Any]:
        from scipy.stats import spearmanr

        expected, error = self.expected[rows], self.error[rows]
        return {
            "n": int(rows.sum()),
            "mean_expected": _rounded(expected.mean()),
            "mean_error": _rounded(error.mean()),
            "spearman": _rounded(spearmanr(expected, error).statistic),
            "miscalibration_area": _rounded(self.miscalibration(rows)),
        }


def area(observed: Float[ndarray, " levels"]) -> float:
    """Area between observed and expected shares; 0 is perfect, 0.5 as wrong as can be."""
    shares = np.concatenate([[0.0], np.abs(observed - LEVELS), [0.0]])
    return float(np.trapezoid(shares, np.concatenate([[0.0], LEVELS, [1.0]])))


def _rounded(value: float) -> float:
    """Keep four digits."""
    return float(f"{value:.4g}")
