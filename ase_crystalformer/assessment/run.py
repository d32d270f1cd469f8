"""Run a benchmark crystal by crystal, so that an interrupt loses one and a failure stops none."""

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from tqdm.auto import tqdm

from ase_crystalformer.assessment.benchmark import Benchmark, Statistic
from ase_crystalformer.assessment.calculators import Candidate
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.errors import BadRecipe, BadStructure, MissingData, MissingExtra
from ase_crystalformer.writing import whole

LOGGER = logging.getLogger(__name__)

ROWS, SETTINGS, SUMMARY, PLOT = "rows.jsonl", "settings.json", "summary.json", "plot.png"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a benchmark found.

    Attributes:
        statistics: The summary.
        rows: Crystal to what was measured on it.
        failed: Crystal to why nothing was.
    """

    statistics: list[Statistic]
    rows: dict[str, Any]
    failed: dict[str, str]


def assess(
    benchmark: Benchmark,
    candidate: Candidate,
    data: Path,
    out: Path,
    *,
    count: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Report:
    """Measure what was not yet measured, and sum up everything.

    Results of each crystal are appended to ``rows.jsonl`` at once; crystals found there are not
    computed again, those that failed are. Then ``summary.json`` and ``plot.png`` are written.

    Args:
        benchmark: What to measure.
        candidate: Whom to measure.
        data: Folder of the data sets.
        out: Folder of the results.
        count: How many crystals; ``None`` for the benchmark's own number. A larger count with the
            same seed goes on from a smaller one.
        seed: Chooses the crystals.
        options: Settings of the benchmark that differ from its own.
        progress: Show a bar.

    Raises:
        BadRecipe: An option is unknown or wrong, the seed is negative, or ``out`` holds results of
            other settings.
        MissingData: A data set is not in the folder.
        MissingExtra: A library the benchmark needs is not installed.
    """
    chosen = read_options(benchmark, options or {})
    settings = {
        "benchmark": benchmark.name,
        **candidate.identity,
        "seed": seed,
        "options": asdict(chosen),
    }
    if seed < 0:
        raise BadRecipe(f"{benchmark.name}: seed is {seed}; zero or a positive number is needed.")
    crystals = list(draw(benchmark, data, chosen, count or benchmark.count, seed))
    _open(out, settings)
    with (out / ROWS).open("a", encoding="utf-8") as file:
        done = set(read_rows(benchmark, out)[0])
        waiting = [crystal for crystal in crystals if crystal.id not in done]
        bar = tqdm(waiting, disable=not progress, desc=benchmark.name, unit="crystal")
        for crystal in bar:
            line = _measured(benchmark, candidate.calculator, crystal, chosen)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            if "error" in line:
                tqdm.write(f"{crystal.id}: {line['error']}", file=sys.stderr)
    return _summed_up(benchmark, out, {crystal.id for crystal in crystals}, settings)


def read_options(benchmark: Benchmark, given: Mapping[str, Any]) -> Any:
    """Check settings of a benchmark.

    Raises:
        BadRecipe: One is unknown or of a wrong type.
    """
    known = [field.name for field in fields(benchmark.options)]
    strict = with_config(ConfigDict(extra="forbid"))(benchmark.options)
    try:
        return TypeAdapter(strict).validate_python(dict(given))
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(map(str, wrong["loc"]))
        raise BadRecipe(
            f"{benchmark.name}: {name}: {wrong['msg']}. It can be told: {', '.join(known)}."
        ) from error


def draw(
    benchmark: Benchmark, data: Path, options: Any, count: int | None, seed: int
) -> Iterator[LabelledCrystal]:
    """Choose crystals at random, in turn from every stratum; more of them continue fewer.

    Raises:
        MissingData: There is none.
    """
    crystals = list(benchmark.crystals(data, options))
    if not crystals:
        raise MissingData(f"{data} holds no crystal for the benchmark {benchmark.name!r}.")
    strata: dict[str, list[LabelledCrystal]] = {}
    for number in np.random.default_rng(seed).permutation(len(crystals)):
        strata.setdefault(benchmark.stratum(crystals[number]), []).append(crystals[number])
    in_turn = chain.from_iterable(zip_longest(*strata.values()))
    return islice((crystal for crystal in in_turn if crystal is not None), count)


def read_rows(benchmark: Benchmark, out: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read what was measured, and what failed, by the name of the crystal."""
    adapter: TypeAdapter[Any] = TypeAdapter(benchmark.row)
    rows: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for line in _whole_lines(out / ROWS):
        name = line["id"]
        if "error" in line:
            failed[name] = line["error"]
        else:
            rows[name] = adapter.validate_python(line["row"])
            failed.pop(name, None)
    return rows, failed


