"""Labelled crystals from files of one's own.

Extended XYZ and whatever else ASE reads, ASE databases, vasprun.xml, CIF, JSON of pymatgen,
MatBench, JARVIS, MatPES or MPtrj, and tables with a column of structures. Every number that comes
with a structure is a label. Extended XYZ, LMDB and JSON are read a row at a time; all else must fit
into memory.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn
from warnings import catch_warnings, simplefilter

import numpy as np

from ase_crystalformer.data.ase_files import ase_rows, database_rows, of_atoms
from ase_crystalformer.data.crystals import (
    SPLITS,
    LabelledCrystal,
    Labels,
    Split,
    leave_out,
    sound,
)
from ase_crystalformer.data.extxyz import read_text
from ase_crystalformer.data.json_files import json_rows
from ase_crystalformer.data.rows import Row, from_cif, kind_of, of_row
from ase_crystalformer.data.unread import ARRAYS
from ase_crystalformer.data.vasprun import read_vasprun
from ase_crystalformer.errors import BadStructure, CrystalformerError, MissingData
from ase_crystalformer.structures import as_crystal

#: Columns that may name a crystal.
ID_COLUMNS = ("id", "material_id", "jid", "matpes_id", "frame_id", "name")

#: Yes and no, as tables tell them.
TRUTH = {"true": 1.0, "false": 0.0}


def read_file(
    path: Path | str, *, rename: Mapping[str, str] | None = None, group: str | None = None
) -> Iterator[LabelledCrystal]:
    """Read the crystals of a file, each with its labels.

    Labels are in the units of :data:`ase_crystalformer.units.UNITS`: convert others first. A
    column ``split`` may say ``train``, ``val`` or ``test``. Rows that cannot be read are left out;
    a warning in the log names each.

    Args:
        path: Extended XYZ, CIF, POSCAR or anything ASE knows, ``.db``, ``.aselmdb``, ``.json``, or
            ``.csv`` with a column ``structure`` (pymatgen's dictionary as JSON), ``atoms``
            (JARVIS's), ``cif`` (its text) or ``file`` (a path, relative to the table's). All but
            databases may be gzip'd; ``.json`` may be zipped, too.
        rename: What the file calls a quantity to what we call it.
        group: The scale the energies stand on; the name of the file if not given.

    Raises:
        MissingData: There is no such file.
        BadStructure: The file as a whole cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingData(f"There is no file {path}. Check the path and the working directory.")
    source = path.name.removesuffix(".gz").removesuffix(".zip").rpartition(".")[0] or path.name
    return sound(_crystals(path, source, group or source, rename or {}))


def _crystals(
    path: Path, source: str, group: str, rename: Mapping[str, str]
) -> Iterator[LabelledCrystal]:
    for number, row in enumerate(rows_of(path)):
        values = {rename.get(key, key): value for key, value in row.values.items()}
        name = next(filter(None, (_name(values.get(key)) for key in ID_COLUMNS)), str(number))
        try:
            yield crystal_of(row, values, name, source, group)
        except Exception as error:  # foreign parsers raise whatever they like
            leave_out(f"{source} {name}", f"{type(error).__name__}: {error}")


def _name(told: Any) -> str:
    """Read a name; blank and missing cells are none."""
    name = str(told)
    missing = not isinstance(told, str) and name.lower() in ("none", "nan", "<na>")
    return "" if missing or name.isspace() else name


def crystal_of(
    row: Row, values: Mapping[str, Any], name: str, source: str, group: str
) -> LabelledCrystal:
    """Read the structure of a row; every finite number beside it is a label.

    Raises:
        BadStructure: Nobody can compute it, or its part of the data has a name nobody knows.
    """
    with catch_warnings():
        simplefilter("ignore")  # about the dialect of a file
        crystal = as_crystal(_structure(row))
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


def _structure(row: Row) -> Any:
    """Read the structure of a row, also where the row names its file."""
    found = row.structure()
    return next(rows_of(found)).structure() if isinstance(found, Path) else found


def _split(told: Any) -> Split | None:
    """Read the part of the data a row belongs to; one nobody knows would be trained on."""
    part = None if told is None else str(told)
    if part not in SPLITS:
        raise BadStructure(f"Its split is {told!r}. Write train, val, test, or nothing.")
    return SPLITS[part]


def rows_of(path: Path) -> Iterator[Row]:
    """Read the rows of a file, as its name says.

    Raises:
        BadStructure: The file as a whole cannot be read, or not to its end.
    """
    readers = {
        ".db": database_rows,
        ".aselmdb": database_rows,
        ".json": json_rows,
        ".csv": _table,
        ".cif": _cif,
        ".xml": _vasprun,
    }
    try:
        yield from readers.get(kind_of(path), ase_rows)(path)
    except (CrystalformerError, ImportError):
        raise
    except Exception as error:  # foreign parsers raise whatever they like
        raise BadStructure(
            f"{path} cannot be read ({type(error).__name__}: {error}). Is it whole, and of the "
            "format its name says?"
        ) from error


def _vasprun(path: Path) -> Iterator[Row]:
    """Every ionic step; those that did not converge say so when their structure is asked for."""
    for atoms, problem in read_vasprun(path):
        row = of_atoms(atoms, {})
        yield row if problem is None else replace(row, structure=partial(_refuse, problem))


def _refuse(problem: str) -> NoReturn:
    raise BadStructure(problem)


def _cif(path: Path) -> Iterator[Row]:
    """One crystal per block."""
    blocks = [
        block for block in re.split(r"(?m)^(?=data_)", read_text(path)) if block[:5] == "data_"
    ]
    for block in blocks:
        yield Row(structure=partial(from_cif, block), values={"id": block.split()[0][5:]})


def _table(path: Path) -> Iterator[Row]:
    from pandas import read_csv

    table = read_csv(StringIO(read_text(path)), dtype=str, keep_default_na=False)
    nameless = [column for column in table.columns if column.startswith("Unnamed:")]
    for row in table.drop(columns=nameless).to_dict("records"):
        yield of_row(row, path)


def _labels(values: Mapping[str, Any]) -> Labels:
    """Every finite number, and forces and stress where they are arrays."""
    labels: Labels = {
        name: np.asarray(values[name], dtype=np.float64)
        for name in ARRAYS
        if np.ndim(values.get(name, 0)) > 0
    }
    for name, value in values.items():
        if name not in {*ID_COLUMNS, "split", *ARRAYS} and np.ndim(value) == 0:
            with suppress(TypeError, ValueError):
                number = float(TRUTH.get(str(value).strip().lower(), value))
                if np.isfinite(number):
                    labels[name] = number
    return labels
