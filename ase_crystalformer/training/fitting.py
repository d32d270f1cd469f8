"""What is measured on the labels before any weight moves: scales, references, elements."""

import numpy as np
import torch
from numpy.typing import NDArray

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.heads import EnergyHead
from ase_crystalformer.targets import TARGETS, Target


def fit_targets(names: tuple[str, ...], packed: PackedCrystals, train: NDArray[np.int64]) -> list[Target]:
    """Scale every target by the labels of the training crystals."""
    return [TARGETS[name].fitted(torch.from_numpy(packed.label(name)[train])) for name in names]


def compositions(packed: PackedCrystals, which: NDArray[np.int64], elements: int) -> NDArray[np.float64]:
    """Count the atoms of every element in every crystal, (crystals, elements + 1)."""
    owner = np.repeat(np.arange(len(packed)), packed.arrays["atoms"])
    place = np.full(len(packed), -1)
    place[which] = np.arange(len(which))
    row = place[owner]
    table = np.zeros((len(which), elements + 1))
    kept = row >= 0
    weight = np.asarray(packed.arrays["multiplicity"], dtype=float)[kept]
    np.add.at(table, (row[kept], np.asarray(packed.arrays["species"])[kept]), weight)
    return table


def fit_references(head: EnergyHead, packed: PackedCrystals, which: NDArray[np.int64]) -> None:
    """Set element references by least squares on energies per atom, and the scale of what is left."""
    energy = packed.label("energy")[which]
    which, energy = which[~np.isnan(energy)], energy[~np.isnan(energy)]
    counts = compositions(packed, which, head.reference.shape[0] - 1)
    atoms = counts.sum(1, keepdims=True)
    reference, *_ = np.linalg.lstsq(counts / atoms, energy / atoms[:, 0], rcond=None)
    left = energy / atoms[:, 0] - counts / atoms @ reference
    head.reference.copy_(torch.from_numpy(reference))
    head.scale.fill_(float(left.std()))


def elements_seen(packed: PackedCrystals, which: NDArray[np.int64], elements: int = 118) -> tuple[int, ...]:
    """List the atomic numbers present."""
    return tuple(np.flatnonzero(compositions(packed, which, elements).sum(0)).tolist())
