"""What the verbs over many structures share: read a few at a time, tell what fails, go on."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from tqdm import tqdm

from ase_crystalformer.errors import (
    BadRecipe,
    CrystalformerError,
    MissingExtra,
    NoForces,
    OutsideTraining,
    UnknownName,
)
from ase_crystalformer.structure_files import NamedStructure, read_structures

if TYPE_CHECKING:
    from pandas import DataFrame

T = TypeVar("T")

#: Errors of whoever typed the command.
MISUSE = (BadRecipe, NoForces, UnknownName)

Structures = Annotated[
    list[str],
    typer.Argument(
        metavar="STRUCTURES",
        help="CIF, POSCAR, (ext)xyz(.gz), ASE database, pymatgen JSON, a table (CSV, JSON, "
        "parquet) with a column structure or cif, a folder, a quoted glob.",
        show_default=False,
    ),
]
ModelName = Annotated[
    str, typer.Option("-m", "--model", metavar="MODEL", help="A name or the path of a model.")
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda, or auto.")]


@contextmanager
def errors_told() -> Iterator[None]:
    """Tell an error of this package or of the file system in a sentence, without a traceback."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutsideTraining)  # counted in the end
            yield
    except (CrystalformerError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, MISUSE) else 1) from error


@contextmanager
def training_extra() -> Iterator[None]:
    """Say what to install where a package that training imports is missing.

    Raises:
        MissingExtra: It is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"Training needs {error.name}: pip install 'ase-crystalformer[train]'."
        ) from error


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of ``size``; the last may be shorter."""
    stream = iter(items)
    while chunk := list(islice(stream, size)):
        yield chunk


class Job:
    """Structures read from files, and how many of them failed.

    Args:
        sources: As of ``read_structures``.
        made: Files and folders the results go to; they are no sources.
        bar: Show how many are done, on a terminal.
    """

    def __init__(
        self, sources: list[str], *, made: Iterable[Path | None] = (), bar: bool = True
    ) -> None:
        self.sources = sources
        self.made = [path for path in made if path is not None]
        self.hidden = None if bar else True
        self.done = 0
        self.failed = 0
        self.outside = 0
        self.odd: list[str] = []

    def chunks(self, size: int) -> Iterator[list[NamedStructure]]:
        """Read structures a few at a time; each list counts as done when the next is asked for."""
        with tqdm(unit=" structures", disable=self.hidden, file=sys.stderr) as bar:
            for found in in_chunks(read_structures(self.sources, made=self.made), size):
                yield found
                bar.update(len(found))

    def rows(self, table: "DataFrame", found: list[NamedStructure]) -> "DataFrame":
        """Begin the rows of a table with name and formula; tell and count those with an error."""
        from ase_crystalformer.structures import reduced_formula

        told = [error if isinstance(error, str) else None for error in table["error"]]
        errors = [item.error or error for item, error in zip(found, told, strict=True)]
        for item, error in zip(found, errors, strict=True):
            self.count(item.name, error)
        if "novelty" in table:
            self.outside += int((table["novelty"] > 1).sum())
        else:
            odd = table.attrs.get("outside", {})
            self.odd += [f"{found[number].name}: {odd[number]}" for number in sorted(odd)]
        table = table.reset_index(drop=True)
        table.attrs.pop("outside", None)  # by number in this chunk, which no file tells
        table.insert(0, "name", [item.name for item in found])
        formulas = [None if item.atoms is None else reduced_formula(item.atoms) for item in found]
        table.insert(1, "formula", formulas)
        texts = {"name": "string", "formula": "string", "error": "string"}
        return table.assign(error=errors).astype(texts)

    def count(self, name: str, error: str | None) -> None:
        self.done += 1
        if error is not None:
            self.failed += 1
            tqdm.write(f"{name}: {error}", file=sys.stderr)

    def end(self) -> None:
        """Tell how many are outside of training; exit with 1 if a structure failed."""
        if self.outside:
            typer.echo(
                f"{self.outside} of {self.done} structures are outside of what the potential was "
                "trained on (novelty > 1): compare some with DFT.",
                err=True,
            )
        if self.odd:
            typer.echo(
                f"{len(self.odd)} of {self.done} structures are outside of what the model was "
                f"trained on, the first is {self.odd[0]}. Their properties are guesses.",
                err=True,
            )
        if self.failed:
            typer.echo(f"{self.failed} of {self.done} structures failed.", err=True)
            raise typer.Exit(1)


def with_units(table: "DataFrame", units: dict[str, str]) -> "DataFrame":
    """Write the unit of every column behind its name."""
    return table.rename(columns={name: f"{name} ({unit})" for name, unit in units.items()})
