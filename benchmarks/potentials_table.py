"""What contenders measured on the same crystals: averages, their errors, and who is worse."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from ase_crystalformer.assessment import BENCHMARKS
from ase_crystalformer.assessment.benchmark import ALL, Benchmark
from ase_crystalformer.assessment.run import SETTINGS, read_rows

#: Draws of crystals with replacement, of which errors of averages and verdicts are taken.
DRAWS = 400

#: Of so many draws a contender must be the worse one to be called so.
SURE = 0.975

#: Fewer crystals tell nothing of the spread.
FEWEST = 5
FEW = "too few"

#: What stands where numbers cannot be compared.
SCALE = "other scale"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A statistic that is shown.

    Attributes:
        name: Of the benchmark.
        more: Whether more is better.
        goal: What is to be reached, in words.
        dft: Statistic that holds what DFT has on average.
        other_scale: Whose numbers cannot be compared, since they stand on another scale.
    """

    name: str
    more: bool = False
    goal: str = ""
    dft: str = ""
    other_scale: tuple[str, ...] = ()


LINES = {
    "relaxation": (
        Line(name="converged", more=True, goal="98"),
        Line(name="structure kept", more=True),
        Line(name="distance, mean, 1 if lost"),
        Line(name="volume error, median absolute", goal="3"),
        Line(name="volume error, mean absolute"),
        Line(name="energy error, mean absolute", other_scale=("CHGNet",)),
        Line(name="steps, median"),
    ),
    "elasticity": (
        Line(name="bulk modulus error, mean absolute", goal="25", dft="bulk modulus of DFT, mean"),
        Line(name="shear modulus error, mean absolute", dft="shear modulus of DFT, mean"),
        Line(name="stable", more=True),
        Line(name="converged", more=True),
    ),
    "equation-of-state": (
        Line(name="V0 within 3 %", more=True, goal="90"),
        Line(name="V0 error, median absolute"),
        Line(name="B0 error, median absolute"),
        Line(name="ν, median"),
        Line(name="ε, median"),
    ),
    "heat-capacity": (
        Line(
            name="heat capacity error, mean absolute",
            goal="15 % of DFT",
            dft="heat capacity of DFT, mean",
        ),
        Line(name="without imaginary modes", more=True),
    ),
    "forces": (
        Line(name="force MAE over mean force, mean of sets"),
        Line(name="force MAE", dft="force, mean of labels"),
        Line(name="stress MAE", dft="stress, mean of labels"),
    ),
    "dynamics": (
        Line(name="drift, mean absolute", goal="0.1"),
        Line(name="wander, mean"),
        Line(name="exploded", goal="0"),
    ),
    "mlearn": (
        Line(name="energy MAE"),
        Line(name="force MAE", dft="force, mean of labels"),
    ),
}

#: Benchmarks whose groups of one element are shown.
BY_ELEMENT = {"mlearn"}

Key = tuple[str, str]


def compare(title: str, results: Path, names: Sequence[str]) -> dict[str, Any]:
    """Sum up what all contenders measured in a benchmark, on the crystals that all have done.

    Args:
        title: Of the benchmark.
        results: A folder per contender and benchmark.
        names: Contenders; the first is compared with each of the others.

    Raises:
        SystemExit: They were measured with different settings, or have no crystal in common.
    """
    benchmark = BENCHMARKS[title]
    folders = {name: results / name / title for name in names}
    settings = {name: _settings(folder) for name, folder in folders.items()}
    _refuse_unless_alike(title, settings)
    measured = {name: read_rows(benchmark, folder) for name, folder in folders.items()}
    common = sorted(set.intersection(*(set(rows) for rows, _ in measured.values())))
    if not common:
        raise SystemExit(f"{title}: no crystal was measured by all of {', '.join(names)}.")
    rows = {name: [found[one] for one in common] for name, (found, _) in measured.items()}
    return {
        "settings": {key: settings[names[0]][key] for key in ("seed", "options")},
        "models": {name: settings[name].get("sha256", settings[name]["model"]) for name in names},
        "crystals": len(common),
        "failed": {name: failed for name, (_, failed) in measured.items()},
        "lines": _lines(title, benchmark, rows),
    }


