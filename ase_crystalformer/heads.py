"""From atom features to quantities: properties of a crystal, or energy with its derivatives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ase_crystalformer.encoders.base import AtomFeatures, Encoder
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.repulsion import repulsion
from ase_crystalformer.targets import Target


def sum_over_atoms(
    values: Float[Tensor, "atoms *rest"], graph: CrystalGraph
) -> Float[Tensor, "crystals *rest"]:
    """Sum over the atoms of every crystal, each counted as often as it stands for."""
    weight = graph.multiplicity.reshape(-1, *[1] * (values.dim() - 1)).to(values.dtype)
    total = values.new_zeros(graph.crystals, *values.shape[1:])
    return total.index_add(0, graph.crystal, values * weight)


def mean_over_atoms(
    values: Float[Tensor, "atoms *rest"], graph: CrystalGraph
) -> Float[Tensor, "crystals *rest"]:
    """Average over the atoms of every crystal: the same for every cell of it."""
    ones = sum_over_atoms(values.new_ones(graph.atoms), graph)
    return sum_over_atoms(values, graph) / ones.reshape(-1, *[1] * (values.dim() - 1))


def attention_over_atoms(
    values: Float[Tensor, "atoms width"], score: Float[Tensor, "atoms 1"], graph: CrystalGraph
) -> Float[Tensor, "crystals width"]:
    r"""Average with weights that are a softmax over the atoms of a crystal.

    .. math:: \sum_i e^{s_i} x_i \Big/ \sum_i e^{s_i}

    It is the same for every cell of a crystal, and the plain mean where all scores are equal.
    """
    index = graph.crystal[:, None]
    highest = score.new_zeros(graph.crystals, 1)
    highest = highest.scatter_reduce(0, index, score.detach(), "amax", include_self=False)
    weight = torch.exp(score - highest.index_select(0, graph.crystal))
    return sum_over_atoms(weight * values, graph) / sum_over_atoms(weight, graph)


class PropertyHead(nn.Module):
    """Mean over atoms, plain or weighted, then one small network per target.

    With one target, the plain mean and the encoder's activation this is the head both Crystalformer
    and ComFormer publish. Weights begin equal.
    """

    def __init__(self, width: int, targets: Sequence[Target]) -> None:
        super().__init__()
        self.targets = tuple(targets)
        self.towers = nn.ModuleDict(
            {
                target.name: nn.Sequential(
                    nn.Linear(width, width), nn.SiLU(), nn.Linear(width, target.outputs)
                )
                for target in targets
            }
        )
        self.scores = nn.ModuleDict()
        for target in targets:
            if target.pooling == "attention":
                self.scores[target.name] = score = nn.Linear(width, 1, bias=False)
                nn.init.zeros_(score.weight)

    def forward(self, features: AtomFeatures, graph: CrystalGraph) -> dict[str, Tensor]:
        """Raw outputs of every target, (crystals, outputs); decoded by ``Target.decode``."""
        x = features.invariant
        mean = mean_over_atoms(x, graph)
        pooled = {
            name: attention_over_atoms(x, score(x), graph) for name, score in self.scores.items()
        }
        return {name: tower(pooled.get(name, mean)) for name, tower in self.towers.items()}


@dataclass(frozen=True, eq=False, kw_only=True)
class Uncertainty:
    """How far a potential expects to be wrong, and how far it is from what it knows.

    Attributes:
        energy: Expected absolute error of the energy of every crystal, eV.
        novelty: Distance of every atom's surroundings from those trained on; beyond 1 they are
            outside.
        forces: Expected length of the error of the force on every atom, eV/Å.
    """

    energy: Float[Tensor, " crystals"]
    novelty: Float[Tensor, " atoms"]
    forces: Float[Tensor, " atoms"] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class EnergyResult:
    """Energy of every crystal and its derivatives; eV, eV/Å, eV/Å³.

    Attributes:
        energies: Energy of every atom, reference energy included.
        energy: Their sum per crystal.
        forces: Minus the derivative with respect to positions.
        stress: Derivative with respect to strain per volume, ASE's sign; NaN where there is no
            volume.
        uncertainty: If the model was calibrated.
    """

    energies: Float[Tensor, " atoms"]
    energy: Float[Tensor, " crystals"]
    forces: Float[Tensor, "atoms 3"] | None = None
    stress: Float[Tensor, "crystals 3 3"] | None = None
    uncertainty: Uncertainty | None = None


class EnergyHead(nn.Module):
    r"""Energy as a sum over atoms: element reference + network + short-range repulsion.

    .. math:: E = \sum_i (e_{Z_i} + s\, \epsilon_i) + \tfrac12 \sum_{ij} V_{\rm ZBL}(r_{ij})

    The references :math:`e_Z` fix the energy scale: whose code and pseudopotentials set its zero.

    Args:
        width: Of the encoder.
        elements: Largest atomic number.
    """

    reference: Tensor
    scale: Tensor

    def __init__(self, width: int, elements: int = 98) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
        self.register_buffer("reference", torch.zeros(elements + 1, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(()))

    def interaction(self, features: AtomFeatures, graph: CrystalGraph) -> Float[Tensor, " atoms"]:
        """Energy of every atom beyond its reference, eV."""
        learned = self.scale * self.tower(features.invariant)[:, 0]
        return learned + repulsion(graph.vector, graph.species, graph.receiver, graph.sender)

    def references(self, graph: CrystalGraph) -> Float[Tensor, " atoms"]:
        """Reference energy of every atom in float64, eV."""
        return self.reference[graph.species]


def with_leaves(graph: CrystalGraph, encoder: Encoder, *, record: bool = True) -> CrystalGraph:
    """Return the same graph around the tensors its energy is differentiated by.

    They are the edge vectors; and positions and cell, if the encoder reads them. Without
    ``record`` they require no gradient.
    """

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().requires_grad_(record)

    if not encoder.reads_positions:
        return graph.with_vector(leaf(graph.vector))
    return replace(
        graph, vector=leaf(graph.vector), positions=leaf(graph.positions), cell=leaf(graph.cell)
    )


def forces_and_stress(
    energy: Float[Tensor, ""], graph: CrystalGraph, create_graph: bool = False
) -> tuple[Float[Tensor, "atoms 3"], Float[Tensor, "crystals 3 3"]]:
    r"""Differentiate the total energy once, with respect to the leaves of the graph.

    Moving an atom moves the ends of its edges; straining a crystal strains all its edges, so
    :math:`\sigma = \tfrac1V \sum_e v_e \otimes \partial E / \partial v_e`.
    Both come from one gradient. Where positions and cell are leaves too (``with_leaves``), they
    move and are strained likewise, and add their part.
    """
    if graph.positions.requires_grad:
        return _of_all_leaves(energy, graph, create_graph)
    if graph.edges == 0:
        return graph.positions * 0, _per_volume(graph.cell * 0, graph)
    (slope,) = torch.autograd.grad(energy, graph.vector, create_graph=create_graph)
    forces, virial = _of_edges(slope, graph)
    return forces, _per_volume(virial, graph)


def _of_edges(
    slope: Float[Tensor, "edges 3"], graph: CrystalGraph
) -> tuple[Float[Tensor, "atoms 3"], Float[Tensor, "crystals 3 3"]]:
    """Forces and symmetric virial of the derivatives by edge vectors."""
    forces = torch.zeros_like(graph.positions).index_add(0, graph.receiver, slope)
    forces = forces.index_add(0, graph.sender, -slope)
    virial = graph.vector[:, :, None] * slope[:, None, :]
    total = torch.zeros_like(graph.cell).index_add(0, graph.crystal[graph.receiver], virial)
    return forces, (total + total.mT) / 2


def _of_all_leaves(
    energy: Float[Tensor, ""], graph: CrystalGraph, create_graph: bool
) -> tuple[Float[Tensor, "atoms 3"], Float[Tensor, "crystals 3 3"]]:
    """Forces and stress where the energy depends on edges, positions and cell."""
    leaves = (graph.vector, graph.positions, graph.cell)
    of_edges, of_atoms, of_cell = torch.autograd.grad(
        energy, leaves, create_graph=create_graph, materialize_grads=True
    )
    forces, virial = _of_edges(of_edges, graph)
    moment = graph.positions[:, :, None] * of_atoms[:, None, :]
    # A plain sum: where precision is mixed, a matrix product would be short.
    of_strain = (graph.cell[:, :, :, None] * of_cell[:, :, None]).sum(1)
    total = of_strain.index_add(0, graph.crystal, moment)
    return forces - of_atoms, _per_volume(virial + (total + total.mT) / 2, graph)


def _per_volume(
    virial: Float[Tensor, "crystals 3 3"], graph: CrystalGraph
) -> Float[Tensor, "crystals 3 3"]:
    """Divide by the volume; NaN where there is none, and no NaN in its gradient."""
    volume = graph.volume.detach()[:, None, None]
    flat = volume == 0
    return (virial / volume.masked_fill(flat, 1.0)).masked_fill(flat, torch.nan)
