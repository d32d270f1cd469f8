"""The table of laws, and the judge."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch

from ase_crystalformer.encoders.base import Approximate, Broken, Claim, Encoder
from ase_crystalformer.testing import conduct, derivatives, smoothness, symmetries
from ase_crystalformer.testing.crystals import takes_open_boundaries

EXACT = 1e-9
"""Relative difference that rounding in float64 may leave."""

MEASURABLE = 1e-6
"""Relative difference from which on a law is broken beyond doubt."""


class LawBroken(AssertionError):
    """An encoder does not do what it claims, or claims less than it does."""


@dataclass(frozen=True)
class Law:
    """One thing that must be true of an encoder.

    Attributes:
        difference: How far an encoder is from it; zero or rounding where it holds.
        claim: The field of ``Claims`` that promises it; without one it binds every encoder.
        exact: What counts as rounding.
        of: Which encoders it can be asked of.
    """

    difference: Callable[[Encoder], float]
    claim: str | None = None
    exact: float = EXACT
    of: Callable[[Encoder], bool] = lambda _: True


def _smooth(encoder: Encoder) -> bool:
    """Only smooth encoders may be asked for forces."""
    return not isinstance(encoder.claims.smooth, Broken)


def _open(encoder: Encoder) -> bool:
    """Only rules that draw lone atoms can be asked about them."""
    return takes_open_boundaries(encoder.rule)


LAWS: dict[str, Law] = {
    "rotation": Law(symmetries.rotation, "rotation"),
    "reflection": Law(symmetries.reflection, "reflection"),
    "translation": Law(symmetries.translation, "translation"),
    "lattice vector": Law(symmetries.lattice_vector, "translation"),
    "permutation": Law(symmetries.permutation, "permutation"),
    "supercell": Law(symmetries.supercell, "supercell"),
    "choice of cell": Law(symmetries.choice_of_cell, "choice_of_cell"),
    "orbits": Law(symmetries.equivalent_atoms, "orbits"),
    "cutoff": Law(smoothness.cutoff, "smooth"),
    "tremor": Law(smoothness.tremor),
    "symmetric sites": Law(smoothness.symmetric_sites),
    "forces": Law(derivatives.forces, exact=1e-6, of=_smooth),
    "stress": Law(derivatives.stress, exact=1e-6, of=_smooth),
    "batch": Law(conduct.batch),
    "separation": Law(conduct.separation, exact=0.0),
    "isolation": Law(conduct.isolation, of=_open),
    "precision": Law(conduct.precision, exact=3e-2),
    "storage": Law(conduct.storage, exact=0.0),
    "innocence": Law(conduct.innocence, exact=0.0),
}


def laws_for(encoder: Encoder) -> list[str]:
    """Name the laws that can be asked of an encoder."""
    return [name for name, law in LAWS.items() if law.of(encoder)]


def check(encoder: Encoder, name: str) -> float:
    """Hold an encoder to one law, both ways.

    What is claimed must be true, and nothing better could have been claimed: an approximate law
    must not be exact, and a broken one must be measurably broken.

    Args:
        encoder: Trained, or ``randomised``. A copy in float64 is tested.
        name: A key of ``LAWS``.

    Returns:
        How far the encoder is from the law.

    Raises:
        LawBroken: A claim is false, or too modest.
    """
    law = LAWS[name]
    claim: Claim = getattr(encoder.claims, law.claim) if law.claim else True
    difference = law.difference(deepcopy(encoder).to("cpu", torch.float64).eval())
    complaint = _complaint(claim, difference, law.exact)
    if complaint:
        who = type(encoder).__name__
        raise LawBroken(f"{who}, {name}: differs by {difference:.1e}. {complaint}")
    return difference


def check_all(encoder: Encoder) -> dict[str, float]:
    """Hold an encoder to every law that can be asked of it; see ``check``."""
    return {name: check(encoder, name) for name in laws_for(encoder)}


def _complaint(claim: Claim, difference: float, exact: float) -> str:
    """Say what is wrong with a claim; nothing if it is right."""
    match claim:
        case Approximate(below=limit):
            right = exact < difference < limit
            wrong = f"Claimed is less than {limit:.1e}; up to {exact:.1e} it would be exact."
        case Broken():
            right = difference > MEASURABLE
            wrong = f"Claimed is that it is broken; below {MEASURABLE:.1e} it holds after all."
        case _:
            right = difference <= exact
            wrong = f"Claimed is that it holds, to {exact:.1e}."
    return "" if right else wrong
