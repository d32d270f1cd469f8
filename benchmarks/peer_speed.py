"""Speed beside CHGNet and SevenNet-0, taking turns with them in one process.

python -m benchmarks.peer_speed                         all, half an hour on a quiet machine
python -m benchmarks.peer_speed single size             some
python -m benchmarks.peer_speed --workload mixed.extxyz batch relaxed

Peers that are not installed are left out, and said so. Writes peer_speed.json and peer_speed.md.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.io import read
from numpy.typing import NDArray

from ase_crystalformer.relaxation import relax
from benchmarks.crystals import random_crystals, shaken, silicon, silicon_block
from benchmarks.models import bundled_or_random
from benchmarks.peer_memory import memory
from benchmarks.peers import (
    ASKED,
    chgnet_model,
    contenders,
    how_to_install,
    installed,
    ours,
)
from benchmarks.report import entry, markdown, merge
from benchmarks.timing import (
    QUICK,
    Effort,
    Row,
    Way,
    check_agreement,
    compare,
    machine,
    take_turns,
)

#: Of a relaxation: largest force left, eV/Å, and the most steps a crystal may take.
FMAX, STEPS = 0.1, 100

TITLE = "Speed beside other potentials"

ABOUT = """\
crystalformer and its peers took turns in one process, each called as its users call it: energy,
forces and stress by its ASE calculator, single precision. "x first" is the time over that of the
first way, in the same round: median (least-largest) of all rounds. Other programs shared the
machine: read the ratios, and those of the processor's time ("cpu") before those of the wall's.
Atoms move by 0.02 Å from call to call. Memory is what a process holds at its peak beyond what it
held before the first energy, over the atoms that a larger crystal has more than a smaller one.

    python -m benchmarks.peer_speed --workload mixed.extxyz
"""


def single(effort: Effort, _: Sequence[Atoms]) -> Iterator[Row]:
    """Compute one crystal after each step of its atoms, on one thread and two."""
    calculators = {name: make() for name, make in contenders().items()}
    systems = {"Si 8": silicon(1), "Si 64": silicon(2), "Si 216": silicon(3)}
    if effort.small:
        systems = {"Si 8": silicon(1)}
    for threads in (1,) if effort.small else (1, 2):
        for name, atoms in systems.items():
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
        atoms = silicon_block(count)
        ways.append(
            Way(
                name=f"crystalformer, {len(atoms):,} atoms",
                run=_stepper(ours(), atoms),
                items=(len(atoms), "atoms"),
            )
        )
    yield from take_turns("larger and larger silicon", ways, min(effort.rounds, 3))


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
    crystals = crystals[: 2 if effort.small else 24]
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


#: Every comparison by name.
COMPARISONS = {
    "single": single,
    "size": size,
    "batch": batch,
    "relaxed": relaxed,
    "memory": memory,
}


def _record(results: Mapping[str, Any], out: Path) -> None:
    """Write what is known so far; comparisons that did not run keep what they had."""
    told = merge(results, out / "peer_speed.json")
    text = markdown(told, TITLE, ABOUT)
    (out / "peer_speed.md").write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparisons named, print their tables, record them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer_speed", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(COMPARISONS))
    parser.add_argument("--workload", type=Path, help="mixed crystals; random ones if not told")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every contender")
    parser.add_argument("--quick", action="store_true", help="smallest work, one round")
    parser.add_argument("--out", type=Path, help="folder of peer_speed.json and peer_speed.md")
    asked = parser.parse_args(arguments)
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
        rows: list[Row] = []
        for row in COMPARISONS[name](effort, crystals):
            rows.append(row)
            results[name] = entry(rows, facts, datetime.now(UTC).date().isoformat())
            if out:
                _record(results, out)
    print(markdown(results, TITLE, ABOUT))


if __name__ == "__main__":
    main()
