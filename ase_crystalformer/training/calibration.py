"""Calibrate a potential: fit what it expects to be wrong by to frames it was not trained on."""

import logging
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from jaxtyping import Int
from numpy import ndarray

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import MissingData, NoForces
from ase_crystalformer.heads import EnergyHead
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.evaluate import of_known_elements
from ase_crystalformer.training.expected_errors import (
    INSIDE,
    fit_distribution,
    fit_energies,
    fit_forces,
    fit_limit,
    total_of,
)
from ase_crystalformer.training.held_out import Judged, Seen, judge, look
from ase_crystalformer.training.judged_set import check_judged, open_or_pack
from ase_crystalformer.training.prepare import check_rule
from ase_crystalformer.training.reliability import Compared
from ase_crystalformer.uncertainty import UncertaintyConfig, UncertaintyHead

LOGGER = logging.getLogger(__name__)

#: Training crystals whose features are looked at, for every element.
PER_ELEMENT = 100

#: Errors needed in each quarter that scales and measures.
LEAST = 5

Numbers = Int[ndarray, " crystals"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibrated:
    """A potential that says what it expects to be wrong by, and how well it does.

    Attributes:
        model: A copy of the potential; its card tells the measures.
        compared: Expected and true errors of the forces and of the energy per atom.
    """

    model: CrystalModel
    compared: Sequence[Compared]


def calibrate(
    model: CrystalModel, dataset: str | Path, *, seed: int = 0, progress: bool = True
) -> Calibrated:
    """Fit an uncertainty head; the potential itself stays as it is.

    Held-out crystals, the part ``val``, are halved: all frames of a crystal in one half, runs cut
    along time. One half fits the head. The other scales it and measures, each of its quarters with
    the scale of the other. The part ``train`` tells which surroundings are known.

    Args:
        model: A potential.
        dataset: A packed set, or a file of labelled crystals, whose energies stand on the model's
            scale; without a part ``val`` all count as held out.
        seed: Chooses the halves, the training crystals, and the fit.
        progress: Show progress bars.

    Raises:
        NoForces: The model is no potential.
        MissingData: There are too few held-out energies or forces.
        BadRecipe: The packed set has other graphs than the model reads.
    """
    if not model.is_potential:
        raise NoForces(
            f"{model.card.name!r} is a property model; only potentials can be calibrated."
        )
    with tempfile.TemporaryDirectory() as scratch:
        packed, _ = open_or_pack(model, Path(dataset), Path(scratch))
        check_rule(packed, model.encoder, f"the model {model.card.name!r}")
        check_judged(model, packed)
        held_out = of_known_elements(model, packed, _held_out(packed))
        scale = model.energy_scale if packed.folder == Path(dataset) else None
        judged = judge(model, packed, held_out, scale=scale, seed=seed, progress=progress)
        _refuse_few(judged, packed)
        trained = training_sample(packed, seed)
        trained = of_known_elements(model, packed, trained)
        seen = look(model, packed, trained, progress) if len(trained) else _fitting(judged)
    head = _fitted(model, judged, seen, seed)
    compared = errors_of(head, judged, packed.meta["names"]["source"])
    head.force_scale.fill_(compared[0].scale)
    head.energy_scale.fill_(compared[1].scale)
    with torch.inference_mode(False):
        new = deepcopy(model)
    new.uncertainty = head.to(model.device, model.dtype).requires_grad_(False).eval()
    told = {
        "what": "expected against true errors of held-out crystals the head was not fitted to",
        "data": Path(dataset).name,
        "seed": seed,
        **{one.name: one.told() for one in compared},
        "novelty": _beyond(head, judged),
    }
    new.card = replace(model.card, uncertainty=told)
    return Calibrated(model=new, compared=compared)


def _held_out(packed: PackedCrystals) -> Numbers:
    """Number the crystals that were not trained on."""
    held_out = packed.where("val")
    if len(held_out):
        return held_out
    if len(packed.where("train")):
        raise MissingData(
            f"{packed.called} has a part to train on and none that is held out. Mark frames that "
            "were not trained on with split=val."
        )
    LOGGER.warning(
        "%s has no split: all %d crystals count as held out.", packed.called, len(packed)
    )
    return np.arange(len(packed))


def training_sample(packed: PackedCrystals, seed: int) -> Numbers:
    """Draw training crystals until every element is in ``PER_ELEMENT`` of them, if it can be."""
    species = np.asarray(packed.arrays["species"])
    counts = np.zeros(256, dtype=int)
    chosen = []
    for number in np.random.default_rng(seed).permutation(packed.where("train")):
        start = packed.atom_start[number]
        kinds = np.unique(species[start : start + packed.arrays["atoms"][number]])
        if (counts[kinds] < PER_ELEMENT).any():
            counts[kinds] += 1
            chosen.append(number)
    return np.sort(np.array(chosen, dtype=np.int64))


def _refuse_few(judged: Judged, packed: PackedCrystals) -> None:
    """Refuse to calibrate by next to nothing."""
    for name, known, place in (
        ("energies", judged.energy_error.isfinite(), judged.part),
        ("forces", judged.force_error.isfinite(), judged.part[judged.crystal]),
    ):
        for low in (0.0, 0.5, 0.75):
            here = known & (place >= low) & (place < (low + 0.25 if low else 0.5))
            if here.sum() < LEAST:
                raise MissingData(
                    f"{packed.called} holds out {int(known.sum())} {name} that the model can be "
                    "judged by, too few or of too few crystals to fit, scale and measure "
                    "uncertainties. Label more frames that were not trained on, on the energy "
                    "scale of the model."
                )


def _fitting(judged: Judged) -> Seen:
    """Let the half that is fitted to stand for what is known."""
    rows = judged.part[judged.crystal] < 0.5
    parts = (judged.features[rows], judged.species[rows], judged.crystal[rows])
    return Seen(features=parts[0], species=parts[1], crystal=parts[2])


def _fitted(model: CrystalModel, judged: Judged, seen: Seen, seed: int) -> UncertaintyHead:
    """Make a head and fit it; its scales stay 1."""
    assert isinstance(model.head, EnergyHead)
    elements = model.head.reference.shape[0] - 1
    half = judged.part < 0.5
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(seed)
        head = UncertaintyHead(model.encoder.width, UncertaintyConfig(elements=elements))
        with torch.no_grad():
            fit_distribution(head, seen)
            fit_limit(head, judged)
        fit_forces(head, judged, half, seed)
        fit_energies(head, judged, half, seed)
    return head


@torch.no_grad()
def errors_of(
    head: UncertaintyHead, judged: Judged, sources: Sequence[str]
) -> tuple[Compared, Compared]:
    """Compare expected and true errors of the half that was not fitted to: forces, energy."""
    novelty = head.novelty(judged.features, judged.species)
    standard = head.standard(judged.features)
    total = partial(total_of, crystal=judged.crystal, crystals=len(judged.part))
    of_force = head.expected_force(standard, novelty, judged.forces)
    of_energy = head.expected_energy(standard, novelty, total) / judged.atoms
    names = np.array(sources)[judged.source.numpy()]
    place = judged.part[judged.crystal]
    atoms = (judged.force_error.isfinite() & (place >= 0.5)).numpy()
    crystals = (judged.energy_error.isfinite() & (judged.part >= 0.5)).numpy()
    forces = Compared(
        name="forces",
        unit="eV/Å",
        raw=of_force.double().numpy()[atoms],
        error=judged.force_error.double().numpy()[atoms],
        quarter=place.numpy()[atoms] >= 0.75,
        groups={
            "set": names[judged.crystal.numpy()][atoms],
            "element": np.array(chemical_symbols)[judged.species.numpy()][atoms],
        },
    )
    energy = Compared(
        name="energy",
        unit="eV/atom",
        raw=of_energy.double().numpy()[crystals],
        error=(judged.energy_error / judged.atoms).numpy()[crystals],
        quarter=judged.part.numpy()[crystals] >= 0.75,
        groups={"set": names[crystals]},
    )
    return forces, energy


@torch.no_grad()
def _beyond(head: UncertaintyHead, judged: Judged) -> dict[str, Any]:
    """Say whether forces are worse beyond the limit than inside."""
    novelty = head.novelty(judged.features, judged.species)
    known = judged.force_error.isfinite()
    outside = novelty > 1
    told: dict[str, Any] = {"crystals_inside": INSIDE}
    for name, rows in (("inside", known & ~outside), ("outside", known & outside)):
        error = judged.force_error[rows]
        told[name] = {"atoms": len(error)}
        if len(error):
            told[name]["median_force_error"] = float(f"{float(error.median()):.3g}")
    return told
