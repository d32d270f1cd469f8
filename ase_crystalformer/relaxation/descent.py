"""Structures on their way downhill, side by side on one device."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from ase_crystalformer.batching import PER_ATOM
from ase_crystalformer.dispersion import Dispersion
from ase_crystalformer.errors import BadStructure, CrystalformerError
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.heads import EnergyResult
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.neighbours.moving import Mover, MovingBatch
from ase_crystalformer.quantities import Quantities, energy_quantities
from ase_crystalformer.relaxation.fire import Fire
from ase_crystalformer.relaxation.freedom import Freedom, FreedomBatch
from ase_crystalformer.relaxation.lbfgs import Lbfgs
from ase_crystalformer.relaxation.trajectories import Place
from ase_crystalformer.structures import Crystal

LARGEST_CHANGE = 10.0
"""Factor by which a volume may change before a structure counts as lost."""


OPTIMISERS: dict[str, type[Fire | Lbfgs]] = {"fire": Fire, "lbfgs": Lbfgs}


@dataclass(eq=False)
class Walker:
    """One structure on its way.

    Attributes:
        mover: Where it is.
        freedom: What of it may move.
        memory: Of the optimiser.
        start: Its cell at the start, Å.
        place: Positions of its atoms, Å, had the cell not changed.
        log_strain: Logarithm of the change of the cell.
        steps: How often it moved.
        way: Where it has been, if that is to be kept.
    """

    mover: Mover
    freedom: Freedom
    memory: Fire | Lbfgs
    start: Float[ndarray, "3 3"] = field(init=False)
    place: Float[Tensor, "atoms 3"] = field(init=False)
    log_strain: Float[Tensor, "3 3"] = field(init=False)
    steps: int = 0
    way: list[Place] | None = None

    def __post_init__(self) -> None:
        self.start = self.mover.cell
        self.place = torch.from_numpy(self.mover.positions)
        self.log_strain = torch.zeros(3, 3, dtype=torch.float64)

    @classmethod
    def of(cls, crystal: Crystal, cutoff: float, freedom: Freedom, optimiser: str) -> "Walker":
        """Put a structure at the start."""
        memory = OPTIMISERS[optimiser].at_rest(len(crystal.species) + 3)
        return cls(Mover.of(crystal, cutoff), freedom, memory)

    @property
    def atoms(self) -> int:
        """How many there are."""
        return len(self.place)

    @property
    def work(self) -> int:
        """What a step costs, in edges."""
        return len(self.mover.pairs.receiver) + PER_ATOM * self.atoms


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
    r"""Walkers as one batch.

    Coordinates are those of ASE's FrechetCellFilter: with the change of the cell
    :math:`D = e^V`, positions :math:`x D^{-1}` and the strain :math:`V` times the number of atoms.
    """

    def __init__(
        self,
        walkers: Sequence[Walker],
        model: CrystalModel,
        fmax: float,
        steps: int,
        dispersion: Dispersion | None = None,
    ) -> None:
        self.walkers, self.model, self.fmax, self.most_steps = walkers, model, fmax, steps
        self.dispersion = dispersion
        device = model.device
        self.batch = MovingBatch(
            [walker.mover for walker in walkers], model.encoder.rule.cutoff, device
        )
        counts = [walker.atoms for walker in walkers]
        self.freedom = FreedomBatch([walker.freedom for walker in walkers], counts, device)
        optimiser: Any = type(walkers[0].memory)
        self.memory: Fire | Lbfgs = optimiser.join([w.memory for w in walkers], device)
        self.atoms = torch.tensor(counts, device=device)
        end = (self.atoms + 3).cumsum(0)[:, None]
        self.strain_rows = (end + torch.arange(-3, 0, device=device)).flatten()
        is_atom = torch.ones_like(self.memory.owner, dtype=torch.bool)
        is_atom[self.strain_rows] = False
        self.atom_rows = torch.nonzero(is_atom)[:, 0]
        self.start = torch.from_numpy(np.stack([w.start for w in walkers])).to(device)
        self.place = torch.cat([w.place for w in walkers]).to(device)
        self.log_strain = torch.stack([w.log_strain for w in walkers]).to(device)
        self.change = torch.linalg.matrix_exp(self.log_strain)
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
        if self.dispersion:
            result = self.dispersion.add(result, graph)
        self._keep(result, graph)
        forces, pull = self._allowed(result, graph)
        fmax = forces.new_zeros(len(self.walkers))
        fmax = fmax.scatter_reduce(0, self.batch.crystal, forces.norm(dim=-1), "amax")
        per_atom = pull.norm(dim=-1).amax(-1) / self.atoms
        factor = torch.linalg.det(self.change)
        lost = ~(torch.maximum(factor, 1 / factor) < LARGEST_CHANGE)
        lost |= ~(fmax + per_atom + result.energy).isfinite()
        relaxed = torch.maximum(fmax, per_atom) < self.fmax
        stays = relaxed | lost | (self.steps >= self.most_steps)
        self._move(forces, pull, stays)
        if not bool(stays.any()):
            return []
        outcomes = energy_quantities(result, graph)
        return [
            Arrival(number, _kept(outcomes[number], factor[number]), *told)
            for number, *told in zip(
                torch.nonzero(stays)[:, 0].tolist(),
                fmax[stays].tolist(),
                relaxed[stays].tolist(),
                strict=True,
            )
        ]

    def _keep(self, result: EnergyResult, graph: CrystalGraph) -> None:
        """Add where walkers are to the ways that are kept."""
        if all(walker.way is None for walker in self.walkers):
            return
        places = self.batch.positions.cpu().split(self.batch.counts)
        outcomes = energy_quantities(result, graph)
        told = zip(self.walkers, places, self.batch.cell.cpu(), outcomes, strict=True)
        for walker, place, cell, outcome in told:
            if walker.way is not None and isinstance(outcome, dict):
                walker.way.append(Place(place.numpy(), cell.numpy(), outcome))

    def _allowed(
        self, result: EnergyResult, graph: CrystalGraph
    ) -> tuple[Float[Tensor, "atoms 3"], Float[Tensor, "crystals 3 3"]]:
        """Forces on atoms, eV/Å, and on strains, eV, as far as they may move."""
        assert result.forces is not None
        assert result.stress is not None
        forces = result.forces.double()
        if not self.freedom.whole:
            turned = _rows(forces, self.change.mT, self.batch.crystal)
            turned = self.freedom.displacement(turned)
            forces = _rows(turned, torch.linalg.inv(self.change).mT, self.batch.crystal)
        pull = -result.stress.double() * graph.volume.double()[:, None, None]
        return forces, self.freedom.strain(pull)

    def _move(
        self,
        forces: Float[Tensor, "atoms 3"],
        pull: Float[Tensor, "crystals 3 3"],
        stays: Bool[Tensor, " crystals"],
    ) -> None:
        """Take one step with all but those that stay."""
        size = self.atoms.double()[:, None, None]
        rows = torch.zeros(len(self.memory.owner), 3, dtype=torch.float64, device=forces.device)
        rows[self.atom_rows] = _rows(forces, self.change.mT, self.batch.crystal)
        rows[self.strain_rows] = (self._log_pull(pull) / size).flatten(0, 1)
        rows[stays[self.memory.owner]] = 0.0
        moves = self.memory.step(rows)
        moves[stays[self.memory.owner]] = 0.0
        self.place = self.place + moves[self.atom_rows]
        self.log_strain = self.log_strain + moves[self.strain_rows].unflatten(0, (-1, 3)).mT / size
        self.change = torch.linalg.matrix_exp(self.log_strain)
        self.batch.positions = _rows(self.place, self.change, self.batch.crystal)
        self.batch.cell = self.start @ self.change
        self.steps = self.steps + ~stays

    def _log_pull(self, pull: Float[Tensor, "crystals 3 3"]) -> Float[Tensor, "crystals 3 3"]:
        r"""Force on the logarithm of the strain.

        By the Fréchet derivative of the exponential, which is the upper right block of
        :math:`\exp \begin{pmatrix} V & P D^{-1} \\ 0 & V \end{pmatrix}`.
        """
        slope = torch.linalg.solve(self.change, pull, left=False)
        above = torch.cat([self.log_strain, slope], dim=2)
        below = torch.cat([torch.zeros_like(slope), self.log_strain], dim=2)
        block = torch.linalg.matrix_exp(torch.cat([above, below], dim=1))
        return self.freedom.strain(block[:, :3, 3:])

    def _unload(self) -> None:
        """Tell the walkers how far they came."""
        self.batch.unload()
        places = self.place.cpu().split(self.batch.counts)
        memories: Sequence[Fire | Lbfgs] = self.memory.split()
        told = zip(
            self.walkers,
            memories,
            places,
            self.log_strain.cpu(),
            self.steps.tolist(),
            strict=True,
        )
        for walker, memory, place, log_strain, steps in told:
            walker.memory, walker.steps = memory, steps
            walker.place, walker.log_strain = place, log_strain

    def _search(self, stale: list[int]) -> list[Arrival]:
        """Search pairs anew; return those for which there is no sense in it."""
        failed = []
        for number in stale:
            try:
                self.walkers[number].mover.search(self.batch.cutoff)
            except CrystalformerError as error:
                failed.append(Arrival(number, error))
        return failed


def _rows(
    rows: Float[Tensor, "atoms 3"],
    matrices: Float[Tensor, "crystals 3 3"],
    crystal: Int[Tensor, " atoms"],
) -> Float[Tensor, "atoms 3"]:
    """Multiply the rows of every crystal by its matrix."""
    return (rows[:, None] @ matrices[crystal])[:, 0]


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
