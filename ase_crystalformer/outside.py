"""Warnings about surroundings outside of what a potential was trained on."""

import warnings
from collections.abc import Mapping

from jaxtyping import Float, Int
from numpy import ndarray

from ase_crystalformer.errors import OutsideTraining

GUESSED = (
    "Their properties are guesses, and nothing tells how far off. Check cell, lengths (Å) and "
    "positions."
)

ADVICE = (
    "Energies and forces there may be far off, and so may their uncertainty. Compare some with DFT "
    "or another potential, or fine-tune on such structures."
)


def outside(novelty: Float[ndarray, " atoms"] | None, species: Int[ndarray, " atoms"]) -> str:
    """Name the atom whose surroundings are farthest from training; nothing if all are inside.

    Args:
        novelty: Of every atom, beyond 1 outside; None if the model was not calibrated.
        species: Atomic numbers.
    """
    from ase.data import chemical_symbols

    if novelty is None or not (novelty > 1).any():
        return ""
    atom = int(novelty.argmax())
    symbol = chemical_symbols[int(species[atom])]
    return f"atom {atom} ({symbol}), {novelty[atom]:.1f} times as far from training as the limit"


def warn_outside(told: Mapping[int, str], of: int, model: str, advice: str = ADVICE) -> None:
    """Warn once about all structures that left what a model knows.

    Args:
        told: Number of a structure to what ``outside`` says of it; empty texts do not count.
        of: How many structures there were.
        model: What it is called.
        advice: What to do.
    """
    known = {number: text for number, text in told.items() if text}
    if known:
        first = min(known)
        warnings.warn(
            f"{len(known)} of {of} structures lie outside of what {model!r} was trained on, the "
            f"first is number {first}: {known[first]}. {advice}",
            OutsideTraining,
            stacklevel=3,
        )


def warn_once(told: str, model: str, advice: str) -> bool:
    """Warn of one structure, if there is anything to tell of it; say whether there was."""
    if told:
        warnings.warn(
            f"The structure lies outside of what {model!r} was trained on: {told}. {advice} This "
            "calculator will not warn again.",
            OutsideTraining,
            stacklevel=4,
        )
    return bool(told)
