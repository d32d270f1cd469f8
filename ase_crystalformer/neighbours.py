"""Which pairs of atoms are edges: from a structure and a rule to a ``CrystalGraph``."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbour_search import Backend, Pairs, neighbour_pairs
from ase_crystalformer.structures import Crystal, as_crystal


@dataclass(frozen=True)
class Radius:
    """Every image of every atom closer than ``cutoff`` Å is a neighbour."""

    cutoff: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.cutoff) and self.cutoff > 0):
            raise ValueError(f"cutoff is {self.cutoff}; a positive number of Å is needed.")


@dataclass(frozen=True)
class Nearest:
    """The nearest atoms of each atom, however far: the graph of the ComFormer paper, repaired.

    See ``nearest.nearest_graph`` for what it holds and what was repaired.

    Attributes:
        count: Each atom has at least so many neighbours.
        cutoff: Å. Radius at which the search for them starts; it does not change the graph.
        tolerance: Å. Neighbours that are farther than the last one by up to this count as equally far.
    """

    count: int = 25
    cutoff: float = 4.0
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.count < 1 or not self.cutoff > 0 or not self.tolerance >= 0:
            raise ValueError(f"{self}: count >= 1, cutoff > 0 and tolerance >= 0 are needed.")


Rule: TypeAlias = Radius | Nearest


def build(structure: Any, rule: Rule, *, backend: Backend = "auto") -> CrystalGraph:
    """Draw the graph of one structure.

    Args:
        structure: Anything ``structures.as_crystal`` reads.
        rule: Which pairs are edges.
        backend: The search routine; the result is the same from each. ``"auto"`` takes the fastest
            that is installed.

    Returns:
        float64 on the CPU, edges sorted by receiver, sender and image.

    Raises:
        BadStructure: The structure cannot be read, or two atoms lie on top of each other.
    """
    crystal = as_crystal(structure)
    return assemble(crystal, neighbour_pairs(crystal, rule.cutoff, backend))


def assemble(crystal: Crystal, pairs: Pairs) -> CrystalGraph:
    """Write a crystal and its pairs as a graph of one crystal."""
    atoms = len(crystal.species)
    return CrystalGraph(
        species=torch.tensor(crystal.species),
        positions=torch.tensor(crystal.positions),
        cell=torch.tensor(crystal.cell)[None],
        periodic=torch.tensor(crystal.periodic)[None],
        crystal=torch.zeros(atoms, dtype=torch.int64),
        multiplicity=torch.ones(atoms, dtype=torch.float64),
        receiver=torch.from_numpy(pairs.receiver),
        sender=torch.from_numpy(pairs.sender),
        image=torch.from_numpy(pairs.image),
        vector=torch.from_numpy(pairs.vector),
    )
