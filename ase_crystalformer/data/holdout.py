"""Which crystals a model learns from, and which it is measured on."""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from ase_crystalformer.data.crystals import LabelledCrystal, Split
from ase_crystalformer.errors import BadRecipe

#: The part of a data set that is set aside for validation.
FRACTION = 0.05

#: How files say that a row is in no fold.
NO_FOLD = ("", "none", "nan", "<na>", "null")


def split_by_name(name: str, seed: int, fraction: float = FRACTION) -> Split:
    """Choose the part from a name: one name, one part, whatever else there is."""
    draw = zlib.crc32(f"{seed}/{name}".encode()) / 2**32
    return "val" if draw < fraction else "train"


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
    """
    for crystal in crystals:
        told = crystal.info.get(key, "").strip()
        if told.lower() not in NO_FOLD:
            tested = _number(told, crystal.id) == fold
            yield crystal.in_split("test" if tested else split_by_name(crystal.id, seed, fraction))


def _number(told: str, name: str) -> float:
    """Read a fold; pandas writes 0.0 where another row has none."""
    try:
        return float(told)
    except ValueError as error:
        raise BadRecipe(
            f"{name} is said to be of fold {told!r}. Write 0 to 4, or nothing to leave it out."
        ) from error


def series(frame: LabelledCrystal) -> str:
    """Name of the run a frame belongs to: its own without the last part."""
    return frame.id.rpartition("/")[0]
