"""A page and a picture of a screening: how many were left, what they are like, the best drawn."""

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from ase_crystalformer.writing import whole

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

MOST_COLUMNS = 5
"""Distributions that are drawn beside the counts."""

_PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Screening: $title</title>
<style>
body { font: 15px/1.45 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: .2em .8em; text-align: right; }
tr:nth-child(even) { background: #f3f3f3; } td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; } pre { background: #f3f3f3; padding: 1em; overflow-x: auto; }
</style></head><body>
<h1>Screening: $title</h1>
<p>$summary</p>$remarks
<img alt="Counts, distributions, first candidates" src="data:image/png;base64,$picture">
<h2>Stages</h2>$stages
<h2>First candidates</h2>$top
<h2>Failures</h2>$failures
<h2>Settings</h2><pre>$settings</pre>
</body></html>
""")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a report tells.

    Attributes:
        title: Of the page.
        stages: One row per stage: how many passed, were left out, failed.
        selected: Rows of the selected candidates, the best first.
        numbers: Column to its values over all candidates that went through.
        units: Unit of each column that has one.
        top: The first of the selected, drawn: name and structure.
        failures: Reason to how often.
        settings: As text.
        remarks: What to keep in mind of the numbers; nothing if empty.
    """

    title: str
    stages: "DataFrame"
    selected: "DataFrame"
    numbers: dict[str, Any]
    units: dict[str, str]
    top: list[tuple[str, "Atoms"]]
    failures: dict[str, int]
    settings: str
    remarks: str = ""


def write_report(folder: Path, found: Findings) -> None:
    """Write ``report.png`` and ``report.html``; each appears complete or not at all."""
    buffer = io.BytesIO()
    draw(found).savefig(buffer, dpi=110, format="png")
    _put(folder / "report.png", buffer.getvalue())
    shown = found.selected.head(max(len(found.top), 1))
    unit = found.units
    shown = shown.rename(columns={key: f"{key} ({unit[key]})" for key in shown if key in unit})
    page = _PAGE.substitute(
        title=html.escape(found.title),
        summary=f"{found.stages.iloc[0].drop('stage').sum():,} candidates, "
        f"{len(found.selected):,} selected.",
        remarks=f"<p>{html.escape(found.remarks)}</p>" if found.remarks else "",
        picture=base64.b64encode(buffer.getvalue()).decode(),
        stages=found.stages.to_html(index=False, border=0),
        top=shown.to_html(index=False, border=0, float_format="{:.4g}".format, na_rep="–"),
        failures=_list(found.failures),
        settings=html.escape(found.settings),
    )
    _put(folder / "report.html", page.encode())


def draw(found: Findings) -> "Figure":
    """Draw counts, distributions, and the first of the selected."""
    from matplotlib.figure import Figure

    drawn = [name for name, values in found.numbers.items() if len(values)][:MOST_COLUMNS]
    rows = -(-len(found.top) // 6)
    figure = Figure(figsize=(13, 6.2 + 2.4 * rows), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[6.2, max(2.4 * rows, 0.01)])
    axes = parts[0].subplots(2, 3).flat
    _draw_counts(next(axes), found.stages)
    for name in drawn:
        _draw_distribution(next(axes), name, found)
    for unused in axes:
        unused.axis("off")
    if found.top:
        _draw_structures(parts[1].subplots(rows, 6, squeeze=False).flat, found.top)
    return figure


def _draw_counts(axes: "Axes", stages: "DataFrame") -> None:
    places = range(len(stages), 0, -1)
    left = [0] * len(stages)
    for outcome, colour in (("passed", "tab:blue"), ("left out", "0.75"), ("failed", "tab:red")):
        counts = stages[outcome].tolist()
        axes.barh(places, counts, left=left, color=colour, label=outcome)
        left = [one + other for one, other in zip(left, counts, strict=True)]
    axes.set_yticks(list(places), stages["stage"].tolist())
    axes.set_xlabel("candidates")
    axes.legend(loc="lower right", fontsize="small", frameon=False)


def _draw_distribution(axes: "Axes", name: str, found: Findings) -> None:
    values = found.numbers[name]
    edges = axes.hist(values, bins=40, color="0.75", label="all relaxed")[1].tolist()
    chosen = found.selected[name].dropna()
    if len(chosen):
        axes.hist(chosen, bins=edges, color="tab:blue", label="selected")
    unit = f" ({found.units[name]})" if name in found.units else ""
    axes.set_xlabel(name.replace("_", " ") + unit)
    axes.set_ylabel("candidates")
    axes.legend(loc="upper right", fontsize="small", frameon=False)


def _draw_structures(places: Any, top: list[tuple[str, "Atoms"]]) -> None:
    from ase.visualize.plot import plot_atoms

    for axes in places:
        axes.axis("off")
    for axes, (name, atoms) in zip(places.base.flat, top, strict=False):
        plot_atoms(atoms, axes, radii=0.4, rotation="10x,-15y")
        axes.set_title(name, fontsize="small")


def _list(failures: dict[str, int]) -> str:
    if not failures:
        return "<p>None.</p>"
    items = [f"<li>{count:,} × {html.escape(reason)}</li>" for reason, count in failures.items()]
    return f"<ul>{''.join(items)}</ul>"


def _put(path: Path, content: bytes) -> None:
    with whole(path) as partial:
        partial.write_bytes(content)
