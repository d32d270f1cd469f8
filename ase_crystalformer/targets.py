"""Quantities a model may predict per crystal: unit, scaling, and what counts as an error."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Kind = Literal["linear", "log10", "gap", "chance"]
Pooling = Literal["mean", "attention"]

#: Weight of the metal/non-metal question in the loss of a gap, against its absolute error in eV.
GATE_WEIGHT = 0.2


@dataclass(frozen=True, kw_only=True)
class Target:
    r"""One labelled quantity of a crystal, and its invertible scaling.

    ``linear`` quantities are learned as (value - mean) / std, ``log10`` quantities likewise from
    their logarithm. ``gap`` is for quantities that are exactly zero for many crystals (half of all
    crystals are metals): the head gives a gate and a size, the prediction is
    :math:`\sigma(\text{gate}) \cdot \mathrm{softplus}(\text{size})`, its absolute error is learned
    on all crystals, and the gate also answers whether the value is above zero (cross-entropy).
    ``chance`` is for questions answered by yes (1) or no (0): the prediction is the chance of yes.

    Attributes:
        name: E.g. ``band_gap``.
        unit: E.g. ``eV``.
        kind: How it is scaled.
        mean: Of the training labels, after the logarithm.
        std: Likewise.
        pooling: What of the atoms it depends on: their ``mean``, or one in which each atom counts
            as much as it is learned to (``heads.attention_over_atoms``), for what a few atoms
            decide, as they do the highest frequency of a crystal.
    """

    name: str
    unit: str
    kind: Kind = "linear"
    mean: float = 0.0
    std: float = 1.0
    pooling: Pooling = "mean"

    @property
    def outputs(self) -> int:
        """How many numbers the head gives for this target."""
        return 2 if self.kind == "gap" else 1

    def fitted(self, labels: Float[Tensor, " crystals"]) -> "Target":
        """Return the target with mean and spread of the labels that are there (not NaN)."""
        known = self._straight(labels[~labels.isnan()].double())
        if known.numel() == 0:
            raise ValueError(f"There is no label of {self.name!r} to fit a scale to.")
        if self.kind == "chance":
            return self
        mean = 0.0 if self.kind == "gap" else known.mean().item()
        spread = known.std().item() if known.numel() > 1 else 1.0
        return replace(self, mean=mean, std=max(spread, 1e-6))

    def _straight(self, value: Tensor) -> Tensor:
        return value.log10() if self.kind == "log10" else value

    def decode(self, raw: Float[Tensor, "crystals outputs"]) -> Float[Tensor, " crystals"]:
        """Turn head outputs into the quantity in its unit."""
        if self.kind == "gap":
            return self.std * torch.sigmoid(raw[:, 0]) * functional.softplus(raw[:, 1])
        if self.kind == "chance":
            return torch.sigmoid(raw[:, 0])
        value = raw[:, 0] * self.std + self.mean
        return 10**value if self.kind == "log10" else value

    def loss(
        self,
        raw: Float[Tensor, "crystals outputs"],
        label: Float[Tensor, " crystals"],
        *,
        squared: bool = False,
    ) -> Float[Tensor, " crystals"]:
        """Scaled absolute error per crystal; zero where there is no label.

        Of a ``chance`` it is the cross-entropy.

        Args:
            raw: Of the head.
            label: In the unit of the target; NaN where there is none.
            squared: Count the squares of the scaled errors.
        """
        known = ~label.isnan()
        label = torch.where(known, label, torch.ones_like(label)).to(raw.dtype)
        if self.kind == "chance":
            return _question(raw, label) * known
        if self.kind == "gap":
            error = (self.decode(raw) - label) / self.std
            gate = GATE_WEIGHT * _question(raw, (label > 0).to(raw.dtype))
        else:
            error = raw[:, 0] - (self._straight(label) - self.mean) / self.std
            gate = torch.zeros_like(error)
        return ((error.square() if squared else error.abs()) + gate) * known

    def error(
        self, raw: Float[Tensor, "crystals outputs"], label: Float[Tensor, " crystals"]
    ) -> Float[Tensor, " crystals"]:
        """Signed error in the unit of tables: log10 for ``log10`` targets, else ``unit``.

        Of a ``chance`` it is what is missing to certainty.
        """
        if self.kind == "log10":
            return raw[:, 0] * self.std + self.mean - label.log10()
        return self.decode(raw) - label


def _question(
    raw: Float[Tensor, "crystals outputs"], yes: Float[Tensor, " crystals"]
) -> Float[Tensor, " crystals"]:
    """Cross-entropy of the first output, the logarithm of the odds of yes."""
    return functional.binary_cross_entropy_with_logits(raw[:, 0], yes, reduction="none")


#: Targets known by name.
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(name="formation_energy_per_atom", unit="eV/atom"),
        Target(name="formation_energy_per_cell", unit="eV per cell of five atoms"),
        Target(name="energy_per_atom", unit="eV/atom"),
        Target(name="energy_above_hull", unit="eV/atom"),
        Target(name="exfoliation_energy", unit="meV/atom"),
        Target(name="band_gap", unit="eV", kind="gap"),
        Target(name="band_gap_mbj", unit="eV", kind="gap"),
        Target(name="is_metal", unit="1", kind="chance"),
        Target(name="bulk_modulus", unit="GPa", kind="log10"),
        Target(name="shear_modulus", unit="GPa", kind="log10"),
        Target(name="refractive_index", unit="1"),
        Target(name="last_phonon_peak", unit="1/cm"),
    )
}
