"""Two potentials on the same crystals: what training changed."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.heads import EnergyHead
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.evaluate import Score, collect, labelled, of_known_elements, score
from ase_crystalformer.training.parity import plot_parity

#: What a table calls the crystals.
HELD_OUT, FORMER = "held-out frames", "frames of the first training"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A mean absolute error before and after.

    Attributes:
        quantity: ``energy``, ``forces`` or ``stress``.
        on: Of which crystals.
        before: Of the model that training started from.
        after: Of the model it led to.
        unit: Of both.
        n: How many labels.
        labels: Mean absolute deviation of the labels from their median: the error of a constant.
    """

    quantity: str
    on: str
    before: float
    after: float
    unit: str
    n: int
    labels: float


def judge(
    model: CrystalModel,
    packed: PackedCrystals,
    which: NDArray[np.int64],
    on: str,
    plot: Path | None = None,
) -> dict[str, Score]:
    """Measure a potential on crystals of a packed set, where its predictions are finite.

    Args:
        model: Of the energy scale of the crystals; energies on other scales are compared after a
            fit of the elements.
        packed: Holds the crystals.
        which: Those to measure on.
        on: What to call them.
        plot: Where to draw what it predicts against the labels.
    """
    which = of_known_elements(model, packed, which)
    if len(which) == 0:
        return {}
    compared = labelled(collect(model, packed, which, progress=False))
    scores = {name: score(*pair, unit, on) for (name, unit), pair in compared.items()}
    if plot is not None and scores:
        plot_parity(compared, {name: one.mae for name, one in scores.items()}, plot)
    return scores


def compare(
    before: CrystalModel,
    after: CrystalModel,
    packed: PackedCrystals,
    which: NDArray[np.int64],
    plot: Path | None = None,
    on: str = HELD_OUT,
) -> list[Change]:
    """Measure two potentials on crystals of elements both know, and draw the second.

    Args:
        before: The one.
        after: The other.
        packed: Holds the crystals.
        which: Those to measure on.
        plot: Where to draw what ``after`` predicts against the labels.
        on: What to call the crystals.
    """
    which = of_known_elements(before, packed, which)
    one = judge(before, packed, which, on)
    other = judge(after, packed, which, on, plot)
    return [
        Change(
            quantity=name,
            on=on,
            before=one[name].mae,
            after=found.mae,
            unit=found.unit,
            n=found.n,
            labels=found.spread,
        )
        for name, found in other.items()
        if name in one
    ]


def compare_forgotten(
    start: CrystalModel, tuned: CrystalModel, packed: PackedCrystals, which: NDArray[np.int64]
) -> list[Change]:
    """Measure what a model forgot, on crystals of the first training, with its first references."""
    former = deepcopy(tuned)
    assert isinstance(former.head, EnergyHead)
    assert isinstance(start.head, EnergyHead)
    with torch.no_grad():
        former.head.reference.copy_(start.head.reference)
    former.energy_scale = start.energy_scale
    return compare(start, former, packed, which, on=FORMER)
