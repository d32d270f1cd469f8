"""Crystals out of rest: shaken, strained, squeezed, for a teacher to label."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ase_crystalformer.errors import BadRecipe

if TYPE_CHECKING:
    from ase import Atoms

Kind = Literal["rest", "rattle", "strain", "squeeze", "both"]

#: How often each is drawn; ``both`` is shaken and strained.
SHARES: dict[Kind, float] = {"both": 0.5, "rattle": 0.25, "strain": 0.15, "squeeze": 0.1}

#: How often a perturbation is halved, to keep atoms apart, before the crystal is left at rest.
HALVINGS = 8


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """How far crystals are moved from where they are.

    Attributes:
        frames: How many of each crystal, besides itself.
        rattle: Least and largest standard deviation of Cartesian displacements, Å; each frame draws
            its own, evenly in the logarithm.
        strain: Largest component of a random symmetric strain.
        squeeze: Largest share by which all lengths shrink at once; such frames are shaken by the
            least ``rattle``, too.
        closest: Atoms closer than this share of the sum of their covalent radii overlap. A
            perturbation that brings them so close is halved until none are. Crystals whose own
            atoms are closer may come closer by a tenth.
        seed: Of everything random.

    Raises:
        BadRecipe: A value is out of range.
    """

    frames: int = 10
    rattle: tuple[float, float] = (0.02, 0.35)
    strain: float = 0.05
    squeeze: float = 0.1
    closest: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.rattle
        right = {
            f"frames is {self.frames}; it is at least 1": self.frames >= 1,
            f"rattle is {self.rattle} Å; it is two numbers, 0 < least <= largest": 0 < low <= high,
            f"strain is {self.strain}; it is from 0 to 0.3": 0 <= self.strain <= 0.3,
            f"squeeze is {self.squeeze}; it is from 0 to 0.3": 0 <= self.squeeze <= 0.3,
            f"closest is {self.closest}; it is from 0 to 1": 0 <= self.closest <= 1,
            f"seed is {self.seed}; it is at least 0": self.seed >= 0,
        }
        if wrong := [what for what, holds in right.items() if not holds]:
            raise BadRecipe(f"{'; '.join(wrong)}.")


def perturbed(atoms: "Atoms", name: str, amounts: Perturbation) -> Iterator["Atoms"]:
    """Yield a crystal as it is, and then its perturbed copies.

    A copy depends on the name of the crystal, its own number and the seed alone. Crystals that are
    not periodic along all directions are shaken only.

    Args:
        atoms: The crystal.
        name: Its name; ``info`` of each copy has ``id``, ``parent`` and ``kind``.
        amounts: How far.
    """
    limit = amounts.closest
    if (own := closest_ratio(atoms, limit / 0.9)) is not None:
        limit = min(limit, 0.9 * own)
    for number in range(amounts.frames + 1):
        random = np.random.default_rng([amounts.seed, zlib.crc32(name.encode()), number])
        kind: Kind = "rest" if number == 0 else _kind(atoms, random)
        frame = _moved(atoms, kind, amounts, limit, random)
        frame.info = {"id": f"{name}/{number}", "parent": name, "kind": kind}
        yield frame


def _kind(atoms: "Atoms", random: np.random.Generator) -> Kind:
    drawn = random.choice(len(SHARES), p=list(SHARES.values()))
    return list(SHARES)[drawn] if atoms.pbc.all() else "rattle"


def _moved(
    atoms: "Atoms", kind: Kind, amounts: Perturbation, limit: float, random: np.random.Generator
) -> "Atoms":
    """Perturb a copy, by half as much again and again while atoms overlap."""
    low, high = np.log(amounts.rattle)
    width = {"rattle": np.exp(random.uniform(low, high)), "squeeze": np.exp(low)}
    width["both"] = width["rattle"]
    noise = random.standard_normal((len(atoms), 3)) * width.get(kind, 0.0)
    strain = np.zeros((3, 3))
    if kind in ("strain", "both"):
        drawn = random.uniform(-amounts.strain, amounts.strain, (3, 3))
        strain = np.triu(drawn) + np.triu(drawn, 1).T
    elif kind == "squeeze":
        strain = -random.uniform(0, amounts.squeeze) * np.eye(3)
    for halving in range(HALVINGS + 1):
        frame = _deformed(atoms, strain / 2**halving, noise / 2**halving)
        if closest_ratio(frame, limit) is None:
            return frame
    return _deformed(atoms, np.zeros((3, 3)), np.zeros_like(noise))


def _deformed(
    atoms: "Atoms", strain: Float[ndarray, "3 3"], noise: Float[ndarray, "atoms 3"]
) -> "Atoms":
    from ase import Atoms

    change = np.eye(3) + strain
    return Atoms(
        numbers=atoms.numbers,
        positions=atoms.positions @ change + noise,
        cell=atoms.cell.array @ change,
        pbc=atoms.pbc,
    )


def closest_ratio(atoms: "Atoms", below: float) -> float | None:
    """Smallest distance over the sum of the covalent radii, if it is below a limit."""
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    radii = covalent_radii[atoms.numbers]
    first, second, distance = neighbor_list("ijd", atoms, list(below * radii))
    if len(distance) == 0:
        return None
    return float((distance / (radii[first] + radii[second])).min())