def begun(title: str, folder: Path) -> bool:
    """Say whether a contender has measured a crystal."""
    return (folder / SETTINGS).is_file() and bool(read_rows(BENCHMARKS[title], folder)[0])


def _settings(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))


def _refuse_unless_alike(title: str, settings: Mapping[str, Mapping[str, Any]]) -> None:
    kinds = {json.dumps([one["seed"], one["options"]]) for one in settings.values()}
    if len(kinds) > 1:
        raise SystemExit(f"{title}: contenders were measured with different settings: {kinds}.")


def _lines(
    title: str, benchmark: Benchmark, rows: Mapping[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    """Every shown statistic, its error, and who is worse."""
    names = list(rows)
    whole = {name: _values(benchmark, found) for name, found in rows.items()}
    drawn = _draw(benchmark, rows)
    units = {(one.group, one.name): one for one in benchmark.summarise(rows[names[0]])}
    lines = []
    for group, line in _shown(title, units):
        key = (group, line.name)
        if any(whole[name].get(key) is None for name in names):
            continue
        crystals = sum(_belongs(row, group) for row in rows[names[0]])
        samples = {name: np.array([one.get(key) for one in drawn[name]], float) for name in names}
        lines.append(
            {
                "group": group,
                "name": line.name,
                "unit": units[key].unit,
                "crystals": crystals,
                "goal": line.goal,
                "dft": whole[names[0]].get((group, line.dft)),
                "value": {name: whole[name][key] for name in names},
                "error": {name: spread(samples[name]) for name in names},
                "verdict": {
                    other: _judged(line, crystals, samples[names[0]], samples[other], other)
                    for other in names[1:]
                },
            }
        )
    return lines


def _shown(title: str, known: Iterable[Key]) -> list[tuple[str, Line]]:
    groups = dict.fromkeys(
        group for group, _ in known if title in BY_ELEMENT or group not in chemical_symbols
    )
    return [(group, line) for group in groups for line in LINES[title]]


def _belongs(row: Any, group: str) -> bool:
    """Say whether a row counts for a group: of a set, of an element, or of every row."""
    own = [getattr(row, name) for name in ("source", "element") if hasattr(row, name)]
    return group in own or group == ALL or not own


def _values(benchmark: Benchmark, rows: Sequence[Any]) -> dict[Key, float | None]:
    return {(one.group, one.name): one.value for one in benchmark.summarise(rows)}


def _draw(
    benchmark: Benchmark, rows: Mapping[str, Sequence[Any]]
) -> dict[str, list[dict[Key, float | None]]]:
    """Sum up again and again, over crystals drawn with replacement, the same for everyone."""
    count = len(next(iter(rows.values())))
    draws = np.random.default_rng(0).integers(count, size=(DRAWS, count))
    return {
        name: [_values(benchmark, [found[one] for one in draw]) for draw in draws]
        for name, found in rows.items()
    }


def spread(samples: Any) -> float:
    """Half of the range that holds 68 % of the draws: the standard error, but for rare draws."""
    low, high = np.nanpercentile(samples, [15.87, 84.13])
    return float(high - low) / 2


def _judged(line: Line, crystals: int, ours: Any, samples: Any, other: str) -> str:
    if other in line.other_scale:
        return SCALE
    return verdict(ours, samples, more=line.more) if crystals >= FEWEST else FEW


def verdict(ours: Any, other: Any, *, more: bool) -> str:
    """Say whether the first is surely better or worse, draw by draw; else that they are level."""
    known = np.isfinite(ours) & np.isfinite(other)
    gain = (ours - other)[known] * (1 if more else -1)
    if not len(gain):
        return "level"
    if (gain < 0).mean() > SURE:
        return "worse"
    return "better" if (gain > 0).mean() > SURE else "level"
