"""A parity plot: predicted against labelled values, one panel per quantity."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_crystalformer.writing import whole

#: Panels in one row.
COLUMNS = 3

Values = NDArray[np.float64]


def plot_parity(
    pairs: Mapping[tuple[str, str], tuple[Values, Values]], mae: Mapping[str, float], path: Path
) -> None:
    """Draw one panel per quantity, darker where there are fewer crystals.

    Args:
        pairs: By quantity and unit, predicted and labelled values.
        mae: Mean absolute error of each quantity.
        path: Of the picture, which appears whole or not at all.
    """
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(4.2 * columns, 4.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for ((name, unit), (predicted, label)), axes in zip(pairs.items(), panels, strict=False):
        box = _box(np.concatenate([predicted, label]))
        axes.hexbin(label, predicted, gridsize=70, bins="log", mincnt=1, extent=box * 2)
        axes.plot(box, box, color="black", linewidth=0.8)
        axes.set(xlim=box, ylim=box, aspect="equal")
        axes.set(xlabel=f"reference ({unit})", ylabel=f"predicted ({unit})")
        title = f"{name.replace('_', ' ')}\nMAE {mae[name]:.3g} {unit}, n = {len(label)}"
        axes.set_title(title, fontsize=9)
    for axes in panels:
        axes.set_axis_off()
    with whole(path) as partial:
        figure.savefig(partial, dpi=130)


def _box(values: Values) -> tuple[float, float]:
    """Bound all but the wildest values, with a margin."""
    low, high = np.percentile(values, [0.1, 99.9])
    margin = 0.03 * (high - low) or 1.0
    return float(low - margin), float(high + margin)
