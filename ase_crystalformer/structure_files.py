"""Structures from whatever users have: files, folders, globs, databases, tables; one by one."""

import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ase import Atoms

from ase_crystalformer.errors import BadStructure, CrystalformerError
from ase_crystalformer.structure_tables import Found, open_text, read_csv, read_json, read_parquet
from ase_crystalformer.structures import as_atoms, refuse_shared_site
from ase_crystalformer.writing import is_partial

IN_FOLDERS = (".cif", ".vasp", ".poscar", ".xyz", ".extxyz", ".traj", ".db", ".xsf")
"""Suffixes, gzip'd or not, of the files that are read where a folder is given."""


class NamedStructure(NamedTuple):
    """One structure as it was found, or why it could not be read.

    Attributes:
        name: Path of its file as given; ``file#index`` where the file holds many, with the row's id
            for an index in databases and in tables that have one. No two of one reading are equal.
        atoms: The structure; None where there is an error.
        error: What is wrong; None where there is a structure.
    """

    name: str
    atoms: Atoms | None
    error: str | None


def read_structures(
    sources: str | Path | Iterable[str | Path], *, made: Iterable[Path] = ()
) -> Iterator[NamedStructure]:
    """Read structures one after the other; what cannot be read is told, and the others go on.

    Args:
        sources: One or many, any of: a CIF, POSCAR, (extended) XYZ, ASE trajectory or database, or
            another file ASE reads, gzip'd or not; a JSON file of pymatgen, JARVIS or ASE
            structures; a CSV, JSON or parquet table with a column of structures (see
            ``structure_tables``); a folder, read at every depth; a glob pattern.
        made: Files and folders that hold results: left out of folders and patterns around them.

    Yields:
        In the order of the sources; files of a folder or a pattern in alphabetical order.
    """
    seen: dict[str, int] = {}
    for path, problem in expand(sources, made=made):
        found = [NamedStructure(_text(path), None, problem)] if problem else _read_file(path)
        for item in found:
            seen[item.name] = repeats = seen.get(item.name, 0) + 1
            yield item if repeats == 1 else item._replace(name=f"{item.name}~{repeats}")


def expand(
    sources: str | Path | Iterable[str | Path], *, made: Iterable[Path] = ()
) -> Iterator[tuple[Path, str | None]]:
    """Name every file of files, folders and patterns once, or say why there is none.

    Args:
        sources: As of ``read_structures``.
        made: Files and folders that hold results: left out of folders and patterns around them.
    """
    done: set[Path] = set()
    own = [path.resolve() for path in made]
    for name in [sources] if isinstance(sources, str | os.PathLike) else sources:
        source = Path(name)
        if not str(name):
            yield source, "The name of this file is empty. Was a variable not set?"
            continue
        within = _fixed(source).resolve()
        apart = [one for one in own if not within.is_relative_to(one)]
        for path, problem in _files_of(source):
            if path != source and _lies_in(path, apart):
                continue
            if (real := path.resolve()) not in done:
                done.add(real)
                yield path, problem


def _fixed(source: Path) -> Path:
    """The part of a pattern before its first wild card: all that it finds lies there."""
    return Path(*takewhile(lambda part: not {*"*?["} & {*part}, source.parts))


def _lies_in(path: Path, places: list[Path]) -> bool:
    found = path.resolve()
    return any(found.is_relative_to(place) for place in places)


def _files_of(source: Path) -> Iterator[tuple[Path, str | None]]:
    if source.is_file():
        yield source, None
    elif source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.is_file() and _belongs(path))
        known = ", ".join(("POSCAR*", "CONTCAR*", *(f"*{suffix}" for suffix in IN_FOLDERS)))
        yield from ((path, None) for path in files)
        if not files:
            yield source, f"The folder holds no structure file ({known}). Give a glob for others."
    else:
        matches = sorted(Path(source.anchor).glob(str(source.relative_to(source.anchor))))
        matches = [match for match in matches if match.is_file() and not is_partial(match)]
        yield from ((match, None) for match in matches)
        if not matches:
            yield source, "There is no such file, and no file matches it. Check the path."


def _belongs(path: Path) -> bool:
    """Say whether a file found in a folder is meant to be a structure."""
    if is_partial(path):
        return False
    return _suffix(path) in IN_FOLDERS or path.name.startswith(("POSCAR", "CONTCAR"))


