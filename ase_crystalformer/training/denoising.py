r"""Learn to tell by how much the atoms of a crystal at rest were moved.

.. math::
    \mathcal L = \frac{1}{3 N} \sum_i \lVert \hat\epsilon_i - \epsilon_i / \sigma \rVert^2, \quad
    \hat\epsilon_i = n_i^{-1/2} \sum_{j} f(x_i, x_j, b(r_{ij})) \, \hat r_{ij}

with normal :math:`\epsilon_i` of spread :math:`\sigma`, less their mean over the crystal, atom
features x of an encoder that sees the moved crystal, and :math:`n_i` edges of atom i. A head that
always answers zero has a loss of one, less one part in the number of atoms.

Alone it pretrains an encoder on crystals without labels; beside another objective it is an
auxiliary task. Only crystals at rest take part. Where forces act, the same moved crystal may come
from many, and the answer is not defined; Liao et al. resolve that by giving the forces to the
network, as vectors. The features here are scalars and cannot hold them. Edges are those of the
crystal at rest.

Sources: S. Zaidi et al., "Pre-training via Denoising for Molecular Property Prediction",
arXiv:2206.00133; Y.-L. Liao et al., "Generalizing Denoising to Non-Equilibrium Structures Improves
Equivariant Force Fields" (DeNS), arXiv:2403.09549. The head is our own.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_crystalformer.data.loader import Batch
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.nn.radial import norm
from ase_crystalformer.training.objective import (
    EnergyObjective,
    Errors,
    Labels,
    PropertyObjective,
    Term,
    mean_of,
)
from ase_crystalformer.training.settings import Denoise
from ase_crystalformer.training.steps import largest_forces

#: Name of the label: displacements in Å, NaN in crystals that were not moved.
NOISE = "noise"

#: Gaussians that distances are expanded in, and how far they reach, Å.
BASIS, REACH = 16, 6.0


def at_rest(packed: PackedCrystals, rest: float) -> NDArray[np.bool_]:
    """Tell of every crystal whether no force in it is longer than ``rest``, eV/Å.

    One without forces is taken to be at rest, as crystals in sets of properties are.
    """
    return ~(largest_forces(packed) > rest)


@dataclass(frozen=True, eq=False)
class Rattle:
    """Move the atoms of crystals at rest; how follows from seed, epoch and crystal alone.

    Attributes:
        quiet: Which crystals are at rest.
        spread: Of the displacements, Å.
        seed: Of the run.
        epoch: Of the batch.
    """

    quiet: NDArray[np.bool_]
    spread: float
    seed: int
    epoch: int

    def __call__(self, which: list[int], batch: Batch) -> Batch:
        """Put the displacements among the labels of a batch; its graph stays as it is."""
        graph, labels = batch
        atoms = torch.bincount(graph.crystal, minlength=graph.crystals).tolist()
        parts = [self._displacements(*one) for one in zip(which, atoms, strict=True)]
        return graph, labels | {NOISE: torch.from_numpy(np.concatenate(parts)).float()}

    def _displacements(self, number: int, atoms: int) -> NDArray[np.float64]:
        if not self.quiet[number]:
            return np.full((atoms, 3), np.nan)
        random = np.random.default_rng((self.seed, self.epoch, number))
        moves = self.spread * random.standard_normal((atoms, 3))
        return moves - moves.mean(0)


class Displacements(nn.Module):
    """Vectors of atoms, from the scalars of an encoder and the directions of edges.

    Args:
        width: Of the encoder's features.
    """

    centre: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.receiver = nn.Linear(width, width)
        self.sender = nn.Linear(width, width, bias=False)
        self.distance = nn.Linear(BASIS, width, bias=False)
        self.strength = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.last = nn.Linear(width, 1)
        self.register_buffer("centre", torch.linspace(0, REACH, BASIS))

    def forward(
        self, x: Float[Tensor, "atoms width"], graph: CrystalGraph
    ) -> Float[Tensor, "atoms 3"]:
        length = norm(graph.vector)
        spacing = REACH / (BASIS - 1)
        near = torch.exp(-0.5 * ((length[:, None] - self.centre) / spacing).square().clamp(max=80))
        hidden = self.distance(near.to(x.dtype))
        hidden = hidden + self.receiver(x).index_select(0, graph.receiver)
        hidden = hidden + self.sender(x).index_select(0, graph.sender)
        strength = self.last(self.strength(hidden))
        arrow = strength * (graph.vector / length[:, None])
        arrow = arrow.to(graph.positions)  # Precision may be mixed.
        total = torch.zeros_like(graph.positions).index_add(0, graph.receiver, arrow)
        degree = torch.bincount(graph.receiver, minlength=graph.atoms).clamp(min=1)
        return total * degree[:, None] ** -0.5


class DenoisingObjective(nn.Module):
    """Find the displacements of crystals at rest; and whatever else there is to learn.

    Args:
        denoise: The task.
        width: Of the encoder's features.
        main: What is learned besides; None to pretrain an encoder.
    """

    def __init__(
        self,
        denoise: Denoise,
        width: int,
        main: PropertyObjective | EnergyObjective | None = None,
    ) -> None:
        super().__init__()
        self.denoise = denoise
        self.main = main
        self.displacements = Displacements(width)

    def units(self, model: CrystalModel) -> dict[str, str]:
        """Name the errors it reports, with their units."""
        return {**(self.main.units(model) if self.main else {}), NOISE: "Å"}

    def forward(
        self, model: CrystalModel, graph: CrystalGraph, labels: Labels, errors: Errors | None = None
    ) -> Float[Tensor, ""]:
        """Loss of a batch; adds the errors to ``errors``."""
        return mean_of(self.terms(model, graph, labels, errors), labels)

    def terms(
        self, model: CrystalModel, graph: CrystalGraph, labels: Labels, errors: Errors | None = None
    ) -> list[Term]:
        """Sums of the loss: of displacements, and of what else is learned."""
        noise = labels[NOISE].to(graph.vector)
        moved = rattled(graph, noise.nan_to_num())
        found = self.displacements(model.encoder(moved).invariant, moved)
        known = ~noise.isnan().any(1)
        error = found[known] - noise[known] / self.denoise.noise
        if errors is not None:
            errors.add(NOISE, self.denoise.noise * error)
        own = Term(NOISE, self.denoise.weight * error.square().mean(1).sum(), len(error))
        return [own, *(self.main.terms(model, graph, labels, errors) if self.main else ())]


def rattled(graph: CrystalGraph, noise: Float[Tensor, "atoms 3"]) -> CrystalGraph:
    """Move the atoms; edges stay, and become longer or shorter."""
    vector = graph.vector + noise.index_select(0, graph.sender)
    vector = vector - noise.index_select(0, graph.receiver)
    return replace(graph, positions=graph.positions + noise, vector=vector)
