"""Labelled crystals from files of one's own.

Extended XYZ and whatever else ASE reads, ASE databases, vasprun.xml, CIF, JSON of pymatgen,
MatBench or JARVIS, and tables with a column of structures. Every number that comes with a structure
is a label.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn
from warnings import catch_warnings, simplefilter

import numpy as np

from ase_crystalformer.data.crystals import (
    SPLITS,
    LabelledCrystal,
    Labels,
    Split,
    leave_out,
    sound,
)
from ase_crystalformer.data.extxyz import read_text
from ase_crystalformer.data.vasprun import read_vasprun
from ase_crystalformer.errors import BadStructure, CrystalformerError, MissingData
from ase_crystalformer.structures import as_crystal

#: Columns that may hold a structure, the surest first.
STRUCTURE_COLUMNS = ("structure", "atoms", "cif", "file")

#: Columns that may name a crystal.
ID_COLUMNS = ("id", "material_id", "jid", "name")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A structure yet to be read, and what comes with it."""

    structure: Callable[[], Any]
    values: Mapping[str, Any]


def read_file(
    path: Path | str, *, rename: Mapping[str, str] | None = None, group: str | None = None
) -> Iterator[LabelledCrystal]:
    """Read the crystals of a file, each with its labels.

    Labels are in the units of :data:`ase_crystalformer.units.UNITS`: convert others first. A
    column ``split`` may say ``train``, ``val`` or ``test``. Rows that cannot be read are left out;
    a warning in the log names each.

    Args:
        path: Extended XYZ, CIF, POSCAR or anything ASE knows, ``.db``, ``.json``, or ``.csv`` with
            a column ``structure`` (pymatgen's dictionary as JSON), ``atoms`` (JARVIS's), ``cif``
            (its text) or ``file`` (a path, relative to the table's). All but ``.db`` may be gzip'd.
        rename: What the file calls a quantity to what we call it.
        group: The scale the energies stand on; the name of the file if not given.

    Raises:
        MissingData: There is no such file.
        BadStructure: The file as a whole cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingData(f"There is no file {path}. Check the path and the working directory.")
    source = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    return sound(_crystals(path, source, group or source, rename or {}))


def _crystals(
    path: Path, source: str, group: str, rename: Mapping[str, str]
) -> Iterator[LabelledCrystal]:
    for number, row in enumerate(_rows(path)):
        values = {rename.get(key, key): value for key, value in row.values.items()}
        name = next((str(values[key]) for key in ID_COLUMNS if key in values), str(number))
        try:
            yield _crystal(row, values, name, source, group)
        except Exception as error:  # foreign parsers raise whatever they like
            leave_out(f"{source} {name}", f"{type(error).__name__}: {error}")


def _crystal(
    row: Row, values: Mapping[str, Any], name: str, source: str, group: str
) -> LabelledCrystal:
    with catch_warnings():
        simplefilter("ignore")  # about the dialect of a file
        crystal = as_crystal(row.structure())
    return LabelledCrystal(
        species=crystal.species,
        positions=crystal.positions,
        cell=crystal.cell,
        periodic=crystal.periodic,
        labels=_labels(values),
        id=name,
        split=_split(values.get("split")),
        source=source,
        group=group,
        info={key: str(value) for key, value in values.items() if np.ndim(value) == 0},
    )


def _split(told: Any) -> Split | None:
    """Read the part of the data a row belongs to; one nobody knows would be trained on."""
    part = None if told is None else str(told)
    if part not in SPLITS:
        raise BadStructure(f"Its split is {told!r}. Write train, val, test, or nothing.")
    return SPLITS[part]


def _rows(path: Path) -> Iterator[Row]:
    suffixes = path.name.removesuffix(".gz")
    readers = {".db": _database, ".json": _json, ".csv": _table, ".cif": _cif, ".xml": _vasprun}
    try:
        yield from readers.get(Path(suffixes).suffix.lower(), _ase)(path)
    except (CrystalformerError, ImportError):
        raise
    except Exception as error:  # foreign parsers raise whatever they like
        raise BadStructure(
            f"{path} cannot be read ({type(error).__name__}: {error}). Is it whole, and of the "
            "format its name says?"
        ) from error


def _ase(path: Path) -> Iterator[Row]:
    """Every frame of a file ASE reads."""
    from ase.io import read
    from ase.io.formats import UnknownFileTypeError, filetype

    try:
        kind = filetype(path.name.removesuffix(".gz"), read=False)
        text = kind in {"extxyz", "xyz", "vasp"}
        frames = read(StringIO(read_text(path)), ":", format=kind) if text else read(path, ":")
    except (UnknownFileTypeError, ValueError, OSError, KeyError, IndexError) as error:
        raise BadStructure(
            f"ASE cannot read {path} ({type(error).__name__}: {error}). Give extended XYZ, CIF, "
            "POSCAR, an ASE .db, pymatgen JSON, or a .csv with a column of structures."
        ) from error
    for atoms in frames:
        yield _of_atoms(atoms, atoms.info)


def _database(path: Path) -> Iterator[Row]:
    from ase.db import connect

    with connect(path) as database:
        for row in database.select():
            yield _of_atoms(row.toatoms(), {"id": row.id, **row.key_value_pairs})


def _of_atoms(atoms: Any, values: Mapping[str, Any]) -> Row:
    """An ASE structure: its calculator's energy, forces and stress are labels."""
    from ase.stress import voigt_6_to_full_3x3_stress

    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    if "stress" in results and np.shape(results["stress"]) == (6,):
        results["stress"] = voigt_6_to_full_3x3_stress(results["stress"])
    results.pop("free_energy", None)
    return Row(structure=lambda: atoms, values={**values, **results})


