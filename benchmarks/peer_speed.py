"""Speed beside CHGNet and SevenNet-0, taking turns with them in one process.

python -m benchmarks.peer_speed                         all, half an hour on a quiet machine
python -m benchmarks.peer_speed single size             some
python -m benchmarks.peer_speed --workload mixed.extxyz batch relaxed

Peers that are not installed are left out, and said so. Writes peer_speed.json and peer_speed.md.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.io import read
from numpy.typing import NDArray

from ase_crystalformer.calculator import CrystalformerCalculator
from ase_crystalformer.relaxation import relax
from benchmarks.crystals import random_crystals, shaken, silicon
from benchmarks.models import bundled_or_random
from benchmarks.peers import chgnet_model, how_to_install, installed
from benchmarks.report import entry, markdown, merge
from benchmarks.timing import (
    QUICK,
    Effort,
    Ratio,
    Row,
    Way,
    check_agreement,
    compare,
    machine,
    take_turns,
)

ASKED = ("energy", "forces", "stress")

#: Atoms of the two crystals whose difference in memory is told, per atom.
FEW, MANY = 216, 1000

#: Of a relaxation: largest force left, eV/Å, and the most steps a crystal may take.
FMAX, STEPS = 0.1, 100

ABOUT = """\
crystalformer and its peers took turns in one process, each called as its users call it: energy,
forces and stress by its ASE calculator, single precision. "x first" is the time over that of the
first way, in the same round: median (least-largest) of all rounds. Other programs shared the
machine: read the ratios, and those of the processor's time ("cpu") before those of the wall's.
Atoms move by 0.02 Å from call to call. Memory is what a process holds at its peak beyond what it
held before the first energy, over the atoms that a larger crystal has more than a smaller one.

    python -m benchmarks.peer_speed --workload mixed.extxyz
"""


def ours() -> CrystalformerCalculator:
    """Make the bundled potential's calculator."""
    return CrystalformerCalculator(bundled_or_random("default"), property_model=None, device="cpu")


def contenders() -> dict[str, Callable[[], Any]]:
    """Return factories: ours first, then the peers that are installed."""
    return {"crystalformer": ours, **installed()}


def single(effort: Effort, _: Sequence[Atoms]) -> Iterator[Row]:
    """Compute one crystal after each step of its atoms, on one thread and two."""
    calculators = {name: make() for name, make in contenders().items()}
    systems = {"Si 8": silicon(1), "Si 64": silicon(2), "Si 216": silicon(3)}
    for name, atoms in list(systems.items())[: 1 if effort.small else None]:
        for threads in (1,) if effort.small else (1, 2):
            ways = [
                Way(name=who, run=_stepper(one, atoms), items=(len(atoms), "atoms"))
                for who, one in calculators.items()
            ]
            yield from compare(f"{name} atoms", ways, effort, tolerance=0.0, threads=threads)


def _stepper(calculator: Any, atoms: Atoms) -> Callable[[], dict[str, Any]]:
    frames = cycle(shaken(atoms, frames=8))

    def step() -> dict[str, Any]:
        frame = next(frames)
        calculator.calculate(frame, ASKED, ["positions"])
        return dict(calculator.results)

    return step


def size(effort: Effort, _: Sequence[Atoms]) -> Iterator[Row]:
    """Compute larger and larger crystals: is the cost per atom the same?"""
    cells = (1, 2) if effort.small else (63, 125, 250, 625)
    ways = []
    for count in cells:
        atoms = silicon(1) * _block(count)
        ways.append(
            Way(
                name=f"crystalformer, {len(atoms):,} atoms",
                run=_stepper(ours(), atoms),
                items=(len(atoms), "atoms"),
            )
        )
    yield from take_turns("larger and larger silicon", ways, min(effort.rounds, 3))


def _block(cells: int) -> tuple[int, int, int]:
    """Lay out cells in a block that is as near to a cube as they allow."""
    first = max(n for n in range(1, round(cells ** (1 / 3)) + 2) if cells % n == 0)
    rest = cells // first
    second = max(n for n in range(1, round(rest**0.5) + 1) if rest % n == 0)
    return first, second, rest // second


def batch(effort: Effort, crystals: Sequence[Atoms]) -> Iterator[Row]:
    """Compute mixed crystals: ours in batches and one by one, peers one by one."""
    crystals = crystals[: 3 if effort.small else None]
    calculators = {name: make() for name, make in contenders().items()}
    check_agreement("mixed crystals", _batched(calculators, crystals[:3]), tolerance=1e-3)
    case = f"{len(crystals)} mixed crystals"
    yield from take_turns(case, _batched(calculators, crystals), min(effort.rounds, 2))


def _batched(calculators: Mapping[str, Any], crystals: Sequence[Atoms]) -> list[Way]:
    model, items = bundled_or_random("default"), (len(crystals), "crystals")
    first = Way(
        name="crystalformer, in batches",
        run=partial(model.predict, crystals),
        read=_energies,
        items=items,
    )
    others = [
        Way(
            name=f"{name}, one by one",
            run=partial(_one_by_one, calculator, crystals),
            read=_energies if name == "crystalformer" else None,
            items=items,
        )
        for name, calculator in calculators.items()
    ]
    return [first, *others]


