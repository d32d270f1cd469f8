"""Our potentials as models of torch-sim, for its molecular dynamics and Monte Carlo in batches."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ase_crystalformer.dispersion import Dispersion
from ase_crystalformer.errors import BadStructure, MissingExtra
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.neighbours.moving import Mover, MovingBatch
from ase_crystalformer.pretrained import Precision, shared_potential
from ase_crystalformer.structures import Crystal

try:
    from torch_sim.models.interface import ModelInterface
    from torch_sim.state import SimState
except ModuleNotFoundError as _error:
    _HINT = "pip install 'ase-crystalformer[torch-sim]'"
    raise MissingExtra(f"This needs torch-sim: {_HINT}") from _error


class CrystalformerModel(ModelInterface):
    """Energy, forces and stress of a batch of torch-sim's.

    Pairs of atoms are searched rarely while atoms move. Stress is NaN of systems that do not repeat
    in three directions.

    Args:
        model: A potential: a name (see ``list_models``), the path of a model, or a model.
        device: ``"auto"`` takes a CUDA device if there is one.
        dtype: Precision of the model, and so of torch-sim's state; ``"float64"`` where energy must
            be conserved over long runs.
        dispersion: Add Grimme's D3 for PBE, ``"d3bj"`` or ``"d3zero"``, as the calculator does.

    Raises:
        UnknownName: There is no such model or dispersion.
        BadModelFile: Its files are missing or damaged.
        NoForces: The model is no potential, or its energy has kinks.
        MissingExtra: torch-sim, or what dispersion needs, is not installed.

    Example:
        >>> import torch_sim as ts  # doctest: +SKIP
        >>> from ase_crystalformer.torchsim import CrystalformerModel  # doctest: +SKIP
        >>> model = CrystalformerModel(dtype="float64")  # doctest: +SKIP
        >>> hot = ts.integrate(  # doctest: +SKIP
        ...     [bulk("Si", cubic=True)],
        ...     model,
        ...     integrator=ts.integrators.nvt_langevin,
        ...     n_steps=100,
        ...     temperature=300,
        ...     timestep=0.001,
        ... )
    """

    def __init__(
        self,
        model: str | Path | CrystalModel = "default",
        *,
        device: str = "auto",
        dtype: Precision = "float32",
        dispersion: str | None = None,
    ) -> None:
        super().__init__()
        # Others may share the potential: as no submodule, it stays where it is.
        self._potential = [shared_potential(model, device, dtype)]
        self._dispersion = Dispersion(dispersion) if dispersion else None
        self._device, self._dtype = self._potential[0].device, self._potential[0].dtype
        self._compute_stress = self._compute_forces = True
        self._memory_scales_with = "n_atoms_x_density"
        self._batch: MovingBatch | None = None

    def forward(
        self, state: SimState | Mapping[str, Tensor], **_unused: Any
    ) -> dict[str, Float[Tensor, "..."]]:
        """Compute ``energy`` (systems,), ``forces`` (atoms, 3), ``stress`` (systems, 3, 3).

        In eV, eV/Å and eV/Å³, signs as in ASE.

        Raises:
            BadStructure: A system cannot be computed.
            UnseenElement: The model does not know one of its elements.
        """
        potential = self._potential[0]
        graph = self._moved(_fields(state)).graph(potential.dtype)
        result = potential.energy(graph)
        if self._dispersion:
            result = self._dispersion.add(result, graph)
        assert result.forces is not None
        assert result.stress is not None
        whole = graph.periodic.all(1)[:, None, None]
        stress = torch.where(whole, result.stress, torch.nan)
        found = {"energy": result.energy, "forces": result.forces, "stress": stress}
        return {name: values.to(self._dtype) for name, values in found.items()}

    def _moved(self, given: dict[str, Tensor]) -> MovingBatch:
        """Return the batch of before where atoms are now, or a new one if they are others."""
        batch = self._batch
        if batch is None or not _same(batch, given):
            return self._anew(given)
        batch.positions, batch.cell = given["positions"], _whole(batch, given["cell"])
        if stale := batch.stale():
            if not torch.isfinite(batch.positions).all():
                raise BadStructure(
                    "Positions are not finite: the dynamics exploded. Shorten its steps."
                )
            batch.unload()
            for number in stale:
                batch.movers[number].search(batch.cutoff)
            self._batch = batch = MovingBatch(batch.movers, batch.cutoff, self._device)
        return batch

    def _anew(self, given: dict[str, Tensor]) -> MovingBatch:
        """Search the pairs of all systems."""
        potential = self._potential[0]
        potential.check_elements(given["species"])
        counts = given["crystal"].bincount(minlength=len(given["cell"])).tolist()
        cutoff = potential.encoder.rule.cutoff
        periodic = given["periodic"].numpy(force=True)
        parts = zip(
            given["species"].cpu().split(counts),
            given["positions"].cpu().split(counts),
            given["cell"].cpu(),
            strict=True,
        )
        movers = [
            Mover.of(Crystal(species.numpy(), positions.numpy(), cell.numpy(), periodic), cutoff)
            for species, positions, cell in parts
        ]
        self._batch = MovingBatch(movers, cutoff, self._device)
        return self._batch


def _fields(state: Any) -> dict[str, Tensor]:
    """Read a state of any version of torch-sim, whose cell vectors are columns."""
    told = state if isinstance(state, Mapping) else vars(state)
    # Copies: torch-sim may move a state in place, and what is kept here must stay where it was.
    positions = told["positions"].detach().to(torch.float64, copy=True)
    cell = told["cell"].detach().to(torch.float64, copy=True)
    system = told.get("system_idx", told.get("_system_idx"))
    system = torch.zeros_like(told["atomic_numbers"]) if system is None else system
    periodic = torch.as_tensor(told["pbc"], dtype=torch.bool).cpu().expand(3)
    return {
        "positions": positions,
        "cell": cell.mT,
        "species": told["atomic_numbers"].long(),
        "crystal": system.long(),
        "periodic": periodic,
    }


def _same(batch: MovingBatch, given: dict[str, Tensor]) -> bool:
    periodic = given["periodic"].to(batch.periodic.device).expand_as(batch.periodic)
    return (
        len(batch.cell) == len(given["cell"])
        and torch.equal(batch.periodic, periodic)
        and torch.equal(batch.species, given["species"])
        and torch.equal(batch.crystal, given["crystal"])
    )


def _whole(
    batch: MovingBatch, cell: Float[Tensor, "crystals 3 3"]
) -> Float[Tensor, "crystals 3 3"]:
    """Keep the vectors across the directions in which nothing repeats."""
    return torch.where(batch.periodic[:, :, None], cell, batch.cell)
