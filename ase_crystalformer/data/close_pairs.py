"""Pairs of atoms closer than in any crystal, where the repulsion of nuclei is all that counts."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.repulsion import COVALENT_RADII, repulsion

#: Distances in sums of the covalent radii. Of the atoms in the training data one in a thousand is
#: closer than the larger one to another.
CLOSEST, FARTHEST = 0.25, 0.55

#: Pairs of every element: with itself, and with others drawn at random.
ALIKE, MIXED = 6, 10


def close_pairs(elements: Sequence[int], seed: int) -> Iterator[LabelledCrystal]:
    """Yield pairs of atoms in empty space with the forces of ``repulsion``, and no energy.

    A potential adds that repulsion to what its network says, so these labels ask the network to be
    silent where it would otherwise have to guess.

    Args:
        elements: Atomic numbers.
        seed: Of partners and distances.
    """
    random = np.random.default_rng(seed)
    for number in elements:
        partners = [number] * ALIKE + random.choice(elements, MIXED).tolist()
        for copy, partner in enumerate(partners):
            reach = float(COVALENT_RADII[number] + COVALENT_RADII[partner])
            distance = reach * random.uniform(CLOSEST, FARTHEST)
            force = push(number, partner, distance)
            yield LabelledCrystal(
                species=np.array([number, partner]),
                positions=np.array([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]]),
                cell=np.zeros((3, 3)),
                periodic=np.zeros(3, dtype=bool),
                labels={"forces": np.array([[-force, 0.0, 0.0], [force, 0.0, 0.0]])},
                id=f"{number}-{partner}/{copy}",
                split="train",
                source="close_pairs",
                group="mp",
            )


def push(first: int, second: int, distance: float) -> float:
    """Force that drives two atoms apart by the repulsion of their nuclei alone, eV/Å."""
    length = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
    vector = torch.stack([length, -length])[:, None] * torch.eye(3, dtype=torch.float64)[:1]
    species = torch.tensor([first, second])
    energy = repulsion(vector, species, torch.tensor([0, 1]), torch.tensor([1, 0])).sum()
    (slope,) = torch.autograd.grad(energy, length)
    return -float(slope)
