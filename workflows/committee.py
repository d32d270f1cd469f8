"""A committee of potentials: trained, sent out, and asked where its members disagree."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import write
from ase.md.langevinbaoab import LangevinBAOAB
from dynamics import thermal_momenta
from jaxtyping import Float

from ase_crystalformer import CrystalformerError, load_calculator, train

RECIPE = Path(__file__).parent / "recipes" / "active-learning.toml"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study may not change when it goes on.

    Attributes:
        labels: Name of the labelling calculator.
        recipe: Of the trainings; seed, data and epochs are told by the plan.
        start: Shaken crystals to begin with.
        picked: Frames labelled in each round.
        members: Of the committee.
        epochs: Of each training.
        temperature: Of the dynamics, K.
        steps: Of the dynamics in each round, of 2 fs.
        every: Steps from frame to frame.
        trusted: Disagreement beyond which a walk is broken off, eV/Å: the frame may be nonsense.
        pick: uncertain or random.
        test: Frames of the labelling calculator's dynamics to test on.
        seed: Of all random numbers.
    """

    labels: str = "emt"
    recipe: str = str(RECIPE)
    start: int = 10
    picked: int = 10
    members: int = 2
    epochs: int = 60
    temperature: float = 800.0
    steps: int = 500
    every: int = 10
    trusted: float = 3.0
    pick: str = "uncertain"
    test: int = 20
    seed: int = 0


def trained(frames: list[Atoms], name: str, plan: Plan, out: Path) -> list[Any]:
    """Train a committee from scratch, its members on the same frames from different seeds."""
    folder = out / "models"
    shutil.rmtree(folder / "packed", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    for number, atoms in enumerate(frames):
        atoms.info["split"] = "val" if number % 10 == 9 else "train"
    write(folder / "frames.extxyz", frames)
    committee = []
    for member in range(plan.members):
        run_name = f"{name}-{member}"
        told = {
            "name": run_name,
            "seed": plan.seed + member,
            "data.packed": str(folder / "packed"),
            "data.source": str(folder / "frames.extxyz"),
            "optim.epochs": plan.epochs,
        }
        shutil.rmtree(folder / run_name, ignore_errors=True)
        settings = [f"{key}={json.dumps(value)}" for key, value in told.items()]
        made = train(plan.recipe, settings, runs=folder, progress=False)
        committee.append(load_calculator(str(made / "model")))
    return committee


def walk(
    crystal: Atoms, calculator: Any, plan: Plan, random: np.random.Generator
) -> Iterator[Atoms]:
    """Move atoms at a temperature, without end; yield every so many steps."""
    atoms = crystal.copy()
    atoms.calc = calculator
    hot = plan.temperature
    atoms.set_momenta(thermal_momenta(atoms, 2 * hot, random))
    friction = 100 * units.fs
    moving = LangevinBAOAB(atoms, 2 * units.fs, temperature_K=hot, T_tau=friction, rng=random)
    while True:
        moving.run(plan.every)
        yield atoms


def disagreement(atoms: Atoms, committee: list[Any]) -> float:
    """Largest of all atoms: how far the members' forces scatter about their mean, eV/Å."""
    forces = np.array([calculator.get_forces(atoms) for calculator in committee])
    return float(np.sqrt(((forces - forces.mean(0)) ** 2).sum(-1).mean(0)).max())


def explore(
    crystal: Atoms, committee: list[Any], plan: Plan, random: np.random.Generator
) -> tuple[list[Atoms], Float[np.ndarray, " frames"]]:
    """Collect frames of the first member's dynamics, and how much the members disagree on each.

    A walk that leaves what the committee can be trusted in begins anew.

    Raises:
        CrystalformerError: All walks leave it at once.
    """
    frames, scores = [], []
    walking = walk(crystal, committee[0], plan, random)
    for _ in range(plan.steps // plan.every):
        atoms = next(walking).copy()
        score = disagreement(atoms, committee)
        if score < plan.trusted:
            frames.append(atoms)
            scores.append(score)
        else:
            walking = walk(crystal, committee[0], plan, random)
    if len(frames) < plan.picked:
        raise CrystalformerError(
            f"Only {len(frames)} frames can be trusted, and {plan.picked} shall be picked. Start "
            "with more shaken crystals, train longer, or lower the temperature."
        )
    return frames, np.array(scores)
