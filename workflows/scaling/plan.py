"""What is varied: a small TOML file."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERIES = ("size", "data", "compute")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """An encoder in several sizes.

    Attributes:
        name: Of its files.
        label: In the table and the picture.
        encoder: A name ``crystalformer train`` knows.
        sizes: Its configuration, from small to large.
        augment: Whether training crystals are turned and mirrored at random in every step.
    """

    name: str
    label: str
    encoder: str
    sizes: list[dict[str, Any]]
    augment: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study.

    Attributes:
        contenders: Who takes part.
        base: ``size`` (which of the sizes, from 0), ``crystals`` and ``epochs`` where the three
            series meet.
        crystals: Amounts of data; each is trained on for as many steps as the base.
        epochs: Lengths of training.
        seeds: Each run is repeated with each.
        validation: Crystals to judge by.
        cutoff: Of all encoders, Å.
        energy: Weights of the errors, as in a recipe.
        optim: As in a recipe, but ``epochs``.
        machine: As in a recipe.
    """

    contenders: list[Contender]
    base: dict[str, int]
    crystals: list[int]
    epochs: list[int]
    seeds: list[int]
    validation: int
    cutoff: float
    energy: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run."""

    contender: str
    size: int
    crystals: int
    epochs: int
    seed: int


def read_plan(path: Path) -> Plan:
    """Read a plan."""
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    contenders = [Contender(name=name, **row) for name, row in told.pop("contenders").items()]
    return Plan(contenders=contenders, **told)


def runs_of(plan: Plan, series: str) -> list[Run]:
    """List the runs of one series, the small ones first."""
    size, crystals, epochs = (plan.base[key] for key in ("size", "crystals", "epochs"))
    steps = crystals * epochs
    runs = []
    for contender in plan.contenders:
        settings = {
            "size": [(number, crystals, epochs) for number in range(len(contender.sizes))],
            "data": [(size, number, max(1, round(steps / number))) for number in plan.crystals],
            "compute": [(size, crystals, number) for number in plan.epochs],
        }[series]
        runs += [
            Run(contender=contender.name, size=which, crystals=some, epochs=long, seed=seed)
            for which, some, long in settings
            for seed in plan.seeds
        ]
    return runs


def all_runs(plan: Plan) -> list[Run]:
    """List every run once; seeds and contenders alternate, so that half a study says something."""
    runs = {run: None for series in SERIES for run in runs_of(plan, series)}
    return sorted(runs, key=lambda run: run.seed)
