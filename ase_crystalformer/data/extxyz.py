"""Extended XYZ, read fast and strictly.

Only what our own data files hold is understood: one ``Lattice``, one ``Properties`` of species,
real columns, and ``key=value`` pairs. Other files go through ASE (see :mod:`.files`).
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from ase_crystalformer.data.rows import open_text
from ase_crystalformer.errors import BadStructure

_PAIR = re.compile(r'([^\s=]+)=(?:"([^"]*)"|(\S*))')


@dataclass(frozen=True, eq=False, kw_only=True)
class Frame:
    """One frame of a file: the crystal, its ``key=value`` pairs as text, its per-atom columns."""

    species: Int[ndarray, " atoms"]
    positions: Float[ndarray, "atoms 3"]
    cell: Float[ndarray, "3 3"]
    periodic: Bool[ndarray, " 3"]
    info: dict[str, str]
    columns: dict[str, Float[ndarray, "atoms ..."]]


def read_extxyz(path: Path | str) -> Iterator[Frame]:
    """Read every frame of an extended XYZ file, gzip'd or not, one at a time.

    Raises:
        BadStructure: A frame is not what its header says; names the file and the line.
    """
    line = 1
    try:
        with open_text(Path(path)) as file:
            for first in file:
                atoms = int(first)
                yield _frame(next(file, ""), list(islice(file, atoms)), atoms)
                line += 2 + atoms
    except (ValueError, KeyError, IndexError, EOFError, OSError, zlib.error) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise BadStructure(
            f"{path}, line {line}: not a frame of extended XYZ ({error!r}). Expected the "
            'number of atoms, then Lattice="..." Properties=species:S:1:pos:R:3..., then one '
            "line per atom."
        ) from error


def read_text(path: Path | str) -> str:
    """Read a text file at once, gzip'd or not: seeking in a gzip'd one is slow."""
    stored = Path(path).read_bytes()
    return (gzip.decompress(stored) if str(path).endswith(".gz") else stored).decode("utf-8")


def _frame(header: str, rows: list[str], atoms: int) -> Frame:
    info = {key: quoted or bare for key, quoted, bare in _PAIR.findall(header)}
    widths = _columns(info.pop("Properties"))
    total = sum(widths.values())
    tokens = " ".join(rows).split()
    if len(tokens) != atoms * (1 + total):
        raise ValueError(f"{len(tokens)} values for {atoms} atoms of {1 + total} columns")
    species = np.array([atomic_numbers[symbol] for symbol in tokens[:: 1 + total]], dtype=np.int64)
    del tokens[:: 1 + total]
    numbers = np.array(list(map(float, tokens))).reshape(atoms, total)
    edges = np.cumsum([0, *widths.values()])
    columns = {
        name: numbers[:, left:right]
        for name, left, right in zip(widths, edges[:-1], edges[1:], strict=True)
    }
    return Frame(
        species=species,
        positions=columns.pop("pos"),
        cell=real_array(info.pop("Lattice"), (3, 3)),
        periodic=np.array([flag == "T" for flag in info.pop("pbc", "T T T").split()]),
        info=info,
        columns=columns,
    )


def _columns(properties: str) -> dict[str, int]:
    """Names and widths of the real columns; the first column must be the species."""
    parts = properties.split(":")
    names, kinds, widths = parts[::3], parts[1::3], parts[2::3]
    if (names[0], kinds[0], widths[0]) != ("species", "S", "1") or set(kinds[1:]) != {"R"}:
        raise ValueError(f"columns {properties!r}")
    return {name: int(width) for name, width in zip(names[1:], widths[1:], strict=True)}


def real_array(text: str, shape: tuple[int, ...]) -> Float[ndarray, "..."]:
    """Read numbers separated by blanks."""
    return np.array([float(token) for token in text.split()]).reshape(shape)
