"""Honest timing: contenders that agree take turns, round after round, in one process."""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

LIBRARIES = ("torch", "numpy", "ase", "pymatgen", "vesin", "matminer")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much work a benchmark is.

    Attributes:
        small: Take the smallest workload only.
        rounds: Turns of every contender after the warm-up.
        seconds: A contender repeats its work within a turn until about this much has passed.
    """

    small: bool
    rounds: int
    seconds: float


FULL = Effort(small=False, rounds=7, seconds=0.2)
QUICK = Effort(small=True, rounds=1, seconds=0.0)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to do the work.

    Attributes:
        name: What the table calls it.
        run: Does the work once.
        read: Turns what ``run`` returns into numbers that all ways must agree on; ``None`` where
            this way computes something else.
        items: What is done in one run, as (number, plural), for a rate per second.
    """

    name: str
    run: Callable[[], Any]
    read: Callable[[Any], NDArray[np.float64]] | None = None
    items: tuple[int, str] | None = None


class Ratio(NamedTuple):
    """Median, least and largest of the ratios of all rounds."""

    median: float
    least: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of one way.

    Attributes:
        case: The work.
        way: The way it was done.
        threads: Threads of torch and of every library under numpy.
        rounds: Turns it had.
        wall_ms: Median duration of one run.
        cpu_ms: Median time of all threads of the process in one run.
        wall_ratio: Duration over that of the first way, in the same round.
        cpu_ratio: Likewise, of the time of all threads.
        rate: Items per second of wall time.
        difference: Largest difference from the first way, relative to the largest number.
    """

    case: str
    way: str
    threads: int
    rounds: int
    wall_ms: float
    cpu_ms: float
    wall_ratio: Ratio
    cpu_ratio: Ratio
    rate: str
    difference: float | None


class Disagreement(AssertionError):
    """Two ways give different numbers: there is nothing to compare."""


def compare(
    case: str, ways: Sequence[Way], effort: Effort, *, tolerance: float, threads: int = 1
) -> list[Row]:
    """Time ways of doing the same work against the first of them.

    Every way runs once to be checked and once to choose how often it repeats; neither is counted.
    Then they take turns: A B C, A B C, and so on.

    Args:
        case: The work, in words.
        ways: Contenders.
        effort: How long.
        tolerance: Largest difference between ways, relative to the largest number.
        threads: Of torch and of every library under numpy.

    Raises:
        Disagreement: A way differs from the first by more than ``tolerance``.
    """
    with limited_threads(threads):
        differences = check_agreement(case, ways, tolerance)
        calls = [_calls(way.run, effort.seconds) for way in ways]
        samples = np.array(
            [
                [_measure(way.run, count) for way, count in zip(ways, calls, strict=True)]
                for _ in range(effort.rounds)
            ]
        )
    return [
        _row(case, way, threads, samples[:, number], samples[:, 0], differences[way.name])
        for number, way in enumerate(ways)
    ]


def take_turns(case: str, ways: Sequence[Way], rounds: int, *, threads: int = 1) -> list[Row]:
    """Time long work whose results differ by their nature: no check, no warm-up, no repeats.

    Args:
        case: The work, in words.
        ways: Contenders.
        rounds: Turns of each.
        threads: Of torch and of every library under numpy.
    """
    with limited_threads(threads):
        samples = np.array([[_measure(way.run, 1) for way in ways] for _ in range(rounds)])
    return [
        _row(case, way, threads, samples[:, number], samples[:, 0], None)
        for number, way in enumerate(ways)
    ]


def check_agreement(case: str, ways: Sequence[Way], tolerance: float) -> Mapping[str, float | None]:
    """Run every way once; return how far it is from the first.

    Raises:
        Disagreement: A way differs from the first by more than ``tolerance``.
    """
    found: dict[str, float | None] = {}
    results = {way.name: way.run() for way in ways}
    numbers = {way.name: way.read(results[way.name]) for way in ways if way.read is not None}
    for way in ways:
        if way is ways[0] or way.read is None:
            found[way.name] = None
            continue
        given, expected = numbers[way.name], numbers[ways[0].name]
        difference = _difference(given, expected)
        if not difference <= tolerance:
            raise Disagreement(
                f"{case}: {way.name!r} differs from {ways[0].name!r} by {difference:.1e} of the "
                f"largest number, shapes {given.shape} and {expected.shape}; at most "
                f"{tolerance:.0e} is allowed. Not timed."
            )
        found[way.name] = difference
    return found


def _difference(given: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    if given.shape != expected.shape:
        return float("inf")
    return float(np.abs(given - expected).max(initial=0.0) / np.abs(expected).max(initial=1e-300))


def _calls(run: Callable[[], Any], seconds: float) -> int:
    """Return how often to repeat a run to fill about ``seconds``."""
    wall, _ = _measure(run, 1)
    return max(1, round(seconds / wall))


def _measure(run: Callable[[], Any], calls: int) -> tuple[float, float]:
    """Wall and processor time of one run in seconds, averaged over ``calls``."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        run()
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls


def _row(
    case: str,
    way: Way,
    threads: int,
    own: NDArray[np.float64],
    first: NDArray[np.float64],
    difference: float | None,
) -> Row:
    wall, cpu = np.median(own, axis=0).tolist()
    wall_ratio, cpu_ratio = (_ratio(column) for column in (own / np.maximum(first, 1e-9)).T)
    number, plural = way.items or (0, "")
    return Row(
        case=case,
        way=way.name,
        threads=threads,
        rounds=len(own),
        wall_ms=1e3 * wall,
        cpu_ms=1e3 * cpu,
        wall_ratio=wall_ratio,
        cpu_ratio=cpu_ratio,
        rate=f"{number / wall:,.0f} {plural}/s" if way.items else "",
        difference=difference,
    )


def _ratio(values: NDArray[np.float64]) -> Ratio:
    return Ratio(median(values.tolist()), float(values.min()), float(values.max()))


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Let torch, BLAS and OpenMP use ``count`` threads, and give back what they had."""
    before = torch.get_num_threads()
    with threadpool_limits(count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def machine() -> dict[str, Any]:
    """Say what the numbers depend on and nobody can see in them."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
