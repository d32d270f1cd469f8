"""The study as a picture and as a table."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from programs import whole

from scaling.laws import Law, fit_law
from scaling.plan import SERIES, Plan, Run, runs_of
from scaling.runs import Point

#: Series -> (what is on the axis, entry of a point).
EFFORTS = {
    "size": ("parameters", "parameters"),
    "data": ("training crystals", "crystals"),
    "compute": ("seconds of training", "seconds"),
}
COLOURS = ("#0b6e99", "#d1603d", "#5b8c5a", "#7a5195")
MARKERS = ("o", "s", "^", "D")


def laws_of(
    plan: Plan, points: Sequence[Point], quantity: str, *, floor: bool = False
) -> dict[tuple[str, str], Law]:
    """Fit a law to each contender in each series, where there are enough points."""
    laws = {}
    for series in SERIES:
        for contender in plan.contenders:
            x, error = _curve(plan, points, series, contender.name, quantity)
            law = fit_law(x, error, floor=floor)
            if law is not None:
                laws[contender.name, series] = law
    return laws


def _curve(
    plan: Plan, points: Sequence[Point], series: str, contender: str, quantity: str
) -> tuple[Any, Any]:
    """Efforts and errors of one contender in one series, as far as they are done."""
    wanted = {run for run in runs_of(plan, series) if run.contender == contender}
    keys = Run.__dataclass_fields__
    found = [point for point in points if Run(**{key: point[key] for key in keys}) in wanted]
    x = np.array([point[EFFORTS[series][1]] for point in found], dtype=float)
    return x, np.array([point[quantity] for point in found], dtype=float)


def draw(
    plan: Plan,
    points: Sequence[Point],
    laws: dict[tuple[str, str], Law],
    path: Path,
    label: str,
    quantity: str,
) -> None:
    """Draw errors against size, data and compute, each point a run, with the fitted laws."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, series in zip(panels, SERIES, strict=True):
        for number, contender in enumerate(plan.contenders):
            x, error = _curve(plan, points, series, contender.name, quantity)
            colour, marker = COLOURS[number % 4], MARKERS[number % 4]
            style = {"color": colour, "marker": marker, "markeredgewidth": 0, "alpha": 0.8}
            axes.plot(x, error, linestyle="", markersize=7, label=contender.label, **style)
            law = laws.get((contender.name, series))
            if law:
                line = np.geomspace(x.min() / 1.15, x.max() * 1.15, 100)
                axes.plot(line, law(line), color=colour, linewidth=1.5)
            said = f"b = {law.b:.2f} ± {law.b_error:.2f}".replace("-", "−") if law else "b = ?"
            place = {"x": 0.98, "y": 0.97 - 0.075 * number, "ha": "right", "va": "top"}
            axes.text(s=said, color=colour, transform=axes.transAxes, **place)
        _dress(axes, EFFORTS[series][0])
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(low, high * (high / low) ** (0.09 * len(plan.contenders)))
    panels[0].set_ylabel(label)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    with whole(path) as partial:
        figure.savefig(partial, dpi=150)


def _dress(axes: Axes, effort: str) -> None:
    axes.set(xscale="log", yscale="log", xlabel=effort)
    for axis, digits in ((axes.xaxis, ",.0f"), (axes.yaxis, ",.3g")):
        low, high = axis.get_view_interval()
        steps = (1.0, 2.0, 5.0) if high > 10 * low else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set_major_formatter(FuncFormatter(lambda value, _, kind=digits: f"{value:{kind}}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major", color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def table(
    plan: Plan, points: Sequence[Point], laws: dict[tuple[str, str], Law], quantities: Sequence[str]
) -> str:
    """Write laws and means over seeds as Markdown."""
    rows = ["| contender | series | exponent b | runs |", "| --- | --- | --: | --: |"]
    labels = {contender.name: contender.label for contender in plan.contenders}
    for (name, series), law in laws.items():
        rows.append(
            f"| {labels[name]} | {series} | {law.b:.2f} ± {law.b_error:.2f} | {law.points} |"
        )
    heads = ["contender", "parameters", "crystals", "epochs", "seconds", *quantities]
    rows += ["", f"| {' | '.join(heads)} |", f"| --- |{' --: |' * (len(heads) - 1)}"]
    groups: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        keys = ("contender", "parameters", "crystals", "epochs")
        groups.setdefault(tuple(point[key] for key in keys), []).append(point)
    order = [contender.name for contender in plan.contenders]
    for key in sorted(groups, key=lambda key: (order.index(key[0]), key[1:])):
        group = groups[key]
        means = [np.mean([point[name] for point in group]) for name in ("seconds", *quantities)]
        cells = [labels[key[0]], f"{key[1]:,}", f"{key[2]:,}", f"{key[3]}", f"{means[0]:.0f}"]
        rows.append(f"| {' | '.join([*cells, *(f'{mean:.4f}' for mean in means[1:])])} |")
    return "\n".join(rows) + "\n"


def plain_laws(laws: dict[tuple[str, str], Law]) -> list[dict[str, Any]]:
    """Write laws as plain values, for JSON."""
    return [
        {"contender": name, "series": kind, **asdict(law)} for (name, kind), law in laws.items()
    ]
