"""Relaxation of many crystals: all at once, and one by one by ASE, with the same potential.

Every round takes some crystals through every way in turn, so that a busy machine slows all alike.
Energies at the end are compared crystal by crystal.

Example:
    python -m benchmarks.relaxation --count 100 --threads 1
    python -m benchmarks.relaxation --crystals mine.extxyz --threads 1 --threads 2
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.optimize import FIRE

from ase_crystalformer import CrystalformerCalculator, CrystalModel, load_model, relax
from benchmarks.crystals import random_crystals, real_crystals
from benchmarks.timing import limited_threads, machine

FOLDER = Path(__file__).parent
SAME = 1e-3
"""eV/atom. Energies closer than this are the same minimum."""

Way = Callable[[Sequence[Atoms]], list["End"]]


@dataclass(frozen=True)
class End:
    """Where a relaxation ended.

    Attributes:
        energy: eV/atom.
        volume: Å³/atom.
        steps: How often it moved.
        converged: Whether it was done by then.
    """

    energy: float
    volume: float
    steps: int
    converged: bool


@dataclass(frozen=True, kw_only=True)
class Round:
    """Some crystals, relaxed in one way.

    Attributes:
        wall: s.
        cpu: s, of all threads.
        ends: One per crystal.
    """

    wall: float
    cpu: float
    ends: list[End]


def ways(model: CrystalModel, fmax: float, steps: int) -> dict[str, Way]:
    """Name the ways there are; the first is what others are compared with."""
    calc = CrystalformerCalculator(model, property_model=None, device="cpu")

    def by_ase(crystals: Sequence[Atoms]) -> list[End]:
        ends = []
        for crystal in crystals:
            atoms = crystal.copy()
            atoms.calc = calc
            fire = FIRE(FrechetCellFilter(atoms), logfile=None)
            converged = bool(fire.run(fmax=fmax, steps=steps))
            energy = atoms.get_potential_energy() / len(atoms)
            ends.append(End(energy, atoms.cell.volume / len(atoms), fire.nsteps, converged))
        return ends

    def batched(optimiser: str) -> Way:
        def run(crystals: Sequence[Atoms]) -> list[End]:
            options: dict[str, Any] = {"fmax": fmax, "steps": steps, "optimiser": optimiser}
            found = relax(crystals, model=model, device="cpu", progress=False, **options)
            return [
                End(one.energy / len(given), one.atoms.cell.volume / len(given), one.steps, ok)
                if one.atoms is not None
                else End(np.nan, np.nan, one.steps, ok)
                for one, given in zip(found, crystals, strict=True)
                for ok in [one.converged]
            ]

        return run

    return {
        "ASE's FIRE, one by one": by_ase,
        "FIRE, in batches": batched("fire"),
        "L-BFGS, in batches": batched("lbfgs"),
    }


def shaken(count: int) -> list[Atoms]:
    """Real crystals of 2 to 8 atoms, atoms moved by about 0.1 Å and cells strained by 2 %."""
    rng = np.random.default_rng(0)
    crystals = []
    for seed, crystal in enumerate(real_crystals(count)):
        atoms = crystal.copy()
        atoms.rattle(0.1, seed=seed)
        strain = rng.normal(0, 0.02, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        crystals.append(atoms)
    return crystals


def measure(crystals: Sequence[Atoms], chosen: dict[str, Way], size: int) -> dict[str, list[Round]]:
    """Let the ways take turns at ``size`` crystals after ``size`` crystals."""
    rounds: dict[str, list[Round]] = {name: [] for name in chosen}
    for run in chosen.values():
        run(crystals[:1])  # not counted: libraries load
    for first in range(0, len(crystals), size):
        some = crystals[first : first + size]
        for name, run in chosen.items():
            wall, cpu = time.perf_counter(), time.process_time()
            ends = run(some)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            rounds[name].append(Round(wall=wall, cpu=cpu, ends=ends))
            typer.echo(f"{first + len(some)}/{len(crystals)} {name}: {wall:.1f} s", err=True)
    return rounds


def summary(rounds: dict[str, list[Round]]) -> list[dict[str, Any]]:
    """Compare every way with the first."""
    names = list(rounds)
    first = rounds[names[0]]
    return [_line(name, rounds[name], first) for name in names]


def _line(name: str, own: list[Round], first: list[Round]) -> dict[str, Any]:
    ends, others = ([end for one in rounds for end in one.ends] for rounds in (own, first))
    both = [(a, b) for a, b in zip(ends, others, strict=True) if a.converged and b.converged]
    apart = np.array([a.energy - b.energy for a, b in both])
    return {
        "way": name,
        "crystals": len(ends),
        "wall_s": sum(one.wall for one in own),
        "cpu_s": sum(one.cpu for one in own),
        "wall_ratios": [b.wall / a.wall for a, b in zip(own, first, strict=True)],
        "cpu_ratios": [b.cpu / a.cpu for a, b in zip(own, first, strict=True)],
        "steps": sum(end.steps for end in ends),
        "converged": sum(end.converged for end in ends),
        "both_converged": len(both),
        "same": int((np.abs(apart) < SAME).sum()),
        "lower": int((apart <= -SAME).sum()),
        "higher": int((apart >= SAME).sum()),
        "mean_difference": float(apart.mean()) if len(apart) else None,
    }


HEADER = (
    "way",
    "crystals per hour",
    "times faster, wall",
    "times faster, CPU",
    "steps",
    "converged",
    "same energy",
    "lower",
    "higher",
)


def markdown(results: dict[str, Any]) -> str:
    """Write all cases as tables."""
    return "\n".join([ABOUT, *(_section(name, told) for name, told in results.items())])


def _section(name: str, told: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in told["machine"].items())
    rows = [HEADER, ["---"] * len(HEADER), *map(_cells, told["ways"])]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"## {name}\n\n{told['date']}; {facts}\n\n{table}\n"


def _cells(way: dict[str, Any]) -> list[str]:
    wall, cpu = (_spread(way[f"{kind}_ratios"]) for kind in ("wall", "cpu"))
    compared = way["both_converged"]
    counts = [f"{way[kind]} of {compared}" for kind in ("same", "lower", "higher")]
    rate = f"{3600 * way['crystals'] / way['wall_s']:,.0f}"
    converged = f"{way['converged']} of {way['crystals']}"
    return [way["way"], rate, wall, cpu, f"{way['steps']:,}", converged, *counts]


def _spread(ratios: list[float]) -> str:
    return f"{np.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


ABOUT = """\
# Relaxation

