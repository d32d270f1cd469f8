"""Results as JSON, kept per benchmark with machine and date, and as a markdown table."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.timing import Row

HEADER = (
    "case",
    "threads",
    "way",
    "wall ms",
    "cpu ms",
    "x first, wall",
    "x first, cpu",
    "rate",
    "differs",
)

ABOUT = """\
Ways of doing the same work took turns in one process. "x first" is the time of a way over that of
the first way of its case, in the same round: median (least-largest) of all rounds; above 1, the
first way is faster. "cpu" counts all threads of the process. "differs" is the largest difference
from the numbers of the first way, relative to the largest number; blank where something else is
computed. Compare ratios, not milliseconds.
"""


def entry(rows: Iterable[Row], machine: Mapping[str, Any], date: str) -> dict[str, Any]:
    """Describe one benchmark: where, when, and what was measured."""
    return {"date": date, "machine": dict(machine), "rows": [asdict(row) for row in rows]}


def markdown(
    results: Mapping[str, Mapping[str, Any]], title: str = "Benchmarks", about: str = ABOUT
) -> str:
    """Write all results as tables, one per benchmark."""
    return "\n".join([f"# {title}", "", about, *map(_section, results, results.values())])


def _section(name: str, told: Mapping[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in told["machine"].items())
    lines = [HEADER, ["---"] * len(HEADER), *map(_cells, told["rows"])]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"## {name}\n\n{told['date']}; {facts}\n\n{table}\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    difference = row["difference"]
    return [
        row["case"],
        str(row["threads"]),
        row["way"],
        f"{row['wall_ms']:.3g}",
        f"{row['cpu_ms']:.3g}",
        _ratio(row["wall_ratio"]),
        _ratio(row["cpu_ratio"]),
        row["rate"],
        "" if difference is None else f"{difference:.0e}",
    ]


def _ratio(values: tuple[float, float, float]) -> str:
    median, least, largest = values
    return f"{median:.2f} ({least:.2f}-{largest:.2f})"


def write(results: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write ``results.json`` and ``results.md``; benchmarks that did not run keep what they had."""
    merged = merge(results, folder / "results.json")
    (folder / "results.md").write_text(markdown(merged), encoding="utf-8")
    return merged


def merge(results: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Write results into a JSON file; benchmarks that did not run keep what they had there."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    merged = {**before, **results}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
    return merged
