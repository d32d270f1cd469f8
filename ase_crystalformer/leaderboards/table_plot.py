"""Runs beside the best number published, as ratios."""

from collections.abc import Sequence
from pathlib import Path

from ase_crystalformer.leaderboards.summary import Row
from ase_crystalformer.writing import whole


def draw(rows: Sequence[Row], path: Path) -> bool:
    """Draw errors in units of the best published one; bars are spreads over folds, or over seeds.

    Returns:
        Whether there was anything to draw: an error that somebody published a number beside.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [
        (row, row.value)
        for row in rows
        if row.published and row.metric == "mae" and row.value is not None
    ]
    if not shown:
        return False
    figure = Figure(figsize=(7, 1.2 + 0.4 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, (row, value) in enumerate(reversed(shown)):
        best = row.published[0].value
        spread = row.over_folds or row.over_seeds or 0.0
        axes.errorbar(value / best, place, xerr=spread / best, fmt="o", color="C0", capsize=3)
        for one in row.published:
            axes.plot(one.value / best, place, "|", color="C1", markersize=12)
    axes.axvline(1, color="0.8", zorder=0)
    axes.set_yticks(
        range(len(shown)), [f"{row.target}\n{row.data}, {row.model}" for row, _ in reversed(shown)]
    )
    axes.tick_params(axis="y", labelsize="small")
    axes.set_xlabel("error / best published one (strokes: all published)")
    with whole(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
    return True
