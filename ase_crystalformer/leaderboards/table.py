"""A table of runs beside what was published: markdown, JSON, CSV and a picture."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ase_crystalformer.data.official import FOLDS
from ase_crystalformer.leaderboards.folder import put
from ase_crystalformer.leaderboards.summary import Row

HEAD = (
    *("data", "property", "model", "ours", "published", "judged by"),
    *("folds", "seeds", "hours", "hardware", "commit"),
)


def markdown(rows: Sequence[Row]) -> str:
    """Write a table for people; what is not complete says so."""
    lines = [
        list(HEAD),
        ["---", "---", "---", "--:", "---", "---", "---", "--:", "--:", *["---"] * 2],
    ]
    lines += [_cells(row) for row in rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = [f"Not finished: {', '.join(row.unfinished)}." for row in rows if row.unfinished]
    notes += [f"No value: {'; '.join(row.flaws)}." for row in rows if row.flaws]
    return "\n\n".join([table, *notes]) + "\n"


def _cells(row: Row) -> list[str]:
    told = row.target if row.metric == "mae" else f"{row.target}, ROC-AUC"
    return [
        row.data,
        told,
        row.model,
        ours(row),
        _published(row) or "–",
        _judged_by(row),
        _folds(row),
        str(len(row.seeds)),
        f"{row.hours:.2g}",
        "; ".join(row.hardware) or "–",
        ", ".join(row.commits) or "–",
    ]


def ours(row: Row) -> str:
    """Tell the value with its spreads and unit, if there is one."""
    if row.value is None:
        return "–"
    told = f"{row.value:.4g}"
    if row.over_folds is not None:
        told += f" ± {row.over_folds:.2g}"
    if row.over_seeds is not None:
        told += f" (seeds ± {row.over_seeds:.1g})"
    return told if row.unit == "1" else f"{told} {row.unit}"


def _beside(one: Any) -> str:
    spread = "" if one.spread is None else f" ± {one.spread:g}"
    return f"{one.by} {one.value:g}{spread}"


def _published(row: Row) -> str:
    """Tell what others reached, and once on what, where that is the same."""
    places = {one.on for one in row.published}
    if len(places) == 1 and (place := places.pop()):
        return f"{'; '.join(map(_beside, row.published))} ({place})"
    return "; ".join(
        f"{_beside(one)} ({one.on})" if one.on else _beside(one) for one in row.published
    )


def _judged_by(row: Row) -> str:
    """Tell which part judged, and whether it lacks labels of the official one."""
    told = f"{row.part}, {row.n:,}"
    lacking = row.part == "test" and row.official is not None and row.n < row.official
    return f"{told} of {row.official:,}" if lacking else told


def _folds(row: Row) -> str:
    if not row.folds:
        return "–"
    return f"{FOLDS}" if row.complete else f"{len(row.folds)} of {FOLDS} folds"


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Write rows as plain values."""
    return [{**asdict(row), "complete": row.complete} for row in rows]


def _json(rows: Sequence[Row]) -> str:
    return json.dumps(plain(rows), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def comma_separated(rows: Sequence[Row]) -> str:
    """Write rows for a spreadsheet; lists are joined by semicolons."""
    text = io.StringIO()
    names = [entry.name for entry in fields(Row)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        told = asdict(row)
        told["published"] = [_beside(one) for one in row.published]
        writer.writerow(
            {
                name: "; ".join(map(str, value)) if isinstance(value, list | tuple) else value
                for name, value in told.items()
            }
        )
    return text.getvalue()


def write_table(rows: Sequence[Row], out: Path) -> None:
    """Write ``table.md``, ``table.json``, ``table.csv``, and a picture where others published.

    Where nobody did, a picture of an earlier table is removed.

    Args:
        rows: Of the table.
        out: A folder; made if it is not there.
    """
    from ase_crystalformer.leaderboards.table_plot import draw

    put(out / "table.md", markdown(rows).encode())
    put(out / "table.json", _json(rows).encode())
    put(out / "table.csv", comma_separated(rows).encode())
    if not draw(rows, out / "table.png"):
        (out / "table.png").unlink(missing_ok=True)
