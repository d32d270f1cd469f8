"""Crystals no property model can know: atoms too close, too far apart, or no crystal at all.

A property model tells no uncertainty. But what it learned from is near equilibrium, where no atom
is far closer to its nearest neighbour than a bond, and none farther than a contact.
"""

from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import neighbour_pairs
from ase_crystalformer.structures import Crystal, as_crystal

CLOSE = 0.6
"""Of the sum of covalent radii. Every sixth crystal of ``mp_labelled`` (8,644) keeps to it."""

APART = 1.5
"""Å beyond the sum of covalent radii, of noble gases van der Waals radii.

Of the same 8,644 crystals ten hold an atom that is farther from all others; none of 5,232 that have
elastic moduli, of 1,262 that have phonons, of 480 of WBM.
"""


def odd_spacing(structure: Any, graph: CrystalGraph) -> str:
    """Say what of a crystal is spaced oddly; nothing if all is as usual.

    Args:
        structure: As a user gives it.
        graph: As a model draws it. All distances are searched only where its edges look odd.
    """
    return search_oddity(as_crystal(structure)) if looks_odd(graph) else ""


def looks_odd(graph: CrystalGraph) -> bool:
    """Say whether a crystal may be spaced oddly, from the edges that are there."""
    species, receiver, sender = (
        part.numpy() for part in (graph.species, graph.receiver, graph.sender)
    )
    distance = np.linalg.norm(graph.vector.numpy(), axis=1)
    close, gap = _spacing(species, receiver, sender, distance)
    near = np.zeros(len(species), dtype=bool)
    near[receiver[gap <= APART]] = True
    return bool((close < CLOSE).any() or not near.all() or not graph.periodic.any())


def search_oddity(crystal: Crystal) -> str:
    """Say what of a crystal is spaced oddly, from all distances that matter."""
    from ase.data import chemical_symbols

    if not crystal.periodic.any():
        return "it repeats in no direction, so it is no crystal"
    reach = APART + 2 * float(_far_radii()[crystal.species].max())
    pairs = neighbour_pairs(crystal, reach)
    distance = np.linalg.norm(pairs.vector, axis=1)
    close, gap = _spacing(crystal.species, pairs.receiver, pairs.sender, distance)
    names = [f"atom {n} ({chemical_symbols[z]})" for n, z in enumerate(crystal.species)]
    if (close < CLOSE).any():
        worst = int(close.argmin())
        one, other = names[pairs.receiver[worst]], names[pairs.sender[worst]]
        return (
            f"{one} is {distance[worst]:.2f} Å from {other}, {close[worst]:.2f} of the sum of "
            f"their covalent radii (crystals have {CLOSE} or more)"
        )
    lonely = sorted({*range(len(names))} - {*pairs.receiver[gap <= APART].tolist()})
    if not lonely:
        return ""
    return f"{names[lonely[0]]} is {APART} Å or more beyond bond length from every other atom"


def _spacing(
    species: Int[ndarray, " atoms"],
    receiver: Int[ndarray, " pairs"],
    sender: Int[ndarray, " pairs"],
    distance: Float[ndarray, " pairs"],
) -> tuple[Float[ndarray, " pairs"], Float[ndarray, " pairs"]]:
    """Tell of every pair its distance in sums of covalent radii, and the gap between them, Å."""
    near, far = _near_radii()[species], _far_radii()[species]
    return (
        distance / (near[receiver] + near[sender]),
        distance - (far[receiver] + far[sender]),
    )


@cache
def _near_radii() -> Float[ndarray, " elements"]:
    from ase.data import covalent_radii

    return np.array(covalent_radii)


@cache
def _far_radii() -> Float[ndarray, " elements"]:
    """Covalent radii; of noble gases, which have no bonds in their crystals, van der Waals'."""
    from ase.data import atomic_numbers, vdw_radii

    radii = _near_radii().copy()
    noble = [atomic_numbers[symbol] for symbol in ("He", "Ne", "Ar", "Kr", "Xe", "Rn")]
    radii[noble] = vdw_radii[noble]
    return radii
