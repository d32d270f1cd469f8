"""Structures in the rows of tables and in JSON, as other libraries write them."""

import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

from ase import Atoms

from ase_crystalformer.errors import BadStructure, MissingExtra

COLUMNS = ("structure", "cif", "poscar", "atoms", "file")
"""Columns that may hold the structures: the first of these that is there."""

ID_COLUMNS = ("material_id", "id", "name", "jid")
"""Columns that name the rows; without one, rows are counted from zero."""

ROWS_AT_ONCE = 256

Found: TypeAlias = tuple[str | None, Callable[[], Any]]
"""What a structure is called in its file, None if by its number, and how to read it."""


def read_csv(path: Path) -> Iterator[Found]:
    """Find the structures of a CSV table, a few rows at a time."""
    import pandas as pd

    with pd.read_csv(path, dtype=str, chunksize=ROWS_AT_ONCE) as chunks:
        rows = (row for chunk in chunks for row in chunk.to_dict("records"))
        yield from _rows(rows, path)


def read_parquet(path: Path) -> Iterator[Found]:
    """Find the structures of a parquet table, a few rows at a time.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        hint = "pip install 'ase-crystalformer[parquet]'"
        raise MissingExtra(f"{path} is a parquet file, which needs pyarrow: {hint}.") from error
    with parquet.ParquetFile(path) as file:
        batches = file.iter_batches(batch_size=ROWS_AT_ONCE)
        yield from _rows((row for batch in batches for row in batch.to_pylist()), path)


def read_json(path: Path) -> Iterator[Found]:
    """Find the structures of a JSON file: one, some by name, a list, a table, or ASE's database.

    One may be an entry of pymatgen, which holds it as ``structure``.
    """
    with open_text(path) as file:
        told = json.load(file)
    if isinstance(told, dict) and "nextid" in told:
        from ase.db import connect

        yield from ((str(row.id), row.toatoms) for row in connect(path).select())
    elif _is_structure(told):
        yield None, partial(_from_dict, told)
    elif isinstance(told, list) and all(_is_structure(row) for row in told):
        yield from ((None, partial(_from_dict, row)) for row in told)
    elif isinstance(told, dict) and _is_structure(told.get("structure")):
        yield None, partial(_from_dict, told["structure"])
    elif isinstance(told, dict) and told and all(map(_is_structure, told.values())):
        yield from ((name, partial(_from_dict, one)) for name, one in told.items())
    else:
        yield from _rows(_records(told), path)


def open_text(path: Path) -> io.TextIOWrapper:
    """Open a text file, gzip'd or not; bytes that are no text become question marks."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", errors="replace")
    return path.open(encoding="utf-8", errors="replace")


def _records(told: Any) -> Iterable[dict[str, Any]]:
    """Rows of a JSON table: a list of them, pandas' ``split`` form, or its columns."""
    if isinstance(told, list):
        return told
    if {"columns", "data"} <= told.keys():
        return (dict(zip(told["columns"], row, strict=True)) for row in told["data"])
    import pandas as pd

    return cast("list[dict[str, Any]]", pd.DataFrame(told).to_dict("records"))


def _rows(rows: Iterable[dict[str, Any]], path: Path) -> Iterator[Found]:
    for number, row in enumerate(rows):
        column = next((name for name in COLUMNS if name in row), None)
        if column is None:
            raise BadStructure(
                f"The table has the columns {', '.join(row)}; structures must be in one named "
                f"{', '.join(COLUMNS)}. Rename that column."
            )
        ids = [row[name] for name in ID_COLUMNS if isinstance(row.get(name), (str, int))]
        label = str(ids[0] if ids else number)
        yield label, partial(_from_cell, row[column], path.parent)


def _from_cell(cell: Any, folder: Path) -> Any:
    """Read a structure given as a dictionary, JSON, a CIF, a POSCAR, or a path from the table.

    Of a file that holds many it is the first.
    """
    from ase.io import read

    if isinstance(cell, dict):
        return _from_dict(cell)
    if not isinstance(cell, str):
        raise BadStructure(f"The cell holds {cell!r}; a CIF, a POSCAR, JSON or a path is needed.")
    if cell.lstrip().startswith("{"):
        return _from_dict(json.loads(cell))
    if "_cell_length_a" in cell:
        return read(io.BytesIO(cell.encode()), format="cif")
    if "\n" in cell:
        return read(io.StringIO(cell), format="vasp")
    return read(folder / cell, index=0, do_not_split_by_at_sign=True)


def _is_structure(told: Any) -> bool:
    return isinstance(told, dict) and bool({"sites", "lattice_mat", "numbers"} & told.keys())


def _from_dict(told: dict[str, Any]) -> Any:
    """Read what ``as_dict`` of pymatgen, ``to_dict`` of JARVIS or ``todict`` of ASE wrote."""
    if "lattice_mat" in told:
        from jarvis.core.atoms import Atoms as JarvisAtoms

        return JarvisAtoms.from_dict(told)
    if "numbers" in told:
        return Atoms.fromdict(told)
    from pymatgen.core import Molecule, Structure

    return (Structure if "lattice" in told else Molecule).from_dict(told)
