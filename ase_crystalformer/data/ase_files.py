"""What ASE reads: extended XYZ a frame at a time, LMDB a row at a time; all else at once.

Of other databases ASE itself fetches all rows before it gives the first.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ase_crystalformer.data.extxyz import read_text
from ase_crystalformer.data.rows import Row, kind_of, open_text
from ase_crystalformer.errors import BadStructure, MissingExtra

#: Suffixes that say more than a name that ASE takes for VASP's, as of ``POSCAR-relaxed.traj``.
KINDS = {".extxyz": "extxyz", ".traj": "traj", ".xyz": "extxyz"}


def ase_rows(path: Path) -> Iterator[Row]:
    """Read every frame of a file ASE reads.

    Raises:
        BadStructure: ASE cannot.
    """
    from ase.io import read
    from ase.io.formats import UnknownFileTypeError, filetype

    try:
        kind = KINDS.get(kind_of(path)) or filetype(path.name.removesuffix(".gz"), read=False)
        if kind in {"extxyz", "xyz"}:
            for text in xyz_texts(path):
                yield _frame(text, kind)
        elif kind == "vasp":
            yield of_atoms(read(StringIO(read_text(path)), format=kind))
        else:
            frames = read(path, ":", format=KINDS.get(kind_of(path)), do_not_split_by_at_sign=True)
            yield from map(of_atoms, frames)
    except (UnknownFileTypeError, ValueError, OSError, KeyError, IndexError) as error:
        raise BadStructure(
            f"{path} cannot be read by ASE ({type(error).__name__}: {error}). Give extended XYZ, "
            "CIF, POSCAR, an ASE .db, pymatgen JSON, or a .csv with a column of structures."
        ) from error


def _frame(text: str, kind: str) -> Row:
    """Read one frame; where it cannot be, its structure says why, and the others go on."""
    from ase.io import read

    try:
        return of_atoms(read(StringIO(text), 0, format=kind))
    except (ValueError, OSError, KeyError, IndexError) as error:
        return Row(structure=partial(_refuse, f"{type(error).__name__}: {error}"), values={})


def _refuse(reason: str) -> NoReturn:
    raise BadStructure(f"ASE cannot read it ({reason}).")


def xyz_texts(path: Path) -> Iterator[str]:
    """Cut a file of XYZ into the texts of its frames; the file is never whole in memory.

    Raises:
        ValueError: Where the number of atoms should stand, there is something else.
        BadStructure: The file ends within a frame.
    """
    with open_text(path) as file:
        line = file.readline()
        while line:
            if line.isspace():
                line = file.readline()
                continue
            lines = [line, *(file.readline() for _ in range(int(line) + 1))]
            if not lines[-1]:
                raise BadStructure(f"{path} ends within a frame. Is it whole?")
            line = file.readline()
            while line.startswith("VEC"):  # old plain XYZ names its cell last
                lines.append(line)
                line = file.readline()
            yield "".join(lines)


def database_rows(path: Path) -> Iterator[Row]:
    """Read every row of an ASE database: SQLite, JSON, or the LMDB of fairchem.

    Numbers and text of its ``data``, where fairchem keeps names, come along with its keys.

    Raises:
        MissingExtra: LMDB needs a package that is not installed.
    """
    from ase.db import connect

    lmdb = path.suffix == ".aselmdb"
    options = {"type": "aselmdb", "readonly": True} if lmdb else {}
    try:
        database = connect(path, **options)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{path} needs {error.name}: pip install 'ase-crystalformer[data]'."
        ) from error
    with database:
        for row in database.select():
            told = {key: value for key, value in row.data.items() if np.isscalar(value)}
            yield of_atoms(row.toatoms(), {"id": row.id, **told, **row.key_value_pairs})


def of_atoms(atoms: Any, values: Mapping[str, Any] | None = None) -> Row:
    """An ASE structure: its calculator's energy, forces and stress are labels."""
    from ase.stress import voigt_6_to_full_3x3_stress

    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    if np.shape(results.get("stress", 0)) == (6,):
        results["stress"] = voigt_6_to_full_3x3_stress(results["stress"])
    results.pop("free_energy", None)
    told = atoms.info if values is None else values
    return Row(structure=lambda: atoms, values={**told, **results})
