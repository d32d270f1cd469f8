"""Teacher and student on the same frames: how long each takes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_crystalformer.model import CrystalModel

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds for energy and forces of one frame, medians; the two take turns.

    Attributes:
        teacher: One by one.
        student: One by one, as an ASE calculator.
        batched: In one batch, per frame.
        ratio: Median of teacher over student, frame by frame.
        spread: Quartiles of that ratio.
        frames: How many.
    """

    teacher: float
    student: float
    batched: float
    ratio: float
    spread: tuple[float, float]
    frames: int


def time_both(teacher: Any, student: CrystalModel, frames: "Sequence[Atoms]") -> Speed:
    """Time energy and forces of each frame by one and by the other, in turn.

    Args:
        teacher: An ASE calculator.
        student: A potential.
        frames: At least one; the first is computed once more before, unmeasured.
    """
    from ase_crystalformer.calculator import CrystalformerCalculator

    own = CrystalformerCalculator(student, property_model=None)

    def seconds(calculator: Any, frame: "Atoms", moved: float = 0.0) -> float:
        atoms = frame.copy()
        atoms.positions[0] += moved
        atoms.calc = calculator
        start = time.perf_counter()
        atoms.get_potential_energy()
        atoms.get_forces()
        return time.perf_counter() - start

    for calculator in (teacher, own):
        seconds(calculator, frames[0], moved=1e-3)  # else the frame may be remembered
    pairs = np.array([[seconds(one, frame) for one in (teacher, own)] for frame in frames])
    start = time.perf_counter()
    own.model.predict(list(frames))
    batched = (time.perf_counter() - start) / len(frames)
    ratio = pairs[:, 0] / pairs[:, 1]
    low, high = np.percentile(ratio, [25, 75])
    return Speed(
        teacher=float(np.median(pairs[:, 0])),
        student=float(np.median(pairs[:, 1])),
        batched=batched,
        ratio=float(np.median(ratio)),
        spread=(float(low), float(high)),
        frames=len(frames),
    )
