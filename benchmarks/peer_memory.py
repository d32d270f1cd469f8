"""Memory of potentials: each computes a small and a large crystal in processes of their own.

python -m benchmarks.peer_memory NAME ATOMS    seconds, and the most memory the process held, kB
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import torch
from ase import Atoms
from ase.calculators.calculator import all_changes

from benchmarks.crystals import silicon, silicon_block
from benchmarks.peers import ASKED, contenders
from benchmarks.timing import Effort, Ratio, Row

#: Atoms of the two crystals whose difference in memory is told, per atom.
FEW, MANY = 216, 1000


def memory(effort: Effort, _: Sequence[Atoms]) -> Iterator[Row]:
    """Compute a small and a large crystal in processes of their own: memory per atom."""
    few, many = (8, 64) if effort.small else (FEW, MANY)
    first: tuple[float, float] | None = None
    for name in contenders():
        small, large = (apart(name, atoms) for atoms in (few, many))
        first = first or (large["wall"], large["cpu"])
        wall, cpu = large["wall"] / first[0], large["cpu"] / first[1]
        yield Row(
            case=f"{many:,} atoms of silicon, each in a process of its own",
            way=name,
            threads=1,
            rounds=1,
            wall_ms=1e3 * large["wall"],
            cpu_ms=1e3 * large["cpu"],
            wall_ratio=Ratio(*[wall] * 3),
            cpu_ratio=Ratio(*[cpu] * 3),
            rate=f"{(large['peak'] - small['peak']) / (many - few):,.0f} kB/atom",
            difference=None,
        )


def apart(name: str, atoms: int) -> dict[str, float]:
    """Call ``peak`` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.peer_memory", name, str(atoms)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def peak(name: str, atoms: int) -> dict[str, float]:
    """Compute one crystal; tell seconds, and the most memory this process ever held, kB."""
    torch.set_num_threads(1)
    calculator = contenders()[name]()
    calculator.calculate(silicon(1), ASKED, all_changes)
    crystal = silicon_block(atoms // 8)
    wall, cpu = time.perf_counter(), time.process_time()
    calculator.calculate(crystal, ASKED, all_changes)
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
    }


if __name__ == "__main__":
    print(json.dumps(peak(sys.argv[1], int(sys.argv[2]))))
