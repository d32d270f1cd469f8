"""Is energy kept, and do crystals stay whole, while their atoms move without a thermostat?

Crystals of WBM, repeated and given velocities, move at constant energy (velocity Verlet). Of a
smooth potential with exact forces the energy wanders by the square of the time step and does not
drift; noise of single precision, kinks and wrong forces show as drift.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field

from ase_crystalformer.assessment.benchmark import (
    Benchmark,
    Count,
    Positive,
    Statistic,
    atoms_of,
)
from ase_crystalformer.assessment.statistics import (
    mean_absolute,
    median_absolute,
    share,
    statistic,
)
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.readers import load
from ase_crystalformer.errors import BadStructure

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

#: A run this many times hotter than it began has exploded.
EXPLOSION = 5.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """How atoms move.

    Attributes:
        temperatures: About which the runs settle, K: velocities start at twice that, and half of
            it goes into potential energy.
        picoseconds: Length of a run.
        femtoseconds: Time step.
        length: Least distance of an atom from its image, Å.
        every: Energies are read every so many steps.
    """

    temperatures: Annotated[tuple[Positive, ...], Field(min_length=1)] = (300.0, 1000.0)
    picoseconds: Positive = 10.0
    femtoseconds: Positive = 1.0
    length: Positive = 8.0
    every: Count = 10


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trajectory.

    Attributes:
        temperature: It was to settle about, K.
        mean_temperature: Over its second half, K.
        drift: Slope of the total energy by time, meV/atom/ps.
        wander: Root mean square deviation of the total energy from that slope, meV/atom.
        picoseconds: How long it went.
        exploded: Whether it was stopped for its heat, or since the potential refused to go on.
    """

    temperature: float
    mean_temperature: float
    drift: float
    wander: float
    picoseconds: float
    exploded: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """Trajectories of one crystal.

    Attributes:
        atoms: How many atoms moved.
        runs: One per temperature.
    """

    atoms: int
    runs: list[Run]


def repeated(atoms: "Atoms", length: float) -> "Atoms":
    """Repeat a crystal until atoms are far from their images."""
    heights = 1 / np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    return atoms.repeat(np.maximum(1, np.ceil(length / heights - 1e-6)).astype(int))


