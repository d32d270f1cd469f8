"""What training minimises, and the errors it reports in physical units."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
    """Sum of absolute errors and their number, by quantity.

    Attributes:
        total: Of those that are finite.
        count: How many these are.
        lost: How many are not.
    """

    total: dict[str, float] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, error: Tensor) -> None:
        """Count the errors of what has a label."""
        finite = error.detach()[error.detach().isfinite()].abs()
        self.put(name, float(finite.sum(dtype=torch.float64)), finite.numel())
        self.lost[name] = self.lost.get(name, 0) + error.numel() - finite.numel()

    def put(self, name: str, total: float, count: int) -> None:
        """Add to a sum."""
        self.total[name] = self.total.get(name, 0.0) + total
        self.count[name] = self.count.get(name, 0) + count


class Term(NamedTuple):
    """What a loss holds of one quantity: weighted errors, to be divided by the number of labels.

    Attributes:
        name: Of the label.
        total: Sum over what has a label.
        number: How many labels that are.
    """

    name: str
    total: Float[Tensor, ""]
    number: int | Tensor


def mean_of(terms: Iterable[Term], labels: Labels) -> Float[Tensor, ""]:
    """Divide every term by the labels there are, in the batch or in its step, and add them up."""
    means = [term.total / number_known(labels, term.name, term.number) for term in terms]
    return sum(means[1:], start=means[0])


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
        return mean_of(self.terms(model, graph, labels, errors), labels)

    def terms(
        self, model: CrystalModel, graph: CrystalGraph, labels: Labels, errors: Errors | None = None
    ) -> list[Term]:
        """Sums of the loss, one for each target; adds the errors to ``errors``."""
        raw = model(graph)
        terms = []
        for target in model.targets:
            label = labels[target.name].to(graph.vector)
            known = ~label.isnan()
            loss = target.loss(raw[target.name], label, squared=self.squared).sum()
            weight = self.weights.get(target.name, 1.0)
            terms.append(Term(target.name, weight * loss, known.sum()))
            if errors is not None:
                error = target.error(raw[target.name], label)
                errors.add(error_name(target)[0], error[known])
        return terms


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
        return mean_of(self.terms(model, graph, labels, errors), labels)

    def terms(
        self, model: CrystalModel, graph: CrystalGraph, labels: Labels, errors: Errors | None = None
    ) -> list[Term]:
        """Sums of the loss: of energies, forces and stresses; adds the errors to ``errors``."""
        assert isinstance(model.head, EnergyHead)
        leaf = with_leaves(graph, model.encoder)
        with torch.enable_grad():
            energies = model.head.interaction(model.encoder(leaf), leaf)
            forces, stress = forces_and_stress(energies.sum(), leaf, create_graph=model.training)
        energy, aim = self._per_atom(model.head, leaf, energies, labels)
        weights = self.weights
        compared = {
            "energy": (energy, aim, weights.energy, None),
            "forces": (forces, labels["forces"], weights.force, weights.force_knee),
            "stress": (
                stress.flatten(1),
                labels["stress"].flatten(1),
                weights.stress,
                weights.stress_knee,
            ),
        }
        terms = []
        for name, (predicted, label, weight, knee) in compared.items():
            known = label.isfinite().all(1)
            aimed = label[known].to(predicted)
            error = predicted[known] - aimed
            if errors is not None:
                errors.add(name, error)
            terms.append(Term(name, weight * _lengths(error, aimed, knee).sum(), len(error)))
        return terms

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
