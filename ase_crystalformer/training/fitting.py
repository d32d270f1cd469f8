"""What is measured on the labels before any weight moves: scales, references, elements."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.ragged import ranges
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.heads import EnergyHead
from ase_crystalformer.targets import TARGETS, Kind, Pooling, Target
from ase_crystalformer.training.objective import EnergyObjective

Numbers = NDArray[np.int64]
Values = NDArray[np.float64]

#: Way along which a typical force does what the network gives before it has learned, Å.  After 200
#: epochs on seven rattled metals (EMT, three seeds) forces are 0.26 ± 0.05 eV/Å off; without, 0.42.
SHORT = 0.1

#: Crystals whose forces tell what is typical.
ENOUGH = 10_000


def fit_targets(
    names: tuple[str, ...],
    packed: PackedCrystals,
    train: Numbers,
    kinds: Mapping[str, Kind] | None = None,
    pooling: Mapping[str, Pooling] | None = None,
) -> list[Target]:
    """Scale every target by the labels of the training crystals.

    Args:
        names: Of the targets.
        packed: The crystals.
        train: Numbers of those that are learned from.
        kinds: Of targets that are scaled otherwise than usual.
        pooling: Of targets that depend on atoms otherwise than by their mean.

    Raises:
        BadRecipe: A target has no labels, or some that cannot be what they are said to be.
    """
    targets = [targeted(name, kinds or {}, pooling or {}) for name in names]
    for target in targets:
        check_labels(target, packed, train)
    return [one.fitted(torch.from_numpy(packed.label(one.name)[train])) for one in targets]


def targeted(name: str, kinds: Mapping[str, Kind], pooling: Mapping[str, Pooling]) -> Target:
    """Make a target as a recipe asks for it, not scaled yet."""
    usual = TARGETS[name]
    return replace(
        usual, kind=kinds.get(name, usual.kind), pooling=pooling.get(name, usual.pooling)
    )


def check_labels(target: Target, packed: PackedCrystals, train: Numbers) -> None:
    """Refuse labels that a target cannot learn.

    Raises:
        BadRecipe: There are none, or some that cannot be what they are said to be.
    """
    if target.name not in packed.labels:
        raise BadRecipe(
            f"{packed.folder} was packed with the labels {', '.join(packed.labels)}; "
            f"{target.name!r} is none of them. Name another folder in data.packed, to pack it anew."
        )
    labels = packed.label(target.name)
    if np.isnan(labels[train]).all():
        raise BadRecipe(
            f"None of the {len(train)} training crystals in {packed.folder} has a label for "
            f"{target.name!r}. Drop it from targets, or name the column of your file so."
        )
    wrong = {
        "log10": labels <= 0,
        "gap": labels < 0,
        "linear": np.zeros(labels.shape, dtype=bool),
        "chance": ~np.isnan(labels) & ~np.isin(labels, (0, 1)),
    }[target.kind] | np.isinf(labels)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise BadRecipe(
            f"{wrong.sum()} labels of {target.name!r} cannot be, the first is {labels[first]} "
            f"{target.unit} of {packed.ids[first]}. Remove them from the data and pack it anew."
        )


def compositions(packed: PackedCrystals, which: Numbers, elements: int) -> Values:
    """Count the atoms of every element in every crystal, (crystals, elements + 1)."""
    owner = np.repeat(np.arange(len(packed)), packed.arrays["atoms"])
    place = np.full(len(packed), -1)
    place[which] = np.arange(len(which))
    row = place[owner]
    table = np.zeros((len(which), elements + 1))
    kept = row >= 0
    weight = np.asarray(packed.arrays["multiplicity"], dtype=float)[kept]
    np.add.at(table, (row[kept], np.asarray(packed.arrays["species"])[kept]), weight)
    return table


def element_energies(counts: Values, energy: Values) -> Values:
    """Fit one energy per element, eV, by least squares on energies per atom.

    Args:
        counts: Atoms of every element in every crystal.
        energy: Of every crystal, eV.
    """
    atoms = counts.sum(1, keepdims=True)
    fitted, *_ = np.linalg.lstsq(counts / atoms, energy / atoms[:, 0], rcond=None)
    return fitted


def fit_references(head: EnergyHead, packed: PackedCrystals, which: Numbers) -> None:
    """Set element references by least squares, and the scale to what they leave.

    Few crystals of many compositions may leave nothing: then to what a typical force does along
    a tenth of an Å, if that is more.

    Raises:
        BadRecipe: No crystal has an energy.
    """
    counts, energy = _known_energies(packed, which, head.reference.shape[0] - 1)
    if len(energy) == 0:
        raise BadRecipe(
            f"No training crystal in {packed.folder} has an energy on the scale of the model. "
            "Label some, or choose another energy.scale."
        )
    reference = element_energies(counts, energy)
    left = (energy - counts @ reference) / counts.sum(1)
    head.reference.copy_(torch.from_numpy(reference))
    head.scale.fill_(max(float(left.std()), SHORT * (typical_force(packed, which) or 0.0), 1e-3))


def typical_force(packed: PackedCrystals, which: Numbers) -> float | None:
    """Root of the mean square of force components, eV/Å, over a sample; None if none is known."""
    first = packed.arrays["forces"][packed.atom_start[which]]
    known = which[np.isfinite(first).all(1)]
    if len(known) == 0:
        return None
    some = known[:: -(-len(known) // ENOUGH)]
    rows = ranges(packed.atom_start[some], packed.arrays["atoms"][some])
    forces = np.asarray(packed.arrays["forces"][rows], dtype=float)
    return float(np.sqrt(np.nanmean(forces**2)))


def fit_shifts(
    objective: EnergyObjective, head: EnergyHead, packed: PackedCrystals, which: Numbers
) -> None:
    """Set where the references of every foreign energy scale start: least squares, too."""
    elements = head.reference.shape[0] - 1
    group = np.asarray(packed.arrays["group"])[which]
    for number in torch.nonzero(objective.foreign[:, 0]).flatten().tolist():
        counts, energy = _known_energies(packed, which[group == number], elements)
        left = energy - counts @ head.reference.numpy()
        fitted = element_energies(counts, left) if len(left) else np.zeros(elements + 1)
        # The objective adds the shift to the prediction.
        objective.shift.data[number] = torch.from_numpy(fitted)


def _known_energies(packed: PackedCrystals, which: Numbers, elements: int) -> tuple[Values, Values]:
    energy = packed.label("energy")[which]
    known = ~np.isnan(energy)
    return compositions(packed, which[known], elements), energy[known]


def elements_seen(packed: PackedCrystals, which: Numbers, elements: int = 118) -> tuple[int, ...]:
    """List the atomic numbers present."""
    return tuple(np.flatnonzero(compositions(packed, which, elements).sum(0)).tolist())
