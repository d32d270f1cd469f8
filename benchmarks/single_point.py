"""Single points: energy, forces and stress by the calculator, as in dynamics or relaxation."""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_crystalformer.calculator import CrystalformerCalculator
from ase_crystalformer.neighbours import Radius, VerletList
from benchmarks.crystals import perovskite, salt, shaken, silicon
from benchmarks.models import bundled_or_random
from benchmarks.timing import Effort, Row, Way, compare

ASKED = ("energy", "forces", "stress")


class Forgetful(CrystalformerCalculator):
    """The same calculator, but it searches for neighbours at every step."""

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        """Compute, having forgotten all pairs."""
        rule = self.model.encoder.rule
        assert isinstance(rule, Radius)
        self._pairs = VerletList(rule, skin=0.0)
        super().calculate(*args, **kwargs)


def run(effort: Effort) -> list[Row]:
    """Compute crystals whose atoms move by 0.02 Å from step to step, on one thread and two."""
    if effort.small:
        return _one("Si 8", silicon(1), 1, effort)
    systems = {
        "Si 8": silicon(1),
        "Si 64": silicon(2),
        "Si 216": silicon(3),
        "NaCl 64": salt(2),
        "SrTiO3 40": perovskite(2),
    }
    return [
        row
        for name, atoms in systems.items()
        for threads in (1, 2)
        for row in _one(name, atoms, threads, effort)
    ]


def _one(name: str, atoms: Atoms, threads: int, effort: Effort) -> list[Row]:
    model = bundled_or_random("default")
    ways = [
        Way(
            name=label,
            run=_stepper(kind(model, property_model=None, device="cpu"), atoms),
            read=_numbers,
            items=(len(atoms), "atoms"),
        )
        for label, kind in {
            "calculator": CrystalformerCalculator,
            "without reuse of neighbours": Forgetful,
        }.items()
    ]
    case = f"{name} atoms, {model.card.name}"
    return compare(case, ways, effort, tolerance=1e-4, threads=threads)


def _stepper(calculator: CrystalformerCalculator, atoms: Atoms) -> Callable[[], dict[str, Any]]:
    """Return a function that computes the next frame of a short trajectory, over and over."""
    frames = cycle(shaken(atoms, frames=8))

    def step() -> dict[str, Any]:
        calculator.calculate(next(frames), ASKED)
        return calculator.results

    return step


def _numbers(results: dict[str, Any]) -> NDArray[np.float64]:
    return np.concatenate([np.ravel(results[name]) for name in ASKED])