def _one_by_one(calculator: Any, crystals: Sequence[Atoms]) -> list[dict[str, Any]]:
    found = []
    for atoms in crystals:
        calculator.calculate(atoms, ASKED, all_changes)
        found.append(dict(calculator.results))
    return found


def _energies(results: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    return np.array([float(result["energy"]) for result in results])


def relaxed(effort: Effort, crystals: Sequence[Atoms]) -> Iterator[Row]:
    """Relax mixed crystals with their cells: ours all at once, CHGNet's by its own relaxer."""
    crystals = crystals[: 2 if effort.small else 8]
    steps = 3 if effort.small else STEPS
    relaxers = {"crystalformer, relax": _relaxed_by_us}
    if "CHGNet" in installed():
        relaxers["CHGNet, StructOptimizer"] = _relaxed_by_chgnet
    arrived: dict[str, int] = {}

    def relaxing(name: str) -> None:
        arrived[name] = relaxers[name](crystals, steps)

    ways = [
        Way(name=name, run=partial(relaxing, name), items=(len(crystals), "crystals"))
        for name in relaxers
    ]
    case = f"{len(crystals)} mixed crystals, to {FMAX} eV/Å or for {steps} steps"
    for row in take_turns(case, ways, rounds=1):
        yield replace(row, way=f"{row.way} ({arrived[row.way]} arrived)")


def _relaxed_by_us(crystals: Sequence[Atoms], steps: int) -> int:
    model = bundled_or_random("default")
    results = relax(crystals, model=model, fmax=FMAX, steps=steps, device="cpu", progress=False)
    return sum(result.converged for result in results)


def _relaxed_by_chgnet(crystals: Sequence[Atoms], steps: int) -> int:
    from chgnet.model.dynamics import StructOptimizer

    relaxer, arrived = StructOptimizer(chgnet_model(), use_device="cpu"), 0
    for atoms in crystals:
        told = relaxer.relax(atoms.copy(), fmax=FMAX, steps=steps, verbose=False)
        # The trajectory holds the start, every step, and the end once more.
        arrived += len(told["trajectory"].energies) - 2 < steps
    return arrived


def memory(effort: Effort, _: Sequence[Atoms]) -> Iterator[Row]:
    """Compute a small and a large crystal in processes of their own: memory per atom."""
    few, many = (8, 64) if effort.small else (FEW, MANY)
    first: tuple[float, float] | None = None
    for name in contenders():
        small, large = (_apart(name, atoms) for atoms in (few, many))
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


def _apart(name: str, atoms: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.peer_speed", "--peak", name, str(atoms)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def peak(name: str, atoms: int) -> dict[str, float]:
    """Compute one crystal; tell seconds, and the most memory this process ever held, kB."""
    torch.set_num_threads(1)
    calculator = contenders()[name]()
    calculator.calculate(silicon(1), ASKED, all_changes)
    crystal = silicon(1) * _block(atoms // 8)
    wall, cpu = time.perf_counter(), time.process_time()
    calculator.calculate(crystal, ASKED, all_changes)
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
    }


#: Every comparison by name.
COMPARISONS = {
    "single": single,
    "size": size,
    "batch": batch,
    "relaxed": relaxed,
    "memory": memory,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparisons named, print their tables, record them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer_speed", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(COMPARISONS))
    parser.add_argument("--workload", type=Path, help="mixed crystals; random ones if not told")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every contender")
    parser.add_argument("--quick", action="store_true", help="smallest work, one round")
    parser.add_argument("--out", type=Path, help="folder of peer_speed.json and peer_speed.md")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.peak:
        print(json.dumps(peak(asked.peak[0], int(asked.peak[1]))))
        return
    if unknown := sorted(set(asked.names) - set(COMPARISONS)):
        parser.error(f"no comparison {', '.join(unknown)}; there are {', '.join(COMPARISONS)}")
    if missing := how_to_install():
        print(f"Some peers are missing: {missing}", file=sys.stderr)
    out = asked.out or (None if asked.quick else Path(__file__).parent)
    crystals = read(asked.workload, ":") if asked.workload else random_crystals(100, 2, 20)
    warnings.simplefilter("ignore")  # of the peers, at every call
    effort = QUICK if asked.quick else Effort(small=False, rounds=asked.rounds, seconds=0.0)
    results = {}
    for name in asked.names or COMPARISONS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        facts = machine() | {"crystalformer": bundled_or_random("default").card.name}
        rows = list(COMPARISONS[name](effort, crystals))
        results[name] = entry(rows, facts, datetime.now(UTC).date().isoformat())
        if out:
            told = merge(results, out / "peer_speed.json")
            text = markdown(told, "Speed beside other potentials", ABOUT)
            (out / "peer_speed.md").write_text(text, encoding="utf-8")
    print(markdown(results, "Speed beside other potentials", ABOUT))


if __name__ == "__main__":
    main()