def _whole_lines(path: Path) -> Iterable[dict[str, Any]]:
    """Read JSON lines; one cut off by an interrupt is left out."""
    # A letter of several bytes may be cut, too.
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            LOGGER.warning("Left out a broken line of %s", path)


def _open(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or make sure that its results are of the same settings."""
    _make(out)
    path = out / SETTINGS
    if not path.is_file():
        text = json.dumps(settings, indent=1, ensure_ascii=False, default=str)
        path.write_text(text + "\n", encoding="utf-8")
        return
    _end_line(out / ROWS)
    before = _flat(json.loads(path.read_text(encoding="utf-8")))
    now = _flat(json.loads(json.dumps(settings, default=str)))
    changed = [
        f"{name} = {before.get(name)!r}, not {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise BadRecipe(
            f"{out} holds results with {'; '.join(changed)}. Choose another folder with --out, or "
            "remove it."
        )


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise BadRecipe(
            f"{out} is or lies in a file, and results need a folder. Name another with --out."
        ) from error


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Put options beside the other settings."""
    return {**settings, **settings["options"], "options": None}


def _end_line(path: Path) -> None:
    """End a line that an interrupt cut off, so that the next begins a new one."""
    stored = path.read_bytes() if path.is_file() else b""
    if stored and not stored.endswith(b"\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")


def _measured(
    benchmark: Benchmark, calculator: Any, crystal: LabelledCrystal, options: Any
) -> dict[str, Any]:
    """Measure one crystal; whatever goes wrong is said in its line."""
    start = time.perf_counter()
    try:
        row = benchmark.measure(calculator, crystal, options)
        found: dict[str, Any] = {"row": _plain(row)}
    except MissingExtra:
        raise
    except Exception as error:  # a foreign calculator may raise anything
        found = {"error": f"{type(error).__name__}: {error}"}
    seconds = round(time.perf_counter() - start, 2)
    return {"id": crystal.id, "atoms": crystal.atoms, "seconds": seconds, **found}


def _plain(row: Any) -> dict[str, Any]:
    """Turn a row into what JSON holds; some calculators return scalars of numpy."""
    try:
        text = json.dumps(asdict(row), allow_nan=False, default=lambda scalar: scalar.item())
    except ValueError as error:
        raise BadStructure("A result is infinite or not a number.") from error
    return dict(json.loads(text))


def _summed_up(
    benchmark: Benchmark, out: Path, asked: set[str], settings: dict[str, Any]
) -> Report:
    """Write summary and plot of the crystals that were asked for."""
    from matplotlib.figure import Figure

    rows, failed = read_rows(benchmark, out)
    rows = {name: row for name, row in rows.items() if name in asked}
    failed = {name: error for name, error in failed.items() if name in asked}
    statistics = benchmark.summarise(list(rows.values()))
    told = {
        **settings,
        "versions": {name: version(name) for name in ("ase-crystalformer", "ase", "torch")},
        "crystals": len(rows),
        "failed": failed,
        "statistics": [asdict(one) for one in statistics],
    }
    text = json.dumps(told, indent=1, ensure_ascii=False, default=str)
    with whole(out / SUMMARY) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    figure = Figure(figsize=(12, 4), layout="constrained")
    if rows:
        benchmark.draw(figure, list(rows.values()))
    with whole(out / PLOT) as partial:
        figure.savefig(partial, dpi=130)
    return Report(statistics=statistics, rows=rows, failed=failed)
