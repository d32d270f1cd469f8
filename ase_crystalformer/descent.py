"""Structures on their way downhill, side by side on one device."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from ase_crystalformer.batching import PER_ATOM
from ase_crystalformer.errors import BadStructure, CrystalformerError
from ase_crystalformer.fire import Fire
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.heads import EnergyResult
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.moving import Mover, MovingBatch
from ase_crystalformer.quantities import Quantities, energy_quantities
from ase_crystalformer.structures import Crystal

STIFFNESS = 2.0
"""Å per square root of an atom: strain times this is about as stiff as the position of an atom."""

LARGEST_CHANGE = 10.0
"""Factor by which a volume may change before a structure counts as lost."""


@dataclass(eq=False)
class Walker:
    """One structure on its way.

    Attributes:
        mover: Where it is.
        free: Which atoms may move.
        along: Projector onto the directions along which its cell may be strained.
        volume: At the start, Å³ (or area, or length).
        fire: Its inertia.
        steps: How often it moved.
    """

    mover: Mover
    free: Bool[ndarray, " atoms"]
    along: Float[ndarray, "3 3"]
    volume: float = field(init=False)
    fire: Fire = field(init=False)
    steps: int = 0

    def __post_init__(self) -> None:
        self.volume = abs(float(np.linalg.det(self.mover.crystal.cell)))
        self.fire = Fire.at_rest(len(self.free) + 3)

    @classmethod
    def of(
        cls, crystal: Crystal, cutoff: float, free: Bool[ndarray, " atoms"], relax_cell: bool
    ) -> "Walker":
        """Put a structure at the start."""
        vectors = crystal.cell[crystal.periodic] * relax_cell
        return cls(Mover.of(crystal, cutoff), free, np.linalg.pinv(vectors) @ vectors)

    @property
    def work(self) -> int:
        """What a step costs, in edges."""
        return len(self.mover.pairs.receiver) + PER_ATOM * len(self.free)


@dataclass(frozen=True, eq=False)
class Arrival:
    """A structure that is done, for good or ill.

    Attributes:
        number: Which of the batch.
        outcome: Its energy, forces and stress, or what went wrong.
        fmax: Largest force on a free atom, eV/Å.
        converged: Whether it is relaxed.
    """

    number: int
    outcome: Quantities | CrystalformerError
    fmax: float = np.nan
    converged: bool = False


class Descent:
    """Walkers as one batch.

    Coordinates are the positions of the atoms and the strain since the last step, so that forces
    are exact at every step: strain turns into cell by its exponential, and starts at zero again.
    """

    def __init__(
        self, walkers: Sequence[Walker], model: CrystalModel, fmax: float, steps: int
    ) -> None:
        self.walkers, self.model, self.fmax, self.most_steps = walkers, model, fmax, steps
        device = model.device
        self.batch = MovingBatch(
            [walker.mover for walker in walkers], model.encoder.rule.cutoff, device
        )
        self.fire = Fire.join([walker.fire for walker in walkers], device)
        self.atoms = torch.tensor([len(walker.free) for walker in walkers], device=device)
        end = (self.atoms + 3).cumsum(0)[:, None]
        self.strain_rows = (end + torch.arange(-3, 0, device=device)).flatten()
        is_atom = torch.ones_like(self.fire.owner, dtype=torch.bool)
        is_atom[self.strain_rows] = False
        self.atom_rows = torch.nonzero(is_atom)[:, 0]
        self.free = torch.from_numpy(np.concatenate([w.free for w in walkers])).to(device)
        self.along = torch.from_numpy(np.stack([w.along for w in walkers])).to(device)
        self.volume = torch.tensor([w.volume for w in walkers], device=device).double()
        self.steps = torch.tensor([w.steps for w in walkers], device=device)

    def run(self) -> list[Arrival]:
        """Move until someone arrives, or until pairs must be searched anew."""
        arrived: list[Arrival] = []
        stale: list[int] = []
        try:
            while not (arrived or stale):
                arrived = self._step()
                stale = self.batch.stale()
        finally:
            self._unload()
        gone = {arrival.number for arrival in arrived}
        return arrived + self._search([number for number in stale if number not in gone])

    def _step(self) -> list[Arrival]:
        graph = self.batch.graph(self.model.dtype)
        result = self.model.energy(graph)
        assert result.forces is not None
        forces = result.forces.double() * self.free[:, None]
        pull = self._pull(result, graph)
        fmax = forces.new_zeros(len(self.walkers))
        fmax = fmax.scatter_reduce(0, self.batch.crystal, forces.norm(dim=-1), "amax")
        per_atom = pull.norm(dim=-1).amax(-1) / self.atoms
        change = torch.linalg.det(self.batch.cell).abs() / self.volume
        lost = ~(torch.maximum(change, 1 / change) < LARGEST_CHANGE)
        lost |= ~(fmax + per_atom + result.energy).isfinite()
        relaxed = torch.maximum(fmax, per_atom) < self.fmax
        stays = relaxed | lost | (self.steps >= self.most_steps)
        self._move(forces, pull, stays)
        if not bool(stays.any()):
            return []
        outcomes = energy_quantities(result, graph)
        return [
            Arrival(number, _kept(outcomes[number], change[number]), *told)
            for number, *told in zip(
                torch.nonzero(stays)[:, 0].tolist(),
                fmax[stays].tolist(),
                relaxed[stays].tolist(),
                strict=True,
            )
        ]

    def _pull(self, result: EnergyResult, graph: CrystalGraph) -> Float[Tensor, "crystals 3 3"]:
        """Force on the strain of every cell, along the directions it may change in, eV."""
        assert result.stress is not None
        pull = -result.stress.double() * graph.volume.double()[:, None, None]
        return self.along @ pull @ self.along

    def _move(
        self,
        forces: Float[Tensor, "atoms 3"],
        pull: Float[Tensor, "crystals 3 3"],
        stays: Bool[Tensor, " crystals"],
    ) -> None:
        """Take one step with all but those that stay."""
        length = STIFFNESS * self.atoms.double().sqrt()[:, None, None]
        rows = torch.zeros_like(self.fire.velocity)
        rows[self.atom_rows] = forces
        rows[self.strain_rows] = (pull / length).flatten(0, 1)
        rows[stays[self.fire.owner]] = 0.0
        moves = self.fire.step(rows)
        strain = moves[self.strain_rows].unflatten(0, (-1, 3)) / length
        stretch = torch.linalg.matrix_exp(strain)
        positions = self.batch.positions + moves[self.atom_rows]
        self.batch.positions = (positions[:, None] @ stretch[self.batch.crystal])[:, 0]
        self.batch.cell = self.batch.cell @ stretch
        self.steps = self.steps + ~stays

    def _unload(self) -> None:
        """Tell the walkers how far they came."""
        self.batch.unload()
        told = zip(self.walkers, self.fire.split(), self.steps.tolist(), strict=True)
        for walker, fire, steps in told:
            walker.fire, walker.steps = fire, steps

    def _search(self, stale: list[int]) -> list[Arrival]:
        """Search pairs anew; return those for which there is no sense in it."""
        failed = []
        for number in stale:
            try:
                self.walkers[number].mover.search(self.batch.cutoff)
            except CrystalformerError as error:
                failed.append(Arrival(number, error))
        return failed


def _kept(
    outcome: Quantities | CrystalformerError, change: Tensor
) -> Quantities | CrystalformerError:
    """Return the outcome, unless the structure is none any more."""
    factor = float(change)
    if isinstance(outcome, dict) and not 1 / LARGEST_CHANGE < factor < LARGEST_CHANGE:
        return BadStructure(
            f"The volume changed by a factor of {factor:.2g}: the structure fell apart or "
            "collapsed. It is far from what the model knows, or far from any crystal."
        )
    return outcome