def _suffix(path: Path) -> str:
    """Lower-case suffix without a final ``.gz``."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    return plain.suffix.lower()


def _read_file(path: Path) -> Iterator[NamedStructure]:
    """Read all structures of a file; it gives its bare name to a structure that is alone in it."""
    reader = _READERS.get(_suffix(path), _read_with_ase)
    found = _until_failure(reader(path))
    first, second = next(found, None), next(found, None)
    if first is None:
        yield NamedStructure(_text(path), None, "The file holds no structure.")
    elif second is None and first[0] is None:
        yield _parsed(_text(path), first[1])
    else:
        start = [item for item in (first, second) if item is not None]
        for number, (label, parse) in enumerate(chain(start, found)):
            yield _parsed(f"{_text(path)}#{number if label is None else label}", parse)


def _text(path: Path) -> str:
    """Write a path so that every file of results can hold it, whatever bytes it is made of."""
    return os.fsencode(path).decode(errors="replace")


def _until_failure(found: Iterator[Found]) -> Iterator[Found]:
    """Pass on what a reader finds; where it breaks down, pass on why and end."""
    try:
        yield from found
    except Exception as error:
        yield None, partial(_fail, error)


def _fail(error: Exception) -> NoReturn:
    raise error


def _parsed(name: str, parse: Callable[[], Any]) -> NamedStructure:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about symmetry settings nobody asked for
            return NamedStructure(name, _as_atoms(parse()), None)
    except Exception as error:
        return NamedStructure(name, None, _reason(error))


def _reason(error: Exception) -> str:
    """Say in one line what went wrong."""
    text = " ".join(str(error).split())
    if isinstance(error, CrystalformerError):
        return text
    return f"Cannot be read as a structure: {type(error).__name__}: {text}"[:300].rstrip(": ")


def _as_atoms(structure: Any) -> Atoms:
    """Keep ASE's own with their constraints; convert others."""
    atoms = as_atoms(structure)
    for site, shares in atoms.info.get("occupancy", {}).items():
        refuse_shared_site(site, shares, least=1 - 1e-3)
    _forget_symmetry(atoms)
    return atoms


def _forget_symmetry(atoms: Atoms) -> None:
    """Drop what a CIF said of its space group: it stops being true when atoms move."""
    for key in ("occupancy", "spacegroup", "unit_cell"):
        atoms.info.pop(key, None)
    atoms.arrays.pop("spacegroup_kinds", None)


# ------------------------------------------------------------------------------- formats


def _read_with_ase(path: Path) -> Iterator[Found]:
    """Let ASE guess the format and read frame by frame."""
    from ase.io import iread

    for atoms in iread(path, index=":", do_not_split_by_at_sign=True):
        yield None, partial(_same, atoms)


def _read_trajectory(path: Path) -> Iterator[Found]:
    """Read ASE's own, whatever its name reminds ASE of."""
    from ase.io import iread

    for atoms in iread(path, index=":", format="traj", do_not_split_by_at_sign=True):
        yield None, partial(_same, atoms)


def _same(atoms: Atoms) -> Atoms:
    return atoms


def _read_cif(path: Path) -> Iterator[Found]:
    from ase.io.cif import parse_cif

    with open_text(path) as file:
        text = file.read()
    if "data_" not in text.lower():
        raise BadStructure("This is no CIF: no line of it starts with data_. Check the file.")
    for block in parse_cif(io.StringIO(text)):
        if block.has_structure():
            yield None, partial(block.get_atoms, fractional_occupancies=True)


def _read_poscar(path: Path) -> Iterator[Found]:
    from ase.io import read

    yield None, partial(read, path, format="vasp", do_not_split_by_at_sign=True)


def _read_xyz(path: Path) -> Iterator[Found]:
    """Cut the file into frames, then let ASE read each: one pass even where it is gzip'd."""
    with open_text(path) as file:
        for line in file:
            if line.strip():
                rows = [line, *(file.readline() for _ in range(int(line) + 1))]
                yield None, partial(_xyz_frame, "".join(rows))


def _xyz_frame(text: str) -> Atoms:
    from ase.io import read

    return read(io.StringIO(text), format="extxyz")


def _read_database(path: Path) -> Iterator[Found]:
    from ase.db import connect

    with connect(path) as rows:
        for row in rows.select():
            yield str(row.id), row.toatoms


_READERS: dict[str, Callable[[Path], Iterator[Found]]] = {
    ".cif": _read_cif,
    ".vasp": _read_poscar,
    ".poscar": _read_poscar,
    ".xyz": _read_xyz,
    ".extxyz": _read_xyz,
    ".traj": _read_trajectory,
    ".db": _read_database,
    ".json": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
}
