"""What training minimises, and the errors it reports in physical units."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.heads import EnergyHead, forces_and_stress, sum_over_atoms
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.config import EnergyLoss

#: Labels of a batch by name; NaN where a crystal has none.
Labels = dict[str, Tensor]


@dataclass(eq=False)
class Errors:
    """Sum of absolute errors and their number, by quantity."""

    total: dict[str, float] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, error: Tensor) -> None:
        """Count the absolute errors that are not NaN."""
        known = error.detach()[~error.detach().isnan()].abs()
        self.total[name] = self.total.get(name, 0.0) + float(known.double().sum())
        self.count[name] = self.count.get(name, 0) + known.numel()

    def means(self) -> dict[str, float]:
        """Mean absolute error of every quantity seen at all."""
        return {name: self.total[name] / n for name, n in self.count.items() if n}


class PropertyObjective(nn.Module):
    """Scaled absolute errors of every labelled target, each target averaged on its own.

    Args:
        weights: How much a target counts; 1 unless named.
    """

    def __init__(self, weights: dict[str, float]) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, model: CrystalModel, graph: CrystalGraph, labels: Labels, errors: Errors) -> Tensor:
        """Loss of a batch; adds the errors to ``errors``."""
        raw = model(graph)
        loss = graph.vector.new_zeros(())
        for target in model.targets:
            label = labels[target.name].to(graph.vector)
            known = (~label.isnan()).sum()
            term = target.loss(raw[target.name], label).sum() / known.clamp(min=1)
            loss = loss + self.weights.get(target.name, 1.0) * term
            errors.add(target.name, target.error(raw[target.name], label))
        return loss


class EnergyObjective(nn.Module):
    """Absolute errors of energy per atom, forces and stress.

    Sets of data stand on other energy scales. Each scale but the model's own gets element references
    that are learned along, and are forgotten afterwards.

    Args:
        weights: Of the three terms.
        groups: Names of the energy scales in the data.
        elements: Largest atomic number.
    """

    own: Tensor

    def __init__(self, weights: EnergyLoss, groups: Sequence[str], elements: int = 98) -> None:
        super().__init__()
        self.weights = weights
        self.shift = nn.Parameter(torch.zeros(len(groups), elements + 1))
        own = torch.tensor([[float(group != weights.scale)] for group in groups])
        self.register_buffer("own", own)

    def forward(self, model: CrystalModel, graph: CrystalGraph, labels: Labels, errors: Errors) -> Tensor:
        """Loss of a batch; adds the errors to ``errors``."""
        assert isinstance(model.head, EnergyHead)
        leaf = graph.with_vector(graph.vector.requires_grad_())
        with torch.enable_grad():
            energies = model.head.interaction(model.encoder(leaf), leaf)
            training = model.training
            forces, stress = forces_and_stress(energies.sum(), leaf, create_graph=training)
        atoms = sum_over_atoms(energies.new_ones(graph.atoms), graph)
        row = labels["group"][graph.crystal]
        shift = (self.shift * self.own)[row, graph.species]
        reference = sum_over_atoms(model.head.references(graph), graph)
        aim = (labels["energy"].double() - reference).to(energies.dtype)
        energy = sum_over_atoms(energies + shift, graph) / atoms
        compared = {
            "energy (eV/atom)": (energy[:, None], aim[:, None] / atoms[:, None], self.weights.energy),
            "forces (eV/Å)": (forces, labels["forces"], self.weights.force),
            "stress (eV/Å³)": (stress.flatten(1), labels["stress"].flatten(1), self.weights.stress),
        }
        loss = energies.new_zeros(())
        for name, (predicted, label, weight) in compared.items():
            error = _error(predicted, label.to(predicted))
            errors.add(name, error)
            loss = loss + weight * _length(error).mean() if len(error) else loss
        return loss


def _error(
    predicted: Float[Tensor, "rows columns"], label: Float[Tensor, "rows columns"]
) -> Float[Tensor, "known columns"]:
    """Errors of the rows that are labelled."""
    known = label.isfinite().all(1)
    return predicted[known] - label[known]


def _length(error: Float[Tensor, "rows columns"]) -> Float[Tensor, " rows"]:
    """Length of every row, with a slope at zero."""
    return ((error * error).sum(-1) + 1e-12).sqrt()
