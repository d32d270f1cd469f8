"""The bundled potential beside its peers and beside DFT: the same crystals, seeds and settings.

python -m benchmarks.potentials measure crystalformer accurate --data data --results results
python -m benchmarks.potentials measure CHGNet SevenNet-0 --data data --results results
python -m benchmarks.potentials table --results results

``measure`` goes on where it was cut off, crystal by crystal. ``table`` compares what all contenders
have measured, and writes potentials.json and potentials.md beside this file.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase_crystalformer.assessment import BENCHMARKS
from ase_crystalformer.assessment.calculators import candidate
from ase_crystalformer.assessment.run import assess
from benchmarks.peers import PEERS
from benchmarks.potentials_report import write

#: Contender to what ``crystalformer evaluate`` calls it.
CONTENDERS = {
    "crystalformer": "default",
    "accurate": "accurate",
    **{name: f"benchmarks.peers:{factory}" for name, (factory, _) in PEERS.items()},
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """How much of a benchmark is run.

    Attributes:
        count: Of crystals.
        options: Of the benchmark, where they differ from its own.
    """

    count: int
    options: dict[str, Any] = field(default_factory=dict)


#: Sized for the slowest contender: three quarters of an hour of one core for all three.
PLAN = {
    "equation-of-state": Task(count=96, options={"oxides": False}),
    "relaxation": Task(count=40),
    "mlearn": Task(count=60),
    "forces": Task(count=80),
    "elasticity": Task(count=16),
    "heat-capacity": Task(count=8, options={"length": 6.0, "fmax": 0.01, "steps": 200}),
    "dynamics": Task(count=2, options={"picoseconds": 0.5, "length": 5.0}),
}


def measure(
    name: str, data: Path, results: Path, share: float = 1.0, titles: Sequence[str] = tuple(PLAN)
) -> None:
    """Run a contender through the plan, or through the first part of every benchmark in it.

    Args:
        name: One of ``CONTENDERS``.
        data: Folder of the data sets.
        results: A folder per contender and benchmark is made in it.
        share: Of the crystals of every benchmark.
        titles: Which benchmarks.
    """
    for title in titles:
        task = PLAN[title]
        print(f"{name}, {title} ...", file=sys.stderr, flush=True)
        benchmark = BENCHMARKS[title]
        assess(
            benchmark,
            candidate(CONTENDERS[name], device="cpu", dtype=benchmark.precision),
            data,
            results / name / title,
            count=math.ceil(share * task.count),
            options=task.options,
            progress=sys.stderr.isatty(),
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure contenders, or write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.potentials", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("measure", help="run contenders")
    run.add_argument("names", nargs="+", choices=list(CONTENDERS), metavar="NAME")
    run.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    run.add_argument("--share", type=float, default=1.0, help="of the crystals, 0 to 1")
    run.add_argument("--only", nargs="+", choices=list(PLAN), default=list(PLAN), metavar="TITLE")
    table = verbs.add_parser("table", help="compare what was measured")
    table.add_argument("--out", type=Path, default=Path(__file__).parent)
    for verb in (run, table):
        verb.add_argument("--results", type=Path, required=True, help="folder of the results")
    asked = parser.parse_args(arguments)
    if asked.verb == "table":
        print(write(asked.results, list(CONTENDERS), asked.out))
        return
    for name in asked.names:
        measure(name, asked.data, asked.results, asked.share, asked.only)


if __name__ == "__main__":
    main()
