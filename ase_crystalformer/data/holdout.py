"""Set crystals aside for validation where the source has not."""

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ase_crystalformer.data.crystals import LabelledCrystal, Split

#: The part of a data set that is set aside.
FRACTION = 0.05


def split_by_name(name: str, seed: int, fraction: float = FRACTION) -> Split:
    """Choose the part from a name: one name, one part, whatever else there is."""
    draw = zlib.crc32(f"{seed}/{name}".encode()) / 2**32
    return "val" if draw < fraction else "train"


def split_by_block(
    frames: Iterable[LabelledCrystal],
    series: Callable[[LabelledCrystal], str],
    seed: int,
    fraction: float = FRACTION,
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
