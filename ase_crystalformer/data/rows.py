"""A structure yet to be read, and what a file says of it."""

import gzip
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOBase, TextIOWrapper
from pathlib import Path
from typing import Any

from ase_crystalformer.errors import BadStructure

#: Columns that may hold a structure, the surest first.
STRUCTURE_COLUMNS = ("structure", "atoms", "cif", "file")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A structure yet to be read, and what comes with it.

    Attributes:
        structure: Reads it; or tells the path of the file whose first structure it is.
        values: Everything else of the row, by name.
    """

    structure: Callable[[], Any]
    values: Mapping[str, Any]


@contextmanager
def open_text(path: Path) -> Iterator[TextIOBase]:
    """Open a text file: as it is, gzip'd, or the first of a zip archive."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as inner:
            yield TextIOWrapper(inner, encoding="utf-8")
    elif path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield file
    else:
        with path.open(encoding="utf-8") as file:
            yield file


def kind_of(path: Path) -> str:
    """What a file holds, by its name: the suffix without that of its compression."""
    return Path(path.name.removesuffix(".gz").removesuffix(".zip")).suffix.lower()


def structure_column(row: Mapping[str, Any]) -> str | None:
    """Find the column that holds the structure."""
    return next((column for column in STRUCTURE_COLUMNS if column in row), None)


def of_row(row: Mapping[str, Any], path: Path) -> Row:
    """Part a row of a table into its structure and the rest.

    Raises:
        BadStructure: No column holds a structure.
    """
    column = structure_column(row)
    if column is None:
        raise BadStructure(
            f"{path} has the columns {', '.join(row)}; one of {', '.join(STRUCTURE_COLUMNS)} is "
            "needed. Rename the column that holds the structures."
        )
    values = {key: value for key, value in row.items() if key != column}
    return Row(structure=lambda: _decode(column, row[column], path.parent), values=values)


def _decode(column: str, value: Any, folder: Path) -> Any:
    """Make a structure of what a column of structures holds."""
    if column == "file":
        return folder / value
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return from_cif(value)
    return _from_dict(json.loads(value) if isinstance(value, str) else value)


def from_cif(text: str) -> Any:
    """Read the first crystal of a CIF."""
    from pymatgen.core import Structure

    return Structure.from_str(text, fmt="cif")


def _from_dict(stored: Mapping[str, Any]) -> Any:
    """Read the dictionary of a JARVIS or a pymatgen structure."""
    if "lattice_mat" in stored:
        return _from_jarvis(stored)
    if "lattice" in stored:
        return _ordered(stored) or _from_pymatgen(stored)
    from pymatgen.core import Molecule

    return Molecule.from_dict(stored)


def _from_jarvis(stored: Mapping[str, Any]) -> Any:
    from ase import Atoms

    where = "positions" if stored["cartesian"] else "scaled_positions"
    place = {where: stored["coords"], "cell": stored["lattice_mat"], "pbc": True}
    return Atoms([symbol.strip() for symbol in stored["elements"]], **place)


def _from_pymatgen(stored: Mapping[str, Any]) -> Any:
    from pymatgen.core import Structure

    return Structure.from_dict(stored)


def _ordered(stored: Mapping[str, Any]) -> Any:
    """Read pymatgen's dictionary without pymatgen, ten times as fast; None if it is not plain."""
    from ase import Atoms
    from ase.data import atomic_numbers

    species = [site["species"] for site in stored["sites"]]
    if any(len(site) != 1 or site[0]["occu"] != 1 for site in species):
        return None
    symbols = [site[0]["element"] for site in species]
    if not all(symbol in atomic_numbers for symbol in symbols):
        return None
    lattice, places = stored["lattice"], [site["abc"] for site in stored["sites"]]
    cell, pbc = lattice["matrix"], lattice.get("pbc", True)
    return Atoms(symbols, scaled_positions=places, cell=cell, pbc=pbc)
