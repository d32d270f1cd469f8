"""A screening that is killed again and again, in the middle of whatever it does.

``python killed_screening.py MODELS FOLDER SOURCES...`` kills it at each of ``MOMENTS`` in turn, in
a new process each time, and lets the last one finish.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pandas  # noqa: F401  what every child would import anew
import pymatgen.analysis.structure_matcher
import pymatgen.io.ase  # noqa: F401

from ase_crystalformer.screening import screen
from ase_crystalformer.screening.store import Store

MOMENTS = (("read", 5), ("unique", 4), ("rank", 3), ("keep", 2), ("relax", 3), ("predict", 1))
"""Stage, and how many results of it are written; the kill comes within the next one's writing."""

SETTINGS: dict[str, Any] = {"keep": "60%", "steps": 5, "top": 1, "progress": False}


def kill_at(stage: str, count: int) -> None:
    """Kill this process within a transaction."""
    insert, written = Store._insert, [0]

    def insert_or_die(self: Store, at: str, number: int, result: Any) -> None:
        insert(self, at, number, result)
        written[0] += at == stage
        if written[0] > count:
            os.kill(os.getpid(), signal.SIGKILL)

    Store._insert = insert_or_die


def main(models: Path, out: Path, sources: list[str]) -> None:
    for moment in (*MOMENTS, None):
        child = os.fork()
        if not child:
            if moment:
                kill_at(*moment)
            screen(
                sources,
                out,
                model=str(models / "potential"),
                property_model=str(models / "properties"),
                **SETTINGS,
            )
            os._exit(0)
        _, status = os.waitpid(child, 0)
        expected = signal.SIGKILL if moment else 0
        assert status == expected, f"{moment}: ended with {status}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