def _vasprun(path: Path) -> Iterator[Row]:
    """Every ionic step; those that did not converge say so when their structure is asked for."""
    for atoms, problem in read_vasprun(path):
        row = _of_atoms(atoms, {})
        yield row if problem is None else replace(row, structure=partial(_refuse, problem))


def _refuse(problem: str) -> NoReturn:
    raise BadStructure(problem)


def _cif(path: Path) -> Iterator[Row]:
    """One crystal per block."""
    blocks = [
        block for block in re.split(r"(?m)^(?=data_)", read_text(path)) if block[:5] == "data_"
    ]
    for block in blocks:
        yield Row(structure=partial(_from_cif, block), values={"id": block.split()[0][5:]})


def _json(path: Path) -> Iterator[Row]:
    """A structure, a list of structures or of rows, a table of MatBench, or a database of ASE."""
    stored = json.loads(read_text(path))
    if isinstance(stored, dict) and "nextid" in stored:
        yield from _database(path)
        return
    if isinstance(stored, dict) and {"columns", "data", "index"} <= stored.keys():
        names = stored["columns"]
        pairs = zip(stored["index"], stored["data"], strict=True)
        stored = [{"id": key, **dict(zip(names, row, strict=True))} for key, row in pairs]
    for entry in stored if isinstance(stored, list) else [stored]:
        row = entry if _structure_column(entry) else {"structure": entry}
        yield _of_row(row, path)


def _table(path: Path) -> Iterator[Row]:
    from pandas import read_csv

    table = read_csv(StringIO(read_text(path)), dtype=str, keep_default_na=False)
    nameless = [column for column in table.columns if column.startswith("Unnamed:")]
    for row in table.drop(columns=nameless).to_dict("records"):
        yield _of_row(row, path)


def _of_row(row: Mapping[str, Any], path: Path) -> Row:
    column = _structure_column(row)
    if column is None:
        raise BadStructure(
            f"{path} has the columns {', '.join(row)}; one of {', '.join(STRUCTURE_COLUMNS)} is "
            "needed. Rename the column that holds the structures."
        )
    values = {key: value for key, value in row.items() if key != column}
    return Row(structure=lambda: _decode(column, row[column], path.parent), values=values)


def _structure_column(row: Mapping[str, Any]) -> str | None:
    return next((column for column in STRUCTURE_COLUMNS if column in row), None)


def _decode(column: str, value: Any, folder: Path) -> Any:
    """Make a structure of what a column of structures holds."""
    if column == "file":
        return next(_rows(folder / value)).structure()
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return _from_cif(value)
    return _from_dict(json.loads(value) if isinstance(value, str) else value)


def _from_cif(text: str) -> Any:
    from pymatgen.core import Structure

    return Structure.from_str(text, fmt="cif")


def _from_dict(stored: Mapping[str, Any]) -> Any:
    """Read the dictionary of a JARVIS or a pymatgen structure."""
    if "lattice_mat" in stored:
        from ase import Atoms

        where = "positions" if stored["cartesian"] else "scaled_positions"
        place = {where: stored["coords"], "cell": stored["lattice_mat"], "pbc": True}
        return Atoms([symbol.strip() for symbol in stored["elements"]], **place)
    from pymatgen.core import Molecule, Structure

    return (Structure if "lattice" in stored else Molecule).from_dict(stored)


def _labels(values: Mapping[str, Any]) -> Labels:
    """Every finite number, and forces and stress where there are any."""
    labels: Labels = {
        name: np.asarray(values[name], dtype=np.float64)
        for name in ("forces", "stress")
        if name in values
    }
    for name, value in values.items():
        if name not in {*ID_COLUMNS, "split", *labels} and np.ndim(value) == 0:
            with suppress(TypeError, ValueError):
                number = float(value)
                if np.isfinite(number):
                    labels[name] = number
    return labels
