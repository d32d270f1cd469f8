"""What training minimises, and the errors it reports in physical units."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.heads import EnergyHead, forces_and_stress, sum_over_atoms, with_leaves
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.targets import Target
from ase_crystalformer.training.settings import EnergyLoss
from ase_crystalformer.training.steps import number_known

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
        self.total[name] = self.total.get(name, 0.0) + float(known.sum(dtype=torch.float64))
        self.count[name] = self.count.get(name, 0) + known.numel()


def error_name(target: Target) -> tuple[str, str]:
    """Name the error that tables report of a target, and its unit."""
    if target.kind == "log10":
        return f"log10 {target.name}", f"log10({target.unit})"
    return target.name, target.unit


class PropertyObjective(nn.Module):
    """Scaled absolute errors of every labelled target, each target averaged on its own.

    Args:
        weights: How much a target counts; 1 unless named.
        squared: Square the scaled errors.
    """

    def __init__(self, weights: dict[str, float], *, squared: bool = False) -> None:
        super().__init__()
        self.weights = weights
        self.squared = squared

    def units(self, model: CrystalModel) -> dict[str, str]:
        """Name the errors it reports, with their units."""
        return dict(map(error_name, model.targets))

    def forward(
        self, model: CrystalModel, graph: CrystalGraph, labels: Labels, errors: Errors | None = None
    ) -> Float[Tensor, ""]:
        """Loss of a batch; adds the errors to ``errors``."""
        raw = model(graph)
        loss = graph.vector.new_zeros(())
        for target in model.targets:
            label = labels[target.name].to(graph.vector)
            known = number_known(labels, target.name, (~label.isnan()).sum())
            term = target.loss(raw[target.name], label, squared=self.squared).sum() / known
            loss = loss + self.weights.get(target.name, 1.0) * term
            if errors is not None:
                errors.add(error_name(target)[0], target.error(raw[target.name], label))
        return loss


class EnergyObjective(nn.Module):
    """Absolute errors of energy per atom, forces and stress.

    Sets of data stand on other energy scales. Each scale but the model's own gets element
    references that are learned along, and are forgotten afterwards.

    Args:
        weights: Of the three terms.
        groups: Names of the energy scales in the data.
        elements: Largest atomic number.
    """

    foreign: Tensor

    def __init__(self, weights: EnergyLoss, groups: Sequence[str], elements: int = 98) -> None:
        super().__init__()
        self.weights = weights
        self.shift = nn.Parameter(torch.zeros(len(groups), elements + 1))
        foreign = torch.tensor([[float(group != weights.scale)] for group in groups])
        self.register_buffer("foreign", foreign)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Read checkpoints of old, too, in which ``foreign`` is called ``own``."""
        if f"{prefix}own" in state:
            state[f"{prefix}foreign"] = state.pop(f"{prefix}own")
        super()._load_from_state_dict(state, prefix, *rest)

    def units(self, model: CrystalModel) -> dict[str, str]:
        """Name the errors it reports, with their units."""
        return {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³"}

    def forward(
        self, model: CrystalModel, graph: CrystalGraph, labels: Labels, errors: Errors | None = None
    ) -> Float[Tensor, ""]:
        """Loss of a batch; adds the errors to ``errors``."""
        assert isinstance(model.head, EnergyHead)
        leaf = with_leaves(graph, model.encoder)
        with torch.enable_grad():
            energies = model.head.interaction(model.encoder(leaf), leaf)
            forces, stress = forces_and_stress(energies.sum(), leaf, create_graph=model.training)
        energy, aim = self._per_atom(model.head, leaf, energies, labels)
        weights = self.weights
        terms = {
            "energy": (energy, aim, weights.energy, None),
            "forces": (forces, labels["forces"], weights.force, weights.force_knee),
            "stress": (
                stress.flatten(1),
                labels["stress"].flatten(1),
                weights.stress,
                weights.stress_knee,
            ),
        }
        loss = energies.new_zeros(())
        for name, (predicted, label, weight, knee) in terms.items():
            known = label.isfinite().all(1)
            aimed = label[known].to(predicted)
            error = predicted[known] - aimed
            if errors is not None:
                errors.add(name, error)
            number = number_known(labels, name, len(error))
            loss = loss + weight * _lengths(error, aimed, knee).sum() / number
        return loss

    def _per_atom(
        self,
        head: EnergyHead,
        graph: CrystalGraph,
        energies: Float[Tensor, " atoms"],
        labels: Labels,
    ) -> tuple[Float[Tensor, "crystals 1"], Float[Tensor, "crystals 1"]]:
        """Energies beyond the references, eV/atom: those of the model, and what they should be."""
        atoms = sum_over_atoms(energies.new_ones(graph.atoms), graph)[:, None]
        row = labels["group"][graph.crystal]
        shift = (self.shift * self.foreign)[row, graph.species]
        energy = sum_over_atoms(energies + shift, graph)[:, None]
        reference = sum_over_atoms(head.references(graph), graph)
        aim = (labels["energy"].double() - reference)[:, None].to(energies.dtype)
        return energy / atoms, aim / atoms


def _lengths(
    error: Float[Tensor, "rows columns"], label: Float[Tensor, "rows columns"], knee: float | None
) -> Float[Tensor, " rows"]:
    """Lengths of the errors, with a slope at zero.

    Those of labels longer than ``knee`` count in proportion to the label.
    """
    length = (error.square().sum(1) + 1e-12).sqrt()
    return length if knee is None else length / (1 + label.norm(dim=1) / knee)
