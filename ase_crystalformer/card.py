"""The card of a model: origin, licence, elements, measured errors."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a user must know of a model's origin.

    Attributes:
        name: What it is called.
        summary: One sentence: what for, and how far to trust it.
        licence: Of the weights.
        citations: BibTeX of the method and the data.
        elements: Atomic numbers it was trained on.
        data: Sets of data, with licence and size.
        training: Command, seed, hardware, hours, commit.
        errors: Validation errors, quantity -> {"mae": …, "unit": …, "n": …, "on": …}.
        uncertainty: How expected errors compare with true ones, if they were calibrated.
    """

    name: str = "untrained"
    summary: str = ""
    licence: str = "not stated"
    citations: tuple[str, ...] = ()
    elements: tuple[int, ...] = ()
    data: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Any] = field(default_factory=dict)
    uncertainty: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: dict[str, Any]) -> "Card":
        """Read a card from plain values, as JSON holds them."""
        listed = {key: tuple(fields[key]) for key in ("citations", "elements", "data")}
        return cls(**{**fields, **listed})
