"""Power laws, and how sure they are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Law:
    r"""An error as a function of effort, :math:`a (x / x_0)^{-b} + c`.

    Attributes:
        a: Error at ``x0``, above the floor.
        b: Exponent.
        b_error: Its standard error, from the scatter of the points about the law.
        c: Floor that no effort goes below.
        x0: Geometric mean of the efforts.
        points: How many the law was fitted to.
    """

    a: float
    b: float
    b_error: float
    c: float
    x0: float
    points: int

    def __call__(self, x: Values) -> Values:
        return self.a * (x / self.x0) ** -self.b + self.c


def fit_law(x: Values, error: Values, *, floor: bool = False) -> Law | None:
    """Fit the logarithm of the errors by least squares; nothing, if there are too few efforts.

    A law of two or three unknowns needs at least three or four different efforts.

    Args:
        x: Efforts, all positive.
        error: One for each.
        floor: Fit a floor, too.
    """
    if len(np.unique(x)) < 3 + floor:
        return None
    x0 = float(np.exp(np.log(x).mean()))
    away = np.log(x / x0)

    def straight(away: Values, log_a: float, b: float) -> Values:
        return log_a - b * away

    def curved(away: Values, log_a: float, b: float, log_c: float) -> Values:
        return np.logaddexp(log_a - b * away, log_c)

    start = [float(np.log(error).mean()), 0.3]
    if floor:
        start.append(float(np.log(error.min())) - 1)
    found, covariance = curve_fit(
        curved if floor else straight, away, np.log(error), p0=start, maxfev=20_000
    )
    return Law(
        a=float(np.exp(found[0])),
        b=float(found[1]),
        b_error=float(np.sqrt(covariance[1, 1])),
        c=float(np.exp(found[2])) if floor else 0.0,
        x0=x0,
        points=len(x),
    )
