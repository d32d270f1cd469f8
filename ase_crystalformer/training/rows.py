"""Rows of a published table: one recipe file, one run for each row and fold.

A recipe may end in tables ``[rows.NAME]``. A row is a piece of recipe that is laid over the rest:
tables are laid over tables, anything else replaces what was there. What comes out is an ordinary
recipe of one run.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from ase_crystalformer.errors import BadRecipe, unknown_name


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Published:
    """A number that somebody published for the same task.

    Attributes:
        by: The model.
        value: Mean over folds, if there are any.
        unit: Of the value.
        target: The property; may be left out where a recipe has one alone.
        metric: ``mae``, mean absolute error; or ``rocauc``, area under the curve.
        spread: Standard deviation over folds.
        on: Which part of which data.
        source: Where it is published.
    """

    by: str
    value: Annotated[float, Field(gt=0)]
    unit: str
    target: str | None = None
    metric: Literal["mae", "rocauc"] = "mae"
    spread: Annotated[float, Field(gt=0)] | None = None
    on: str = ""
    source: str


def choose_row(told: dict[str, Any], row: str | None, path: Path) -> dict[str, Any]:
    """Lay a row over the rest of a recipe.

    Args:
        told: The recipe as read.
        row: Which one; None where there are no rows.
        path: The file, for messages.

    Raises:
        BadRecipe: A row is named and there are none, or the other way round.
        UnknownName: There is no such row.
    """
    rest = {key: value for key, value in told.items() if key != "rows"}
    rows = told.get("rows")
    if rows is None and row is None:
        return rest
    if not isinstance(rows, dict) or not all(isinstance(one, dict) for one in rows.values()):
        raise BadRecipe(f"{path} has no tables [rows.NAME]. Leave --row out, or write some.")
    if row is None:
        raise BadRecipe(f"{path} holds several runs. Choose one: --row {' | '.join(rows)}.")
    if row not in rows:
        raise unknown_name(f"row in {path}", row, rows)
    return _laid_over(rest, rows[row])


def names_of(told: dict[str, Any]) -> tuple[Any, Any]:
    """Find the name of the run and ``data.packed`` in what may be no recipe yet."""
    data = told.get("data")
    return told.get("name"), data.get("packed") if isinstance(data, dict) else None


def name_run(
    told: dict[str, Any], stem: str, row: str | None, names: tuple[Any, Any], fold: int | None
) -> None:
    """Give a run a name that no other row, fold or seed has, and its packed set one of its fold.

    The name is that of the recipe, or of its file, with row, fold and seed (unless 0) behind it;
    row and fold are put behind ``data.packed``, too, and all seeds of a fold share that set, and
    with it the crystals that judge. What an override names stays, but for the fold that is asked
    for: all folds are given the same overrides.

    Args:
        told: The recipe of one run; changed.
        stem: Name of the file.
        row: Which row it is, if any.
        names: What ``names_of`` found before any override.
        fold: The official fold asked for, if any.
    """
    name, packed = names_of(told)
    data = told.get("data")
    parts = [] if row is None else [row]
    asked = [] if fold is None else [f"fold-{fold}"]
    if isinstance(data, dict):
        if fold is not None:
            data["fold"] = fold
        if (row is not None or fold is not None) and data.get("fold") is not None:
            parts.append(f"fold-{data['fold']}")
        if isinstance(packed, str):
            data["packed"] = "-".join([packed, *(parts if packed == names[1] else asked)])
    if name == names[0]:
        seed = [f"seed-{told['seed']}"] if parts and told.get("seed") else []
        told["name"] = "-".join([str(name or stem), *parts, *seed])
    elif asked:
        told["name"] = "-".join([str(name), *asked])


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay tables over tables; anything else replaces what was there."""
    laid = dict(below)
    for key, value in above.items():
        under = laid.get(key)
        if isinstance(value, dict) and isinstance(under, dict):
            laid[key] = _laid_over(under, value)
        else:
            laid[key] = value
    return laid
