"""Which crystals a model learns from, and which it is measured on."""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from logging import getLogger

import numpy as np

from ase_crystalformer.data.crystals import LabelledCrystal, Split
from ase_crystalformer.data.official import FOLDS
from ase_crystalformer.errors import BadRecipe

#: The part of a data set that is set aside for validation.
FRACTION = 0.05

#: Of fewer names, that fraction is none.
ENOUGH = 20

#: How files say that a row is in no fold.
NO_FOLD = ("", "none", "nan", "<na>", "null")

_LOG = getLogger(__name__)


def split_by_name(name: str, seed: int, fraction: float = FRACTION) -> Split:
    """Choose the part from a name: one name, one part, whatever else there is.

    Seeds are not independent here. CRC is linear: among names of one length, what two seeds draw
    differs by one constant in all of them, so that their validation parts are disjoint or nearly
    the same, and a second choice among what a first left is biased. Use :func:`drawn` for such.
    This one stays as it is, for parts of the bundled models rest on it.
    """
    place = zlib.crc32(f"{seed}/{name}".encode()) / 2**32
    return "val" if place < fraction else "train"


def draw(name: str, seed: int) -> float:
    """Draw a number from 0 to 1 for a name; those of two names or two seeds are independent."""
    return float(np.random.default_rng([seed, zlib.crc32(name.encode())]).random())


def drawn(name: str, seed: int, fraction: float) -> bool:
    """Choose a fraction of names, independently of every choice by another seed or function."""
    return draw(name, seed) < fraction


def keyed(crystals: Iterable[LabelledCrystal]) -> Iterator[tuple[LabelledCrystal, str]]:
    """Pair crystals with the names that their parts are chosen by, in their order.

    Those are their own: rows of one name share a part. Of a file with many rows and too few names
    to choose from, the row's number joins the name, and a warning tells so. Until there are enough
    names, rows are held in memory.
    """
    stream = iter(crystals)
    first: list[LabelledCrystal] = []
    names: set[str] = set()
    while len(names) < ENOUGH and (crystal := next(stream, None)) is not None:
        first.append(crystal)
        names.add(crystal.id)
    if len(names) == ENOUGH or len(names) == len(first):
        yield from ((crystal, crystal.id) for crystal in chain(first, stream))
        return
    if any(crystal.split is None for crystal in first):
        _LOG.warning(
            "The %d rows of %s have %d names, e.g. %r: their parts are chosen row by row. Add a "
            "column id with a name for every crystal, or a column split, to have it otherwise.",
            *(len(first), first[0].source, len(names), first[0].id),
        )
    yield from ((crystal, f"{crystal.id}#{number}") for number, crystal in enumerate(first))


def split_by_block(
    frames: Iterable[LabelledCrystal], seed: int, fraction: float = FRACTION
) -> Iterator[LabelledCrystal]:
    """Set aside one run of consecutive frames of each series.

    Neighbours in time are nearly the same crystal, so frames drawn singly would measure memory.
    """
    by_series: dict[str, list[LabelledCrystal]] = defaultdict(list)
    for frame in frames:
        by_series[series(frame)].append(frame)
    for name, members in by_series.items():
        length = round(fraction * len(members))
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        start = int(generator.integers(len(members) - length + 1))
        for number, frame in enumerate(members):
            held_out = start <= number < start + length
            yield frame.in_split("val" if held_out else "train")


def split_by_series(
    frames: Iterable[LabelledCrystal], seed: int, fraction: float = FRACTION
) -> Iterator[LabelledCrystal]:
    """Set aside whole series, e.g. all volumes of a crystal."""
    for frame in frames:
        yield frame.in_split(split_by_name(series(frame), seed, fraction))


def split_by_fold(
    crystals: Iterable[LabelledCrystal],
    fold: int,
    *,
    seed: int,
    key: str = "fold_test",
    fraction: float = FRACTION,
) -> Iterator[LabelledCrystal]:
    """Follow MatBench: the rows of one official fold are the test, the others are learned from.

    A seeded fraction of the others is set aside for validation. Rows without a fold are left out.

    Args:
        crystals: Rows of a MatBench set.
        fold: 0 to 4.
        seed: Chooses the rows for validation.
        key: Which of the source's remarks holds the fold in which a row is tested.
        fraction: Set aside for validation.

    Raises:
        BadRecipe: A row is of a fold that MatBench does not have, or none is of this one.
    """
    folds: set[int] = set()
    for crystal, name in keyed(crystals):
        told = crystal.info.get(key, "").strip()
        if told.lower() not in NO_FOLD:
            number = _number(told, crystal.id)
            folds.add(number)
            tested = number == fold
            yield crystal.in_split("test" if tested else split_by_name(name, seed, fraction))
    if folds and fold not in folds:
        raise BadRecipe(
            f"No row is of fold {fold}, so that nothing would be tested; there are rows of "
            f"{', '.join(map(str, sorted(folds)))}. Folds count from 0."
        )


def _number(told: str, name: str) -> int:
    """Read a fold; pandas writes 0.0 where another row has none."""
    try:
        number = float(told)
    except ValueError:
        number = -1.0
    if number not in range(FOLDS):
        raise BadRecipe(
            f"{name} is said to be of fold {told!r}. Write 0 to {FOLDS - 1}, counted from 0, or "
            "nothing to leave it out."
        )
    return int(number)


def series(frame: LabelledCrystal) -> str:
    """Name of the run a frame belongs to: its own without the last part."""
    return frame.id.rpartition("/")[0]
