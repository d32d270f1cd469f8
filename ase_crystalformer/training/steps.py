"""Batches that make up one step of the optimiser, and the labels they hold together.

Losses are means over what has a label. Batches of several processes, or of one that accumulates,
hold unequal numbers of them, and a mean of their means is not the mean. So each sum is divided by
the mean number of labels of all batches of its step; the average of the batches' gradients, which
is what the optimiser sees, is then the gradient of one batch of all their crystals. Every process
knows the order of all batches, so the numbers need no messages.

Batch norms still see one batch at a time.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from ase_crystalformer.data.loader import Drawn, EdgeBudgetSampler
from ase_crystalformer.data.packed import PackedCrystals

#: What the number of labels of a name is called among the labels.
KNOWN = "known."

#: Crystals whose forces are counted at once.
CHUNK = 10_000


class StepSampler(Sampler[Drawn]):
    """The batches of a shuffled sampler, each with the mean numbers of labels in its step.

    Args:
        sampler: Of this process.
        known: Labels of every crystal, by name.
        accumulate: Batches of each process in a step.
    """

    def __init__(
        self, sampler: EdgeBudgetSampler, known: Mapping[str, NDArray[np.int64]], accumulate: int
    ) -> None:
        self.sampler, self.known, self.accumulate = sampler, known, accumulate

    def __iter__(self) -> Iterator[Drawn]:
        batches, world = self.sampler.batches_of_all(), self.sampler.world
        size = world * self.accumulate
        own = batches[self.sampler.rank :: world]
        for number, batch in enumerate(own[self.sampler.skip :], self.sampler.skip):
            first = number // self.accumulate * size
            together = np.concatenate(batches[first : first + size])
            mean = {
                KNOWN + name: torch.tensor(count[together].sum() / size, dtype=torch.float32)
                for name, count in self.known.items()
            }
            yield batch.tolist(), mean

    def __len__(self) -> int:
        return len(self.sampler)


def steps_in(batches: int, accumulate: int) -> int:
    """Count the steps of so many batches; what is left at the end of an epoch is a step, too."""
    return math.ceil(batches / accumulate)


def known_labels(packed: PackedCrystals) -> dict[str, NDArray[np.int64]]:
    """Count the labels of every crystal by name: scalars, atoms with forces, stresses, atoms."""
    known = {name: np.isfinite(packed.label(name)).astype(np.int64) for name in packed.labels}
    with_forces = np.zeros(len(packed), dtype=np.int64)
    for owner, forces in _forces(packed):
        np.add.at(with_forces, owner, np.isfinite(forces).all(1))
    stress = np.isfinite(packed.arrays["stress"]).all((1, 2)).astype(np.int64)
    atoms = np.asarray(packed.arrays["atoms"], dtype=np.int64)
    return known | {"forces": with_forces, "stress": stress, "atoms": atoms}


def has_labels(packed: PackedCrystals, name: str, which: NDArray[np.int64]) -> bool:
    """Say whether any of some crystals has ``energy``, ``forces``, or ``stress``.

    Reads no further than the first few thousand crystals with one. Where one atom of a crystal has
    forces, all have.
    """
    if name != "forces":
        label = packed.arrays["stress" if name == "stress" else f"label.{name}"]
        return bool(np.isfinite(label[which]).any())
    first = packed.atom_start[which]
    chunks = (first[start : start + CHUNK] for start in range(0, len(first), CHUNK))
    return any(bool(np.isfinite(packed.arrays["forces"][rows]).any()) for rows in chunks)


def largest_forces(packed: PackedCrystals) -> NDArray[np.float64]:
    """Length of the largest force in every crystal, eV/Å; zero where it has none."""
    largest = np.zeros(len(packed))
    for owner, forces in _forces(packed):
        np.fmax.at(largest, owner, np.linalg.norm(forces, axis=1))
    return largest


def _forces(packed: PackedCrystals) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Read the forces of a few thousand crystals at a time, with the number of each one's."""
    atoms = np.asarray(packed.arrays["atoms"], dtype=np.int64)
    for first in range(0, len(packed), CHUNK):
        rows = atoms[first : first + CHUNK]
        start = packed.atom_start[first]
        owner = np.repeat(np.arange(first, first + len(rows)), rows)
        yield owner, np.asarray(packed.arrays["forces"][start : start + rows.sum()])


def number_known(labels: Mapping[str, Tensor], name: str, own: int | Tensor) -> Tensor | int:
    """Return what to divide a sum over a batch by, to add up to a mean over its step.

    Args:
        labels: Of the batch.
        name: Of the label.
        own: How many of them the batch has, which counts where it is a step of its own.
    """
    number = labels.get(KNOWN + name, own)
    if isinstance(number, Tensor):
        return torch.where(number > 0, number, torch.ones_like(number))
    return max(1, number)
