"""Entries of a file that should be labels and are no numbers: told, with an example."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from logging import getLogger
from math import isfinite

from ase_crystalformer.data.crystals import LabelledCrystal

#: How files say that a row has no such label.
BLANK = frozenset(("", "nan", "none", "null", "na", "n/a", "<na>", "-", "–"))

#: Labels that are no single number.
ARRAYS = ("forces", "stress")

_LOG = getLogger(__name__)


def tell_unread(
    crystals: Iterable[LabelledCrystal], wanted: Collection[str], source: str
) -> Iterator[LabelledCrystal]:
    """Pass crystals on; at their end, warn of wanted labels that could not be read, once of each.

    Args:
        crystals: Of a file or a data set.
        wanted: Names of labels.
        source: What to call it.
    """
    often: Counter[str] = Counter()
    example: dict[str, str] = {}
    for crystal in crystals:
        for name in wanted:
            if told := unread(crystal, name):
                often[name] += 1
                example.setdefault(name, f"{told!r} of {crystal.id}")
        yield crystal
    for name, number in often.items():
        what = "array" if name in ARRAYS else "finite number"
        _LOG.warning(
            "%s: %s is no %s, and so no label, in %d of the rows, e.g. %s.",
            *(source, name, what, number, example[name]),
        )


def unread(crystal: LabelledCrystal, name: str) -> str:
    """Tell what stands where a label should be and is none; nothing, if nothing stands there."""
    told = crystal.info.get(name, "").strip()
    if name in crystal.labels or told.lower() in BLANK:
        return ""
    return told if name in ARRAYS or not _is_number(told) else ""


def _is_number(told: str) -> bool:
    try:
        return isfinite(float(told))
    except ValueError:
        return False
