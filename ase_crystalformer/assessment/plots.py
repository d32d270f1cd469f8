"""Panels that several benchmarks draw."""

from collections.abc import Sequence
from typing import Any

import numpy as np

#: More bins than this show noise.
BINS = 30


def histogram(axes: Any, values: Sequence[float], label: str) -> None:
    """Draw how values spread, and their median; the wildest 1 % are gathered at the ends."""
    axes.set(xlabel=f"{label}; line: median", ylabel="crystals")
    axes.yaxis.get_major_locator().set_params(integer=True)
    if len(values) == 0:
        return
    low, high = np.percentile(values, [0.5, 99.5])
    axes.hist(np.clip(values, low, high), bins=min(BINS, max(5, len(values) // 3)))
    axes.axvline(float(np.median(values)), color="black", linewidth=0.8)


def parity(axes: Any, predicted: Sequence[float], reference: Sequence[float], label: str) -> None:
    """Draw predicted against reference values, and where they agree.

    Predictions off the scale are gathered at the edge, so that a few do not hide the others.
    """
    axes.set(xlabel=f"{label}, reference", ylabel=f"{label}, predicted")
    if len(reference) == 0:
        return
    low, high = np.percentile(reference, [0, 100])
    margin = 0.05 * (high - low) or 1.0
    box = (low - margin, high + margin)
    dots = {"s": 14, "alpha": 0.6, "linewidths": 0, "zorder": 3, "clip_on": False}
    axes.scatter(reference, np.clip(predicted, *box), **dots)
    axes.plot(box, box, color="black", linewidth=0.8)
    axes.set(xlim=box, ylim=box, aspect="equal")
