"""Move a trained potential to the energy scale of other data: a user's own code and functional."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.heads import EnergyHead
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.fitting import compositions, element_energies
from ase_crystalformer.training.force_only import FITTED, MEANINGLESS, interaction_energies
from ase_crystalformer.training.objective import EnergyObjective

#: How a summary begins to tell which energies stand on which scale.
MOVED = "Energies of crystals of"


def move_to_scale(
    model: CrystalModel, scale: str, packed: PackedCrystals, which: NDArray[np.int64]
) -> None:
    """Fit the element references of a potential to the energies of some crystals; name its scale.

    By least squares on what the network leaves of the energies per atom; of all corrections that
    fit equally well the smallest. Elements that are not in the crystals keep their reference.
    Without any energy the model keeps its scale, and its card. Forces and stress stay as they are.

    Args:
        model: Changed in place; its card tells of the move.
        scale: Name of the scale it stands on afterwards.
        packed: Holds the crystals.
        which: Those to fit to, all of that scale.
    """
    head = model.head
    assert isinstance(head, EnergyHead)
    which = which[~np.isnan(packed.label("energy")[which])]
    if len(which) == 0:
        return
    counts = compositions(packed, which, head.reference.shape[0] - 1)
    energy = packed.label("energy")[which]
    left = energy - interaction_energies(model, packed, which)
    correction = element_energies(counts, left - counts @ head.reference.cpu().numpy())
    head.reference.add_(torch.from_numpy(correction).to(head.reference))
    moved = np.flatnonzero(counts.any(0)).tolist()
    summary = moved_summary(scale, moved, str(model.energy_scale), _rank(counts))
    model.energy_scale = scale
    model.card = replace(model.card, summary=summary)


def _rank(counts: NDArray[np.float64]) -> int:
    return int(np.linalg.matrix_rank(counts / counts.sum(1, keepdims=True)))


def moved_summary(scale: str, elements: list[int], former: str, rank: int) -> str:
    """Say which energies stand on which scale, and what the data leave open."""
    from ase.data import chemical_symbols

    names = ", ".join(chemical_symbols[number] for number in elements)
    text = (
        f"{MOVED} {names} stand on the scale {scale!r} of the data it was "
        f"fine-tuned on; those of other elements on {former!r}. Never compare energies across."
    )
    if rank < len(elements):
        text += (
            " The compositions of these data do not tell the energies of single elements apart: "
            "compare energies at compositions like theirs only."
        )
    return text


def lasting(summary: str) -> str:
    """Keep of a summary what still holds of the energies of a model that is trained further."""
    places = [summary.find(begin) for begin in (MOVED, FITTED, MEANINGLESS)]
    first = min((place for place in places if place >= 0), default=len(summary))
    return summary[first:]


def keep_former_scale(
    objective: EnergyObjective, groups: list[str], former: CrystalModel, model: CrystalModel
) -> None:
    """Let crystals on the scale a model came from be learned with the references it had.

    Args:
        objective: Whose references of that scale are set.
        groups: Names of the energy scales in the data.
        former: The model as it was.
        model: The model after its move.
    """
    if former.energy_scale == model.energy_scale or former.energy_scale not in groups:
        return
    assert isinstance(former.head, EnergyHead)
    assert isinstance(model.head, EnergyHead)
    apart = former.head.reference - model.head.reference
    objective.shift.data[groups.index(former.energy_scale)] = apart.to(objective.shift)
