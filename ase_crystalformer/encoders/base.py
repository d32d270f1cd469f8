"""What an encoder is, what it promises, and what it returns."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from jaxtyping import Float
from torch import Tensor, nn

from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import Rule


@dataclass(frozen=True)
class Approximate:
    """The law holds within a limit, and not exactly."""

    below: float
    because: str


@dataclass(frozen=True)
class Broken:
    """The law does not hold."""

    because: str


Claim = Literal[True] | Approximate | Broken


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The laws an encoder obeys. Each answer is tested both ways.

    Attributes:
        rotation: Features do not change when the crystal is rotated.
        reflection: Nor when it is mirrored.
        translation: Nor when it is moved, or one atom is moved by a lattice vector.
        permutation: They follow the atoms when those are renumbered.
        supercell: A larger cell of the same crystal gives every atom the same features.
        choice_of_cell: So does any other choice of lattice vectors.
        orbits: Atoms related by symmetry may be computed once (``orbits.reduce``).
        smooth: Features have continuous first derivatives as atoms and cell move.
    """

    rotation: Claim = True
    reflection: Claim = True
    translation: Claim = True
    permutation: Claim = True
    supercell: Claim = True
    choice_of_cell: Claim = True
    orbits: Claim = True
    smooth: Claim = True


@dataclass(frozen=True, eq=False)
class AtomFeatures:
    """What an encoder says of every atom.

    Attributes:
        invariant: Features no rotation changes.
    """

    invariant: Float[Tensor, "atoms width"]


class Encoder(nn.Module, ABC):
    """Crystal graph in, atom features out; knows no target and never pools.

    A subclass sets ``config`` (a frozen dataclass), ``width``, ``rule`` (which pairs are edges),
    ``claims`` and ``citation``, and writes ``forward(graph) -> AtomFeatures``.

    Most read the geometry off ``graph.vector`` alone. One that also reads ``graph.positions`` and
    ``graph.cell`` says so by ``reads_positions``: forces and stress then follow from all three.
    """

    config: Any
    width: int
    rule: Rule
    claims: Claims
    citation: str
    reads_positions: bool = False

    @abstractmethod
    def forward(self, graph: CrystalGraph) -> AtomFeatures:
        """Describe every atom of the graph."""


def modes(config: type) -> tuple[str, ...]:
    """List the modes a configuration allows: ``smooth``, and ``paper`` where there is a paper."""
    return get_args(get_type_hints(config)["mode"])
