"""Atoms in motion, from checkpoint to checkpoint."""

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevinbaoab import LangevinBAOAB
from jaxtyping import Float
from programs import whole

from ase_crystalformer import CrystalformerError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run may not change when it goes on.

    Attributes:
        calculator: By name.
        ensemble: nve, nvt or npt.
        temperature: K. At constant energy, about which the run settles.
        pressure: GPa, of npt.
        femtoseconds: Time step.
        friction: Time constant of the thermostat, fs; that of the barostat is 20 times as long.
        length: Least height of the cell, Å.
        every: Steps from reading to reading.
        checkpoint: Readings from checkpoint to checkpoint.
        seed: Of velocities and thermostat.
    """

    calculator: str = "default"
    ensemble: str = "nve"
    temperature: float = 300.0
    pressure: float = 0.0
    femtoseconds: float = 1.0
    friction: float = 50.0
    length: float = 10.0
    every: int = 10
    checkpoint: int = 20
    seed: int = 0


@dataclass
class State:
    """All that the next step depends on.

    Attributes:
        start: Atoms before they moved.
        atoms: With momenta, without calculator.
        barostat: Momentum of the cell.
        generator: Of random numbers.
        step: How many were made.
    """

    start: Atoms
    atoms: Atoms
    barostat: float
    generator: np.random.Generator
    step: int = 0

    def save(self, path: Path, settings: Settings) -> None:
        """Write the state, whole or not at all."""
        with whole(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                numbers=self.atoms.numbers,
                positions=self.atoms.positions,
                momenta=self.atoms.get_momenta(),
                cell=self.atoms.cell.array,
                start_positions=self.start.positions,
                start_cell=self.start.cell.array,
                barostat=self.barostat,
                generator=json.dumps(self.generator.bit_generator.state),
                step=self.step,
                settings=json.dumps(asdict(settings)),
            )

    @classmethod
    def load(cls, path: Path, start: Atoms, settings: Settings) -> "State":
        """Read the state of a run.

        Raises:
            CrystalformerError: The run was begun with another crystal or other settings.
        """
        with np.load(path) as told:
            before, now = json.loads(str(told["settings"])), asdict(settings)
            changed = [f"{key} was {before[key]}" for key in now if before[key] != now[key]]
            changed += _other_crystal(told, start, settings)
            if changed:
                raise CrystalformerError(
                    f"{path} is of another run: {'; '.join(changed)}. Give another --out."
                )
            atoms = start.copy()
            atoms.set_cell(told["cell"])
            atoms.positions = told["positions"]
            atoms.set_momenta(told["momenta"])
            generator = np.random.default_rng()
            generator.bit_generator.state = json.loads(str(told["generator"]))
            return cls(start, atoms, float(told["barostat"]), generator, int(told["step"]))


def _other_crystal(told: Mapping[str, Any], start: Atoms, settings: Settings) -> list[str]:
    """Say in what a run began from another crystal.

    A checkpoint that does not tell where it began tells its cell, unless that was free to change.
    """
    if not np.array_equal(told["numbers"], start.numbers):
        return ["the crystal was another, of other elements"]
    if "start_cell" not in told:
        kept = settings.ensemble == "npt" or _close(told["cell"], start.cell.array)
        return [] if kept else ["the crystal was another, of another cell"]
    if not _close(told["start_cell"], start.cell.array):
        return ["the crystal was another, of another cell"]
    if not _close(told["start_positions"], start.positions):
        return ["the crystal was another, its atoms elsewhere"]
    return []


def _close(before: Any, now: Any) -> bool:
    """Whether lengths are the same within what files round off, Å."""
    return bool(np.allclose(before, now, rtol=0, atol=1e-4))


def begin(crystal: Atoms, settings: Settings) -> State:
    """Repeat a crystal and set it in motion.

    From rest, half of the motion goes into potential energy; velocities start at twice the
    temperature.
    """
    heights = 1 / np.linalg.norm(crystal.cell.reciprocal(), axis=1)
    repeats = np.maximum(1, np.ceil(settings.length / heights - 1e-6)).astype(int)
    atoms = crystal.repeat(repeats)
    generator = np.random.default_rng(settings.seed)
    twice = 2 * settings.temperature
    atoms.set_momenta(thermal_momenta(atoms, twice, generator))
    return State(atoms.copy(), atoms, 0.0, generator)


def thermal_momenta(
    atoms: Atoms, temperature: float, generator: np.random.Generator
) -> Float[np.ndarray, "atoms 3"]:
    """Draw momenta after Maxwell and Boltzmann, at rest as a whole, of exactly a temperature."""
    masses = atoms.get_masses()[:, None]
    momenta = np.sqrt(masses) * generator.normal(size=(len(atoms), 3))
    momenta -= masses * momenta.sum(0) / masses.sum()
    heat = (momenta**2 / masses).sum() / (3 * len(atoms) * units.kB)
    return momenta * np.sqrt(temperature / heat)


def advance(state: State, calculator: Any, settings: Settings) -> Iterator[Atoms]:
    """Move from one checkpoint to the next; yield the atoms at every reading, the first included.

    Args:
        state: Changed.
        calculator: Of ASE. A new one: what one remembers of earlier steps, such as a list of
            neighbours, changes the last bits of its forces.
        settings: Of the run.
    """
    atoms = state.atoms.copy()
    atoms.calc = calculator
    dynamics = _dynamics(atoms, state, settings)
    if state.step == 0:
        yield atoms
    for _ in range(settings.checkpoint):
        dynamics.run(settings.every)
        state.step += settings.every
        yield atoms
    state.atoms, state.barostat = atoms.copy(), float(getattr(dynamics, "p_eps", 0.0))


def _dynamics(atoms: Atoms, state: State, settings: Settings) -> LangevinBAOAB:
    friction = settings.friction * units.fs
    bath: dict[str, Any] = {"T_tau": friction}
    if settings.ensemble != "nve":
        bath |= {"temperature_K": settings.temperature, "rng": state.generator}
    if settings.ensemble == "npt":
        stress = -settings.pressure * units.GPa
        bath |= {"externalstress": stress, "hydrostatic": True, "P_tau": 20 * friction}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using heuristic P_mass")
        dynamics = LangevinBAOAB(atoms, settings.femtoseconds * units.fs, **bath)
    if settings.ensemble == "npt":
        dynamics.p_eps = state.barostat
    return dynamics
