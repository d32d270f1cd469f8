"""Run benchmarks and record them.

python -m benchmarks                      all, a quarter of an hour on a quiet machine
python -m benchmarks attention            one or some
python -m benchmarks --quick              does everything work? (nothing is recorded)
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks import BENCHMARKS
from benchmarks.report import entry, markdown, write
from benchmarks.timing import FULL, QUICK, machine


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks named, print their tables, record them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="smallest work, one round")
    parser.add_argument("--out", type=Path, help="folder of results.json and results.md")
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.names) - set(BENCHMARKS)):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    out = asked.out or (None if asked.quick else Path(__file__).parent)
    results = {}
    for name in asked.names or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        facts = machine()
        rows = import_module(f"benchmarks.{name}").run(QUICK if asked.quick else FULL)
        results[name] = entry(rows, facts, datetime.now(UTC).date().isoformat())
        if out:
            write(results, out)
    print(markdown(results))


if __name__ == "__main__":
    main()
