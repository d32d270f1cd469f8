"""How the learning rate goes, as a share of its peak: a rise, then a fall.

Every schedule takes a step, the number of all steps, and the share of them in which the rate rises.
"""

import math
from collections.abc import Callable

#: The rate of ``cosine`` never falls below this share of its peak.
LEAST_RATE = 1e-4

#: Steps in which the rate of ``inverse-sqrt`` falls to 0.71 of its peak.
TO_ROOT_HALF = 4000

#: Where the rate of ``onecycle`` begins and ends.
CYCLE_START, CYCLE_END = 1 / 25, 1 / 250_000


def cosine(step: int, steps: int, warmup: float) -> float:
    """A linear rise, then half a cosine (I. Loshchilov, F. Hutter, arXiv:1608.03983)."""
    rise = _rise(steps, warmup)
    if step < rise:
        return (step + 1) / rise
    done = min((step - rise) / max(1, steps - rise), 1.0)
    return max(LEAST_RATE, 0.5 * (1 + math.cos(math.pi * done)))


def inverse_sqrt(step: int, steps: int, warmup: float) -> float:
    r"""A linear rise, then :math:`\sqrt{4000 / (4000 + t)}` after t more steps.

    Source: Crystalformer, arXiv:2403.11686, there without a rise: ``warmup = 0``.
    """
    rise = _rise(steps, warmup)
    if step < rise:
        return (step + 1) / rise
    return math.sqrt(TO_ROOT_HALF / (TO_ROOT_HALF + step - (rise if warmup else 0)))


def constant(step: int, steps: int, warmup: float) -> float:
    """A linear rise, and no fall."""
    return min(1.0, (step + 1) / _rise(steps, warmup))


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """Half a cosine up and another down, as torch's ``OneCycleLR`` without cycled momentum.

    Source: L. N. Smith, N. Topin, arXiv:1708.07120. ComFormer has it, with ``warmup = 0.3``.
    """
    top, end = warmup * steps - 1, steps - 1
    if step <= top:
        return _between(CYCLE_START, 1.0, step / top if top else 1.0)
    return _between(1.0, CYCLE_END, min((step - top) / (end - top), 1.0))


def _rise(steps: int, warmup: float) -> int:
    return max(1, int(warmup * steps))


def _between(start: float, stop: float, done: float) -> float:
    """Go along half a cosine."""
    return stop + (start - stop) * 0.5 * (1 + math.cos(math.pi * done))


#: Schedules by the name a recipe gives.
SCHEDULES: dict[str, Callable[[int, int, float], float]] = {
    "cosine": cosine,
    "onecycle": one_cycle,
    "inverse-sqrt": inverse_sqrt,
    "constant": constant,
}
