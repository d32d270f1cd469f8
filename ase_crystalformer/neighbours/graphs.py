"""Which pairs of atoms are edges: from a structure and a rule to a ``CrystalGraph``."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours.nearest import Nearest, nearest_pairs
from ase_crystalformer.neighbours.search import (
    Backend,
    Pairs,
    closer,
    neighbour_pairs,
    pair_vectors,
    refuse_touching,
)
from ase_crystalformer.structures import Crystal, as_crystal


@dataclass(frozen=True)
class Radius:
    """Every image of every atom closer than ``cutoff`` Å is a neighbour."""

    cutoff: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.cutoff) and self.cutoff > 0):
            raise ValueError(f"cutoff is {self.cutoff}; a positive number of Å is needed.")


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
    if isinstance(rule, Nearest):
        return _assemble(*nearest_pairs(crystal, rule, backend))
    return _assemble(crystal, neighbour_pairs(crystal, rule.cutoff, backend))


def _assemble(crystal: Crystal, pairs: Pairs) -> CrystalGraph:
    """Write a crystal and its pairs as a graph of one crystal."""
    atoms = len(crystal.species)
    return CrystalGraph(
        species=torch.from_numpy(crystal.species.copy()),
        positions=torch.from_numpy(crystal.positions.copy()),
        cell=torch.from_numpy(crystal.cell.copy())[None],
        periodic=torch.from_numpy(crystal.periodic.copy())[None],
        crystal=torch.zeros(atoms, dtype=torch.int64),
        multiplicity=torch.ones(atoms, dtype=torch.float64),
        receiver=torch.from_numpy(pairs.receiver),
        sender=torch.from_numpy(pairs.sender),
        image=torch.from_numpy(pairs.image),
        vector=torch.from_numpy(pairs.vector),
    )


class VerletList:
    """Graphs of one crystal that moves, from a list of pairs searched anew only when needed.

    The list holds all pairs within ``rule.cutoff + skin``. It serves as long as no other pair can
    have come within the cutoff: atoms may move by half the skin relative to their mean, less where
    the cell shrinks. The graph is the one ``build`` gives.

    Attributes:
        builds: How often pairs were searched.
        reuses: How often the list served again.
    """

    def __init__(self, rule: Radius, skin: float = 0.5, *, backend: Backend = "auto") -> None:
        if not skin >= 0:
            raise ValueError(f"skin is {skin}; zero or a positive number of Å is needed.")
        self.rule = rule
        self.skin = skin
        self.backend: Backend = backend
        self.builds = 0
        self.reuses = 0
        self._searched: tuple[Crystal, Pairs] | None = None

    def update(self, structure: Any) -> CrystalGraph:
        """Draw the graph of the structure as it is now."""
        crystal = as_crystal(structure)
        receiver, sender, image, _ = self._candidates(crystal)
        vector = pair_vectors(crystal, receiver, sender, image)
        kept = closer(vector, self.rule.cutoff)
        pairs = Pairs(receiver[kept], sender[kept], image[kept], vector[kept])
        refuse_touching(pairs)
        return _assemble(crystal, pairs)

    def _candidates(self, crystal: Crystal) -> Pairs:
        reach = self.rule.cutoff + self.skin
        if self._searched is not None:
            old, pairs = self._searched
            if _nearest_possible(old, crystal, reach) >= self.rule.cutoff:
                self.reuses += 1
                return pairs
        pairs = neighbour_pairs(crystal, reach, self.backend)
        self._searched = (crystal, pairs)
        self.builds += 1
        return pairs


def _nearest_possible(old: Crystal, new: Crystal, reach: float) -> float:
    """Bound from below how close, Å, pairs that were ``reach`` or more apart can now be.

    The motion is split into a strain, which follows from the cells and shrinks no distance by more
    than its least singular value, and what each atom moved beyond it, less the mean of all.
    """
    if len(old.species) != len(new.species):
        return 0.0
    if not np.array_equal(old.periodic, new.periodic):
        return 0.0
    before, after = old.cell[old.periodic], new.cell[new.periodic]
    strain = np.eye(3) + np.linalg.pinv(before) @ (after - before)
    moved = new.positions - old.positions @ strain
    moved -= moved.mean(axis=0)
    farthest = float(np.linalg.norm(moved, axis=1).max())
    return float(np.linalg.svd(strain, compute_uv=False)[-1]) * reach - 2 * farthest