def run(
    atoms: "Atoms", calculator: Any, temperature: float, options: Options, seed: int = 0
) -> Run:
    """Let atoms move at constant energy from where they rest, and watch it.

    Args:
        atoms: Not changed.
        calculator: Of ASE.
        temperature: About which to settle, K.
        options: Length and step.
        seed: Of the velocities.

    Raises:
        BadStructure: The potential has no energy for the crystal as it is.
    """
    from ase import units
    from ase.md.verlet import VelocityVerlet

    moving = atoms.copy()
    moving.calc = calculator
    start = 2 * temperature
    moving.set_velocities(thermal_velocities(moving, start, np.random.default_rng(seed)))
    dynamics = VelocityVerlet(moving, timestep=options.femtoseconds * units.fs)
    readings, exploded = _watched(moving, dynamics, options, EXPLOSION * start)
    times, energies, heat = np.transpose(readings)
    drift, wander = _line(times, energies)
    return Run(
        temperature=temperature,
        mean_temperature=float(heat[len(heat) // 2 :].mean()),
        drift=drift,
        wander=wander,
        picoseconds=float(times[-1]),
        exploded=exploded,
    )


def _watched(
    moving: "Atoms", dynamics: Any, options: Options, hottest: float
) -> tuple[list[tuple[float, float, float]], bool]:
    """Move; read time in ps, energy in eV/atom and heat in K; say whether atoms flew apart."""
    readings: list[tuple[float, float, float]] = []
    steps = round(1000 * options.picoseconds / options.femtoseconds)
    try:
        for _ in dynamics.irun(steps):
            if dynamics.nsteps % options.every:
                continue
            time = dynamics.nsteps * options.femtoseconds / 1000
            readings.append((time, *_energy_and_heat(moving)))
            if readings[-1][2] >= hottest:
                return readings, True
    except BadStructure:
        # A potential may refuse what has become of a crystal, but not how it began.
        if not readings:
            raise
        return readings, True
    return readings, False


def _energy_and_heat(moving: "Atoms") -> tuple[float, float]:
    energy, heat = moving.get_total_energy() / len(moving), moving.get_temperature()
    if not np.isfinite([energy, heat]).all():
        raise BadStructure(f"The energy is {energy} eV/atom, the temperature {heat} K.")
    return float(energy), float(heat)


def thermal_velocities(
    atoms: "Atoms", temperature: float, generator: np.random.Generator
) -> Float[ndarray, "atoms 3"]:
    """Draw velocities after Maxwell and Boltzmann, at rest as a whole, of exactly a temperature."""
    masses = atoms.get_masses()[:, None]
    velocities = generator.normal(size=(len(atoms), 3)) / np.sqrt(masses)
    velocities -= (masses * velocities).sum(0) / masses.sum()
    hot = atoms.copy()
    hot.set_velocities(velocities)
    return velocities * np.sqrt(temperature / hot.get_temperature())


def _line(
    times: Float[ndarray, " readings"], energies: Float[ndarray, " readings"]
) -> tuple[float, float]:
    """Slope of a line through energies and the deviation from it, in meV."""
    if len(times) < 3:
        return 0.0, 0.0
    slope, offset = np.polyfit(times, energies, 1)
    left = energies - slope * times - offset
    return float(1000 * slope), float(1000 * np.sqrt((left**2).mean()))


def measure(calculator: Any, crystal: LabelledCrystal, options: Options) -> Row:
    """Run one crystal at every temperature."""
    atoms = repeated(atoms_of(crystal), options.length)
    seed = zlib.crc32(crystal.id.encode())
    runs = [run(atoms, calculator, heat, options, seed) for heat in options.temperatures]
    return Row(atoms=len(atoms), runs=runs)


def summarise(rows: Sequence[Row]) -> list[Statistic]:
    """Average over the runs of each temperature."""
    found = []
    for temperature in sorted({one.temperature for row in rows for one in row.runs}):
        runs = [one for row in rows for one in row.runs if one.temperature == temperature]
        group = f"{temperature:g} K"
        whole = [one for one in runs if not one.exploded]
        drifts = [one.drift for one in whole]
        unit = "meV/atom/ps"
        found += [
            share("exploded", (one.exploded for one in runs), group),
            statistic("drift, mean absolute", unit, drifts, mean_absolute, group),
            statistic("drift, median absolute", unit, drifts, median_absolute, group),
            statistic("drift, largest", unit, drifts, lambda d: float(np.abs(d).max()), group),
            statistic("wander, mean", "meV/atom", (one.wander for one in whole), group=group),
            statistic("temperature, mean", "K", (o.mean_temperature for o in whole), group=group),
        ]
    return found


def draw(figure: "Figure", rows: Sequence[Row]) -> None:
    """Drift and wander of every run."""
    left, right = figure.subplots(1, 2)
    for temperature in sorted({one.temperature for row in rows for one in row.runs}):
        runs = [one for row in rows for one in row.runs if one.temperature == temperature]
        whole = [one for one in runs if not one.exploded]
        for axes, name in ((left, "drift"), (right, "wander")):
            values = np.sort([abs(getattr(one, name)) for one in whole])
            places = np.arange(1, len(values) + 1)
            axes.plot(places, values, marker="o", linewidth=0.8, label=f"{temperature:g} K")
            axes.xaxis.get_major_locator().set_params(integer=True)
    left.set(ylabel="drift, absolute (meV/atom/ps)", xlabel="run, sorted", yscale="log")
    right.set(ylabel="wander (meV/atom)", xlabel="run, sorted", yscale="log")
    left.legend()


def _crystals(data: Path, _: Options) -> Iterable[LabelledCrystal]:
    return load("wbm_equilibrium", data)


DYNAMICS = Benchmark(
    name="dynamics",
    about="drift of the energy in 10 ps at constant energy, at 300 and 1,000 K; explosions",
    row=Row,
    options=Options,
    crystals=_crystals,
    measure=measure,
    summarise=summarise,
    draw=draw,
    count=10,
)
