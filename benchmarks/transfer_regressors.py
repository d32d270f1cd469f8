"""scikit-learn's regressors for the transfer benchmark, and how one of them is chosen."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVR

#: Parts that the training rows are cut into to choose a regressor.
INNER = 3


def _logarithm(last: Any) -> Any:
    """Learn the standardised logarithm; both quantities of the benchmark are positive."""
    straight = FunctionTransformer(np.log, np.exp)
    return TransformedTargetRegressor(last, transformer=make_pipeline(straight, StandardScaler()))


def _scaled(last: Any) -> Any:
    columns = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    return _logarithm(make_pipeline(columns, last))


def _ridge(_: int) -> Any:
    return _scaled(RidgeCV(np.logspace(-1, 5, 13)))


def _vectors(columns: int, *, cost: float, width: float) -> Any:
    """Support vectors; ``width`` is gamma times the number of columns."""
    return _scaled(SVR(C=cost, gamma=width / columns, epsilon=0.01, cache_size=500))


def _trees(_: int) -> Any:
    trees = ExtraTreesRegressor(100, max_features=0.3, random_state=0, n_jobs=1)
    return _logarithm(make_pipeline(SimpleImputer(keep_empty_features=True), trees))


def _boosted(_: int) -> Any:
    return HistGradientBoostingRegressor(
        loss="absolute_error", learning_rate=0.1, max_iter=200, random_state=0
    )


#: Name to what makes a fresh regressor, for so many columns.
REGRESSORS: dict[str, Callable[[int], Any]] = {
    "ridge": _ridge,
    **{
        f"support vectors (C = {cost:g}, gamma = {width:g} / columns)": partial(
            _vectors, cost=cost, width=width
        )
        for cost in (3.0, 30.0)
        for width in (0.2, 1.0)
    },
    "extra trees": _trees,
    "gradient boosting": _boosted,
}


def chosen(table: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[str, dict[str, float]]:
    """Choose the regressor with the least mean absolute error in parts of the training rows.

    Returns:
        Its name, and the errors of all.
    """
    errors: dict[str, float] = {}
    for name, make in REGRESSORS.items():
        cut = KFold(INNER, shuffle=True, random_state=0).split(table)
        parts = [
            np.abs(
                make(table.shape[1]).fit(table[a], labels[a]).predict(table[b]) - labels[b]
            ).mean()
            for a, b in cut
        ]
        errors[name] = float(np.mean(parts))
    return min(errors, key=lambda name: errors[name]), errors
