"""Rows of different lengths, one after the other in a flat array."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def starts(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Where each crystal's rows begin."""
    total = np.cumsum(counts, dtype=np.int64)
    return total - counts


def ranges(start: NDArray[np.int64], count: NDArray[Any]) -> NDArray[np.int64]:
    """Concatenate ``range(start, start + count)`` of every crystal."""
    count = np.asarray(count, dtype=np.int64)
    shift = np.repeat(start - (np.cumsum(count) - count), count)
    return np.arange(count.sum()) + shift
