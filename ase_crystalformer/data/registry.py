"""The public data sets this package knows: where they come from, what their labels mean."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Reader = Callable[[float], float]


def as_given(value: float) -> float:
    """Leave a value in the unit of its column."""
    return value


def power_of_ten(value: float) -> float:
    """Undo a decimal logarithm."""
    return float(10.0**value)


@dataclass(frozen=True, kw_only=True)
class Label:
    """How a column of a file becomes a label.

    Attributes:
        column: What the file calls it.
        name: What we call it.
        unit: Unit of the label, after ``read``.
        read: From the column's value to the label's.
    """

    column: str
    name: str
    unit: str
    read: Reader = as_given


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set: one file, its labels, and whom to thank.

    Attributes:
        name: Its name, and that of its file: ``<name>.extxyz.gz``.
        about: What it holds, in one line.
        method: How the labels were made: functional, code, or potential.
        group: The scale its energies stand on; those of two groups must not be pooled.
        use: Shipped models are trained on the sets for ``training`` and measured on those for
            ``validation``; the rest are benchmarks with folds of their own, or have no labels.
        licence: SPDX identifier, or the terms in words.
        citation: What to cite, with DOI.
        url: Where it comes from.
        labels: Scalar labels.
        dynamics: Whether it has total energies (eV), forces (eV/Å) and stresses (eV/Å³).
        id_keys: The keys which, joined by a slash, name a crystal.
        numbered: Whether several rows share a name, so that the row's number joins it.
    """

    name: str
    about: str
    method: str
    group: str
    use: Literal["training", "validation", "benchmark", "structures"]
    licence: str
    citation: str
    url: str
    labels: tuple[Label, ...] = ()
    dynamics: bool = False
    id_keys: tuple[str, ...] = ("material_id",)
    numbered: bool = False

    @property
    def file(self) -> str:
        """Name of its file in a data folder."""
        return f"{self.name}.extxyz.gz"
