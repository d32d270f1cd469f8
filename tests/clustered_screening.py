"""A screening on two worker processes, one of which is killed in the middle of relaxations.

``python clustered_screening.py MODELS FOLDER SOURCES...``
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
from killed_screening import SETTINGS

from ase_crystalformer.screening import screen
from ase_crystalformer.screening.store import Store

CLUSTER = 'kind = "local"\njobs = 2\nat_once = 2\n'


def worker_processes() -> list[psutil.Process]:
    """Find the processes that Dask began."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def kill_a_worker_at(stage: str) -> None:
    """Kill a worker as soon as the first result of the stage is there."""
    add, killed = Store.add, []

    def add_and_kill(self: Store, at: str, results: Any) -> None:
        add(self, at, results)
        if at == stage and not killed:
            one, _other = worker_processes()
            os.kill(one.pid, signal.SIGKILL)
            killed.append(one.pid)

    Store.add = add_and_kill


def main(models: Path, out: Path, sources: list[str]) -> None:
    cluster = out.with_suffix(".toml")
    cluster.write_text(CLUSTER, encoding="utf-8")
    kill_a_worker_at("relax")
    screen(
        sources,
        out,
        model=str(models / "potential"),
        property_model=str(models / "properties"),
        cluster=cluster,
        **SETTINGS,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
