"""JSON as the field publishes it: tables of MatBench, lists of JARVIS or MEGNet, MatPES, MPtrj.

Each is read a row at a time. A row nobody understands says so when its structure is asked for.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ase_crystalformer.data.ase_files import database_rows
from ase_crystalformer.data.json_stream import JsonStream
from ase_crystalformer.data.rows import Row, of_row, open_text, structure_column
from ase_crystalformer.units import GPA

#: What the first key of a table split into columns and rows may be, as pandas writes it.
TABLE_KEYS = {"columns", "index", "data", "index_names", "column_names"}

#: From VASP's kilobar to eV/Å³ in ASE's sign.
KILOBAR = -0.1 * GPA


def json_rows(path: Path) -> Iterator[Row]:
    """Read a structure, or many: a list of structures or of rows, a table, frames by material.

    Rows of MatPES (they have a ``matpes_id``) and frames of MPtrj (``corrected_total_energy``)
    get ``energy`` in eV, ``forces`` in eV/Å and ``stress`` in eV/Å³ with ASE's sign; theirs is in
    kilobar with VASP's. The energy of MPtrj is the corrected one, the only scale on which its
    functionals can be compared (B. Deng et al., doi:10.1038/s42256-023-00716-3).

    Raises:
        ValueError: It is no JSON.
        BadStructure: It holds no structures.
    """
    with open_text(path) as file:
        stream = JsonStream(file)
        if stream.peek() == "[":
            for _ in stream.members():
                yield _row(stream.value(), path)
        else:
            yield from _object(stream, path)


def _object(stream: JsonStream, path: Path) -> Iterator[Row]:
    """Tell by the first key, and by what stands under it, what an object is."""
    members = stream.members()
    key = str(next(members, ""))
    if key in TABLE_KEYS:
        yield from _table(path)
        return
    first = stream.value()
    if isinstance(first, Mapping) and "numbers" in first:
        yield from database_rows(path)
    elif _is_named(first):
        yield from _by_name(key, first, path)
        for name in members:
            yield from _by_name(str(name), stream.value(), path)
    else:
        yield _row({key: first} | {str(other): stream.value() for other in members}, path)


def _is_named(told: Any) -> bool:
    """Whether a value is a row, or frames by name, and its key therefore a name."""
    if not isinstance(told, Mapping) or not told:
        return False
    rows = [told] if structure_column(told) else list(told.values())
    return all(isinstance(row, Mapping) and structure_column(row) for row in rows)


def _by_name(name: str, told: Any, path: Path) -> Iterator[Row]:
    """A row by its name, or the frames of a material by theirs."""
    if not isinstance(told, Mapping) or structure_column(told):
        yield _row(_named(told, id=name), path)
        return
    for frame, entry in told.items():
        yield _row(_named(entry, mp_id=name, frame_id=frame), path)


def _named(entry: Any, **names: str) -> dict[str, Any]:
    """A row with its names; what is no row may be a structure."""
    return {**names, **(entry if isinstance(entry, Mapping) else {"structure": entry})}


def _table(path: Path) -> Iterator[Row]:
    """Columns, index and rows, in whichever order."""
    names, index = _heads(path)
    with open_text(path) as file:
        stream = JsonStream(file)
        for key in stream.members():
            if key != "data":
                stream.skip()
                continue
            for number in stream.members():
                yield _of_cells(index[int(number)], names, stream.value(), path)


def _of_cells(name: Any, names: list[str], cells: Any, path: Path) -> Row:
    """A row of a table."""
    try:
        row = dict(zip(names, cells, strict=True))
    except (TypeError, ValueError) as error:
        return Row(structure=partial(_fail, error), values={"id": name})
    return of_row({"id": name, **row}, path)


def _heads(path: Path) -> tuple[list[str], list[Any]]:
    """Read the names of columns and rows; the rows themselves are passed over."""
    heads: dict[str, list[Any]] = {}
    with open_text(path) as file:
        stream = JsonStream(file)
        for key in stream.members():
            if key in {"columns", "index"}:
                heads[str(key)] = stream.value()
            else:
                stream.skip()
            if len(heads) == 2:
                break
    return heads["columns"], heads["index"]


def _row(entry: Any, path: Path) -> Row:
    """A row, or a bare structure; of a row that is neither, what tells its name."""
    try:
        return _understood(entry, path)
    except Exception as error:  # whatever may stand where numbers should
        values = entry.items() if isinstance(entry, Mapping) else ()
        told = {key: value for key, value in values if np.isscalar(value)}
        return Row(structure=partial(_fail, error), values=told)


def _fail(error: Exception) -> NoReturn:
    raise error


def _understood(entry: Mapping[str, Any], path: Path) -> Row:
    if not structure_column(entry):
        return of_row({"structure": entry}, path)
    if "matpes_id" in entry:
        return of_row(_matpes(entry), path)
    if "corrected_total_energy" in entry:
        return of_row(_mptrj(entry), path)
    return of_row(entry, path)


def _matpes(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Six stresses in Voigt's order, kilobar; https://matpes.ai/dataset."""
    stress = entry.get("stress")
    return _told(entry, "stress") | ({} if stress is None else {"stress": _voigt(stress) * KILOBAR})


def _mptrj(entry: Mapping[str, Any]) -> dict[str, Any]:
    told = _told(entry, "force", "stress", "magmom")
    told["energy"] = entry["corrected_total_energy"]
    for theirs, ours, factor in (("force", "forces", 1.0), ("stress", "stress", KILOBAR)):
        if entry.get(theirs) is not None:
            told[ours] = np.asarray(entry[theirs], dtype=np.float64) * factor
    return told


def _told(entry: Mapping[str, Any], *but: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in but}


def _voigt(stress: Any) -> Float[ndarray, "3 3"]:
    """Six numbers as a symmetric tensor."""
    xx, yy, zz, yz, xz, xy = np.asarray(stress, dtype=np.float64)
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
