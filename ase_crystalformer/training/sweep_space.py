"""What a sweep may choose: by entry of a recipe, values or a range."""

import tomllib
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from ase_crystalformer.errors import BadRecipe

RANGE = {"low", "high", "log"}

#: Entries, or tables of them, that change the validation loss or the crystals it is taken over.
JUDGED_BY = (
    *("denoise", "energy", "kinds", "loss", "targets", "weights", "data.directory", "data.fold"),
    *("data.hold_out", "data.largest", "data.largest_crystal", "data.packed", "data.source"),
)


def read_space(path: str | Path) -> dict[str, Any]:
    """Read what may be chosen: by entry of a recipe a list of values, or a range.

    Raises:
        BadRecipe: naming the entry that is neither, or that changes what runs are judged by.
    """
    try:
        told = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRecipe(f"{path} cannot be read as a TOML space: {error}") from error
    for key, choice in told.items():
        values = isinstance(choice, list) and choice
        if not (values or _is_range(choice)):
            raise BadRecipe(
                f"{path}: {key} = {choice!r} is no choice. Give values, [64, 128], or a range, "
                "{ low = 1e-4, high = 1e-2, log = true }, low not above high and above zero with "
                "log; names of entries stand in quotes."
            )
    if judging := [key for key in told if is_within(key, JUDGED_BY)]:
        raise BadRecipe(
            f"{path}: {', '.join(judging)} cannot be searched for, since runs are judged by their "
            "validation loss, which is another one, or of other crystals, for every value. Set it "
            "in the recipe, or by --set."
        )
    return told


def is_within(key: str, names: Sequence[str]) -> bool:
    """Say whether an entry is one of these, or in a table that is."""
    return any(f"{key.strip()}.".startswith(f"{name}.") for name in names)


def values_of(told: Any) -> list[Any]:
    """List what may be chosen; of a range, its ends."""
    return told if isinstance(told, list) else [told["low"], told["high"]]


def _is_range(choice: Any) -> bool:
    if not (isinstance(choice, dict) and {"low", "high"} <= set(choice) <= RANGE):
        return False
    low, high, log = choice["low"], choice["high"], choice.get("log", False)
    if not all(type(end) in (int, float) and isfinite(end) for end in (low, high)):
        return False
    return isinstance(log, bool) and low <= high and (low > 0 or not log)
