"""Energies of a potential that learns forces alone: what composition explains is fitted afterwards.

Forces leave the energy of each element open. It is fitted to the training energies by least
squares once the network stands; if there are none, energies have no zero, and the card says so.

Source: R. Feng et al., "PolyGET: Accelerating Polymer Simulations by Accurate and Generalizable
Forcefield with Equivariant Transformer", arXiv:2309.00585, learn forces alone; the fit is ours.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from ase_crystalformer.data.loader import EdgeBudgetSampler, work
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.heads import EnergyHead, sum_over_atoms
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.fitting import compositions, element_energies, typical_force
from ase_crystalformer.training.objective import EnergyObjective
from ase_crystalformer.training.settings import EnergyLoss

#: The energy scale of a model that has seen no energy.
NO_SCALE = "none"

FITTED = "Trained on forces alone; the energy of each element was fitted afterwards."
MEANINGLESS = (
    "Trained on forces alone, without any energy: energies have no meaning, but for differences "
    "along a path that atoms of one crystal take."
)

#: Work per batch, edges + 20 atoms.
BUDGET = 40_000


def is_force_only(energy: EnergyLoss | None) -> bool:
    """Whether energies have no weight."""
    return energy is not None and energy.energy == 0


def lacks_energies(packed: PackedCrystals, which: NDArray[np.int64]) -> bool:
    """Whether no crystal has an energy."""
    return "energy" not in packed.labels or bool(np.isnan(packed.label("energy")[which]).all())


def fit_scale_to_forces(head: EnergyHead, packed: PackedCrystals, which: NDArray[np.int64]) -> None:
    """Set the scale to what a typical force does along 1 Å.

    Raises:
        BadRecipe: No crystal has forces.
    """
    force = typical_force(packed, which)
    if force is None:
        raise BadRecipe(f"No training crystal in {packed.folder} has an energy or forces.")
    head.scale.fill_(max(force, 1e-3))


@torch.no_grad()
def fit_energies(
    model: CrystalModel,
    objective: EnergyObjective,
    packed: PackedCrystals,
    which: NDArray[np.int64],
) -> None:
    """Fit the energies of elements, on every scale, to what the network leaves of the energies.

    Forces and stress stay as they are.

    Args:
        model: Whose references are set; as it is to be used.
        objective: Holds the references of the scales that are not the model's own.
        packed: The crystals.
        which: Those to fit to.
    """
    head = model.head
    assert isinstance(head, EnergyHead)
    which = which[~np.isnan(packed.label("energy")[which])]
    counts = compositions(packed, which, head.reference.shape[0] - 1)
    left = packed.label("energy")[which] - interaction_energies(model, packed, which)
    left = left - counts @ head.reference.cpu().numpy()
    group = np.asarray(packed.arrays["group"])[which]
    own = np.isin(group, torch.nonzero(objective.foreign[:, 0] == 0).flatten().tolist())
    if own.any():
        correction = element_energies(counts[own], left[own])
        head.reference.add_(torch.from_numpy(correction).to(head.reference))
        left = left - counts @ correction
    for number in np.unique(group[~own]).tolist():
        rows = group == number
        fitted = torch.from_numpy(element_energies(counts[rows], left[rows]))
        objective.shift[number] = fitted.to(objective.shift)


@torch.no_grad()
def interaction_energies(
    model: CrystalModel, packed: PackedCrystals, which: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Energy of every crystal beyond the references, eV."""
    assert isinstance(model.head, EnergyHead)
    parts = [np.zeros(0)]
    for batch in EdgeBudgetSampler(work(packed), which, budget=BUDGET, seed=None):
        graph = packed.batch(batch)[0].to(model.device, model.dtype)
        energies = model.head.interaction(model.encoder(graph), graph)
        parts.append(sum_over_atoms(energies.double(), graph).cpu().numpy())
    return np.concatenate(parts)
