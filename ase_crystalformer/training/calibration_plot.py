"""A picture of how expected errors compare with true ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ase_crystalformer.training.reliability import LEVELS, Compared
from ase_crystalformer.writing import whole

#: Errors are averaged over so many groups of like expectation.
BINS = 12

#: Sets with fewer errors are not drawn.
LEAST = 100


def plot_calibration(compared: Sequence[Compared], path: Path) -> None:
    """Draw two panels per quantity: errors against expectation, and shares against levels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.2 * len(compared)), layout="constrained")
    panels = figure.subplots(len(compared), 2, squeeze=False)
    for one, (left, right) in zip(compared, panels, strict=True):
        _errors(left, one)
        _shares(right, one)
    with whole(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def _errors(axes: Any, one: Compared) -> None:
    """Every error against its expectation, darker where there are fewer, and means."""
    expected, error = one.expected, one.error
    low, high = np.percentile(np.concatenate([expected, error]), [1, 99.9])
    box = (max(low, 1e-3 * high), high * 1.1)
    axes.hexbin(
        np.clip(expected, *box),
        np.clip(error, *box),
        gridsize=50,
        bins="log",
        mincnt=1,
        xscale="log",
        yscale="log",
        extent=np.log10(box * 2),
    )
    parts = np.array_split(np.argsort(expected), min(BINS, len(expected)))
    means = [[values[part].mean() for part in parts] for values in (expected, error)]
    axes.plot(*means, "o", color="C3", markersize=4, label="mean of a twelfth")
    axes.plot(box, box, color="black", linewidth=0.8)
    axes.set(xlim=box, ylim=box, aspect="equal")
    axes.set(xlabel=f"expected error ({one.unit})", ylabel=f"true error ({one.unit})")
    told = one.told()
    axes.set_title(f"{one.name}\nSpearman {told['spearman']:.2f}, n = {told['n']}", fontsize=9)
    axes.legend(fontsize=7)


def _shares(axes: Any, one: Compared) -> None:
    """Observed against expected shares of errors below a bound; of every set too."""
    names = one.groups["set"]
    for name in sorted(set(names.tolist())):
        rows = names == name
        if rows.sum() >= LEAST:
            axes.plot(LEVELS, one.observed(rows), linewidth=0.8, label=name)
    axes.plot(LEVELS, one.observed(), "o-", color="C3", markersize=3, label="all")
    axes.plot(LEVELS, one.gaussian(), "--", color="0.4", linewidth=0.8, label="if Gaussian")
    axes.plot((0, 1), (0, 1), color="black", linewidth=0.8)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set(xlabel="expected share of errors below a bound", ylabel="observed share")
    axes.set_title(f"{one.name}\nmiscalibration area {one.miscalibration():.3f}", fontsize=9)
    axes.legend(fontsize=6)
