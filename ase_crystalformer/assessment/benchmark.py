"""What a benchmark is: crystals, a measurement on each, and how the rows are summed up."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.errors import BadStructure
from ase_crystalformer.pretrained import Precision

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

#: The group of statistics over everything.
ALL = "all"

#: Ranges of options.
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """One number of a summary.

    Attributes:
        name: What it is.
        value: ``None`` if there was nothing to average.
        unit: Its unit.
        n: Over how many values it was taken.
        group: Over which of them: ``all``, an element, a data set.
    """

    name: str
    value: float | None
    unit: str
    n: int
    group: str = ALL


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A named measurement of a potential against a reference.

    Attributes:
        name: Its name.
        about: What is measured, in one line.
        row: Dataclass of what is measured on one crystal; its fields go to JSON and back.
        options: Frozen dataclass of settings, each with a default.
        crystals: Reads the labelled crystals from the folder of the data sets, given the options.
        measure: Calculator, crystal and options to a row. May raise anything; the crystal is then
            reported and the others go on.
        summarise: Rows to statistics.
        draw: Draws the rows into a figure.
        stratum: Names the part of the data a crystal belongs to; a small count is drawn evenly
            from all of them.
        precision: What models of this package compute in.
        count: How many crystals are drawn unless said otherwise; ``None`` for all.
    """

    name: str
    about: str
    row: type
    options: type
    crystals: Callable[[Path, Any], Iterable[LabelledCrystal]]
    measure: Callable[[Any, LabelledCrystal, Any], Any]
    summarise: Callable[[Sequence[Any]], list[Statistic]]
    draw: Callable[["Figure", Sequence[Any]], None]
    stratum: Callable[[LabelledCrystal], str] = lambda crystal: crystal.source
    precision: Precision = "float32"
    count: int | None = None


def label(crystal: LabelledCrystal, name: str) -> float:
    """Return a scalar label.

    Raises:
        BadStructure: The crystal has none of that name.
    """
    if name not in crystal.labels:
        raise BadStructure(f"It has no {name} to compare with; drop the row.")
    return float(crystal.labels[name])


def atoms_of(crystal: LabelledCrystal) -> "Atoms":
    """Return a crystal as ASE holds it."""
    from ase import Atoms

    return Atoms(
        numbers=crystal.species,
        positions=crystal.positions,
        cell=crystal.cell,
        pbc=crystal.periodic,
    )