Made by `python -m benchmarks.relaxation` with the bundled potential in float32. Ways take turns;
"times faster" is the time of ASE's FIRE with a FrechetCellFilter, one crystal after the other, over
that of a way in the same round: median (least-largest) of all rounds. "Same energy": within 1
meV/atom of where ASE ended, of crystals that both converged.
"""


def write(case: str, told: dict[str, Any], folder: Path) -> None:
    """Add a case to ``relaxation.json`` and write ``relaxation.md`` anew."""
    path = folder / "relaxation.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    results[case] = told
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "relaxation.md").write_text(markdown(results), encoding="utf-8")


def main(
    *,
    crystals: Annotated[Path | None, typer.Option(help="Relax those of a file.")] = None,
    random: Annotated[bool, typer.Option(help="Relax random ones of 2 to 20 atoms.")] = False,
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    size: Annotated[int, typer.Option(min=1, help="Crystals per round.")] = 25,
    threads: Annotated[list[int] | None, typer.Option(help="Of every library.")] = None,
    fmax: Annotated[float, typer.Option(min=0, help="eV/Å.")] = 0.05,
    steps: Annotated[int, typer.Option(min=0)] = 500,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = FOLDER,
) -> None:
    """Relax crystals by ASE one by one, and all at once; write a table."""
    given: Sequence[Atoms]
    if crystals is not None:
        given, kind = read(crystals, ":")[:count], crystals.name
    elif random:
        given, kind = random_crystals(count, 2, 20), "random crystals of 2 to 20 atoms"
    else:
        given, kind = shaken(count), "shaken and strained real crystals of 2 to 8 atoms"
    model = load_model("default", device="cpu")
    for number in threads or [1]:
        with limited_threads(number):
            rounds = measure(given, ways(model, fmax, steps), size)
        case = f"{len(given)} {kind}, fmax {fmax} eV/Å, {number} threads, {model.card.name}"
        ends = {
            name: [asdict(e) for one in many for e in one.ends] for name, many in rounds.items()
        }
        told = {"date": str(date.today()), "machine": machine(), "ways": summary(rounds)}
        write(case, {**told, "ends": ends}, out)


if __name__ == "__main__":
    typer.run(main)
