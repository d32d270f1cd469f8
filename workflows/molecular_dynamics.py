"""Molecular dynamics at constant energy, temperature or pressure, resumed to the bit.

    python workflows/molecular_dynamics.py workflows/demo_structures/Si.cif --picoseconds 5
    python workflows/molecular_dynamics.py Cu.cif --calculator emt --ensemble npt --temperature 600

The crystal is repeated and set in motion. All ensembles use one integrator: velocity Verlet, with
Langevin's friction for nvt and a barostat that scales the cell besides for npt (B. Leimkuhler and
C. Matthews, J. Chem. Phys. 138, 174102 (2013); D. Quigley and M. I. J. Probert, J. Chem. Phys.
120, 11432 (2004)). Writes ``trajectory.traj`` (``ase gui`` shows it), ``readings.csv``, a picture,
and ``checkpoint.npz``. Cut off and started again with the same settings, or with more picoseconds,
it goes on, and ends where an unbroken run would have.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ase import Atoms, units
from ase.io.trajectory import Trajectory
from dynamics import Settings, State, advance, begin
from matplotlib.figure import Figure
from programs import Crystal, Out, Potential, read_crystal, run, whole, write_results

from ase_crystalformer import CrystalformerError, load_calculator

READINGS = ("step", "time", "potential", "total", "temperature", "pressure", "volume")
UNITS = ("", "ps", "eV/atom", "eV/atom", "K", "GPa", "Å³/atom")


def reading(atoms: Atoms, step: int, settings: Settings) -> list[float]:
    """Read what ``READINGS`` names."""
    stress = atoms.get_stress(voigt=False, include_ideal_gas=True)
    return [
        step,
        step * settings.femtoseconds / 1000,
        atoms.get_potential_energy() / len(atoms),
        atoms.get_total_energy() / len(atoms),
        atoms.get_temperature(),
        -np.trace(stress) / 3 / units.GPa,
        atoms.get_volume() / len(atoms),
    ]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run tells; means are over its second half.

    Attributes:
        settings: Of the run.
        atoms: How many moved.
        picoseconds: How long.
        drift: Slope of the total energy by time, meV/atom/ps; says something at constant energy.
        temperature: Mean, K.
        pressure: Mean, GPa.
        volume: Mean, Å³/atom.
    """

    settings: Settings
    atoms: int
    picoseconds: float
    drift: float
    temperature: float
    pressure: float
    volume: float


def summarise(readings: np.ndarray, atoms: int, settings: Settings) -> Summary:
    """Average readings."""
    columns = dict(zip(READINGS, readings.T, strict=True))
    half = {name: float(column[len(column) // 2 :].mean()) for name, column in columns.items()}
    return Summary(
        settings=settings,
        atoms=atoms,
        picoseconds=float(columns["time"][-1]),
        drift=1000 * float(np.polyfit(columns["time"], columns["total"], 1)[0]),
        temperature=half["temperature"],
        pressure=half["pressure"],
        volume=half["volume"],
    )


def draw(readings: np.ndarray) -> Figure:
    """Draw total energy, temperature, pressure and volume by time."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    for axes, name in zip(figure.subplots(2, 2, sharex=True).flat, READINGS[3:], strict=True):
        column = READINGS.index(name)
        axes.plot(readings[:, 1], readings[:, column], linewidth=0.8)
        axes.set_ylabel(f"{name} ({UNITS[column]})")
        axes.ticklabel_format(useOffset=False)
    figure.supxlabel("time (ps)", fontsize=10)
    return figure


@contextmanager
def files(out: Path, step: int) -> Iterator[tuple[Any, Any]]:
    """Open trajectory and readings; what lies behind the checkpoint at ``step`` is dropped."""
    table, frames = out / "readings.csv", out / "trajectory.traj"
    kept = [list(READINGS)]
    if step:
        with table.open(encoding="utf-8", newline="") as file:
            complete = [row for row in csv.reader(file) if len(row) == len(READINGS)]
        kept += [row for row in complete[1:] if int(row[0]) <= step]
        with whole(frames) as partial, Trajectory(frames) as old, Trajectory(partial, "w") as new:
            for number in range(len(kept) - 1):
                new.write(old[number])
    with whole(table) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(kept)
    with Trajectory(frames, "a" if step else "w") as traj, table.open("a", newline="") as rows:
        yield traj, rows


def simulate(crystal: Atoms, settings: Settings, steps: int, out: Path) -> np.ndarray:
    """Run, or go on, until at least so many steps are made; return all readings.

    Raises:
        CrystalformerError: The folder holds a run of another crystal or with other settings, or one
            that has exploded.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.npz"
    state = begin(crystal, settings)
    if checkpoint.exists():
        state = State.load(checkpoint, state.atoms, settings)
    with files(out, state.step) as (trajectory, table):
        while state.step < steps:
            calculator = load_calculator(settings.calculator)
            for atoms in advance(state, calculator, settings):
                row = reading(atoms, state.step, settings)
                if not np.isfinite(row).all() or row[4] > 20 * settings.temperature + 1000:
                    raise CrystalformerError(
                        f"Exploded at {row[1]:.3f} ps: {row[4]:.0f} K. Take a smaller time step, "
                        "relax the crystal before, or another potential."
                    )
                trajectory.write(atoms)
                csv.writer(table).writerow([int(row[0]), *row[1:]])
            table.flush()
            state.save(checkpoint, settings)
    return np.loadtxt(out / "readings.csv", delimiter=",", skiprows=1, ndmin=2)


def main(  # noqa: PLR0913  all of them are settings of a run
    crystal: Crystal,
    *,
    calculator: Potential = "default",
    ensemble: Annotated[str, typer.Option(metavar="ENSEMBLE", help="nve, nvt or npt.")] = "nve",
    temperature: Annotated[float, typer.Option(min=1, help="K.")] = 300.0,
    pressure: Annotated[float, typer.Option(help="GPa, of npt.")] = 0.0,
    picoseconds: Annotated[
        float, typer.Option(min=0.001, help="How long; whole blocks of steps.")
    ] = 1.0,
    femtoseconds: Annotated[float, typer.Option(min=0.01, help="Time step.")] = 1.0,
    length: Annotated[float, typer.Option(help="Least height of the cell, Å.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of velocities and thermostat.")] = 0,
    out: Out = Path("molecular_dynamics"),
) -> None:
    """Run or go on, and write."""
    if ensemble not in ("nve", "nvt", "npt"):
        raise CrystalformerError(f"--ensemble is {ensemble!r}; it is nve, nvt or npt.")
    settings = Settings(
        calculator=calculator,
        ensemble=ensemble,
        temperature=temperature,
        pressure=pressure,
        femtoseconds=femtoseconds,
        length=length,
        seed=seed,
    )
    start = read_crystal(crystal)
    readings = simulate(start, settings, round(1000 * picoseconds / femtoseconds), out)
    found = summarise(readings, len(begin(start, settings).atoms), settings)
    write_results(out, "summary", found, draw(readings))
    print(
        f"{found.picoseconds:g} ps of {found.atoms} atoms: {found.temperature:.0f} K, "
        f"{found.pressure:.2f} GPa, {found.volume:.3f} Å³/atom; total energy drifts by "
        f"{found.drift:.4f} meV/atom/ps"
    )


if __name__ == "__main__":
    run(main, __doc__)
