"""Data sets as their authors publish them: each row with its name and its official part."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np

from ase_crystalformer.data import official
from ase_crystalformer.data.crystals import SPLITS, LabelledCrystal, Labels, Split, leave_out, sound
from ase_crystalformer.data.files import crystal_of, rows_of
from ase_crystalformer.data.holdout import split_by_series
from ase_crystalformer.data.registry import DataSet
from ase_crystalformer.data.rows import Row
from ase_crystalformer.errors import BadStructure

#: What a frame may have.
DYNAMICS = ("energy", "forces", "stress")


@dataclass(frozen=True, kw_only=True)
class Entry(Row):
    """A row of a published set.

    Attributes:
        number: Counted over all files, from 0.
        name: What its authors call it.
        split: The part of the data its file holds, if it holds one.
    """

    number: int
    name: str
    split: Split | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a row belongs: a part of the data, or the fold it is tested in.

    Attributes:
        split: The part.
        fold: The fold.
        told: Whether anyone says so; else it is where the rows in no list belong.
    """

    split: Split | None = None
    fold: int | None = None
    told: bool = True


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the rows of a set belong.

    Attributes:
        of: Says it of a row; nothing, if it is no row of the set.
        by_number: Whether it is true only of a file with as many rows as the set.
    """

    of: Callable[[Entry], Place | None]
    by_number: bool = False


_LOG = getLogger(__name__)


def is_there(data_set: DataSet, folder: Path) -> bool:
    """Whether a published set lies in a folder: all of its files, or one where each is a part."""
    told = [(folder / download.place).exists() for download in data_set.downloads]
    in_parts = all(download.split for download in data_set.downloads)
    return any(told) if in_parts else all(told) and bool(told)


def lacking(data_set: DataSet, folder: Path) -> list[str]:
    """Published files of a set that are not in a folder."""
    places = [download.place for download in data_set.downloads]
    return [place for place in places if not (folder / place).exists()]


def read_published(data_set: DataSet, folder: Path) -> Iterator[LabelledCrystal]:
    """Read the files as their authors publish them, a row at a time.

    A warning in the log says which files, or how many rows, are missing.

    Raises:
        BadStructure: A file cannot be read, is not that of this set, or has no row of it.
    """
    crystals = sound(_crystals(data_set, folder))
    return split_by_series(crystals, seed=0) if data_set.parts == "series" else crystals


def _crystals(data_set: DataSet, folder: Path) -> Iterator[LabelledCrystal]:
    places = _PLACES[data_set.parts](data_set, folder)
    if missing := lacking(data_set, folder):
        _LOG.warning("%s is read without %s: not in %s.", data_set.name, ", ".join(missing), folder)
    seen = told = read = 0
    for entry in _entries(data_set, folder):
        seen += 1
        place = places.of(entry)
        if place is None:
            continue
        told += place.told
        try:
            crystal = _labelled(entry, place, data_set)
        except Exception as error:  # foreign parsers raise whatever they like
            leave_out(f"{data_set.name} {entry.name}", f"{type(error).__name__}: {error}")
        else:
            read += 1
            yield crystal
    _check_end(data_set, seen, told, read, by_number=places.by_number)


def _check_end(data_set: DataSet, seen: int, told: int, read: int, *, by_number: bool) -> None:
    """Refuse a set of which nothing came, or that is not what its parts are of; tell of less."""
    if not told:
        raise BadStructure(
            f"None of the {seen:,} rows of {data_set.file} belongs to {data_set.name}. Are all of "
            f"its files of one version? They are: {_names(data_set)}."
        )
    if not read:
        raise BadStructure(
            f"None of the {seen:,} rows of {data_set.file} can be read; the log says why, of each."
        )
    wanted = data_set.file_rows or data_set.rows
    if by_number:
        _check_rows(data_set, seen, wanted, "rows")
    elif seen < wanted:
        _LOG.warning("%s: %s of %s rows are there.", data_set.name, f"{seen:,}", f"{wanted:,}")


def _check_rows(data_set: DataSet, found: int, wanted: int, what: str) -> None:
    """Refuse parts drawn or listed by number where the numbers are others."""
    if wanted and found != wanted:
        raise BadStructure(
            f"{data_set.file} has {found:,} {what}, and {data_set.name} has {wanted:,}: its parts "
            "cannot be told. It is another version, or part of the file: fetch the whole file."
        )


def _names(data_set: DataSet) -> str:
    return ", ".join(download.file for download in data_set.downloads)


def _entries(data_set: DataSet, folder: Path) -> Iterator[Entry]:
    """Every row of every file; of what unpacks to a folder, of every database in it."""
    number = 0
    for download in data_set.downloads:
        place = folder / download.place
        if download.lists or not place.exists():
            continue
        for path in sorted(place.rglob("*.aselmdb")) if place.is_dir() else [place]:
            for row in rows_of(path):
                yield Entry(
                    number=number,
                    name=_name(data_set, row.values, number),
                    values=row.values,
                    split=SPLITS[download.split],
                    structure=row.structure,
                )
                number += 1


def _name(data_set: DataSet, values: Mapping[str, Any], number: int) -> str:
    if data_set.id_keys:
        return "/".join(str(values.get(key, number)) for key in data_set.id_keys)
    if data_set.parts in {"folds", "stratified"}:
        return matbench_name(data_set, number + 1)
    return str(values.get("sid", number))


def matbench_name(data_set: DataSet, number: int) -> str:
    """Name a row of a task as MatBench does; the first is 1."""
    return official.row_name(data_set.name, data_set.rows, number)


def _labelled(entry: Entry, place: Place, data_set: DataSet) -> LabelledCrystal:
    bare = crystal_of(entry, entry.values, entry.name, data_set.name, data_set.group)
    labels = _scalars(entry.values, data_set)
    if data_set.dynamics:
        labels |= {key: bare.labels[key] for key in DYNAMICS if key in bare.labels}
    fold = {} if place.fold is None else {"fold_test": str(place.fold)}
    return replace(bare, labels=labels, split=place.split, info={**bare.info, **fold})


def _scalars(values: Mapping[str, Any], data_set: DataSet) -> Labels:
    found = {label.name: label.read(values.get(label.column)) for label in data_set.labels}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _told(data_set: DataSet, folder: Path, label: str) -> list[float]:
    """One label of every row, NaN where there is none."""
    (found,) = [one for one in data_set.labels if one.name == label]
    return [found.read(entry.values.get(found.column)) for entry in _entries(data_set, folder)]


def _as_told(data_set: DataSet, folder: Path) -> Places:
    return Places(of=lambda entry: Place(split=entry.split or SPLITS[entry.values.get("split")]))


def _folds(data_set: DataSet, folder: Path) -> Places:
    return _in_folds(data_set, official.folds(data_set.rows).tolist())


def _stratified(data_set: DataSet, folder: Path) -> Places:
    classes = _told(data_set, folder, data_set.labels[0].name)
    _check_rows(data_set, len(classes), data_set.rows, "rows")
    return _in_folds(data_set, official.folds(data_set.rows, classes).tolist())


def _in_folds(data_set: DataSet, fold: list[int]) -> Places:
    def place(entry: Entry) -> Place:
        if entry.number >= len(fold):
            raise BadStructure(
                f"{data_set.file} has more rows than {data_set.name}: {len(fold):,}. It is another "
                "file."
            )
        return Place(fold=fold[entry.number])

    return Places(of=place)


def _shuffled(data_set: DataSet, folder: Path) -> Places:
    """Shuffle the rows that have the label, in their order."""
    told = _told(data_set, folder, data_set.only)
    known = np.flatnonzero(np.isfinite(told)).tolist()
    _check_rows(data_set, len(told), data_set.file_rows, "rows")
    _check_rows(data_set, len(known), data_set.rows, f"rows with {data_set.only}")
    parts = dict(zip(known, official.shuffled(len(known)), strict=True))

    def place(entry: Entry) -> Place | None:
        part = parts.get(entry.number)
        return None if part is None else Place(split=part)

    return Places(of=place)


def _listed(data_set: DataSet, folder: Path) -> Places:
    """Look a row up by its name, or by its number."""
    (lists,) = [download for download in data_set.downloads if download.lists]
    parts, rest = official.listed(folder / lists.place)

    by_number = all(name.isdecimal() for name in parts)
    if by_number and data_set.rows and (last := max(map(int, parts))) >= data_set.rows:
        raise BadStructure(
            f"{lists.file} lists row {last:,}, and {data_set.name} has {data_set.rows:,}, counted "
            "from 0. It is of another version: fetch it again."
        )

    def place(entry: Entry) -> Place | None:
        part = parts.get(str(entry.number) if by_number else entry.name)
        if part is None:
            return None if rest is None else Place(split=rest, told=False)
        return Place(split=part)

    return Places(of=place, by_number=by_number)


_PLACES: dict[str, Callable[[DataSet, Path], Places]] = {
    "column": _as_told,
    "series": _as_told,
    "folds": _folds,
    "stratified": _stratified,
    "shuffled": _shuffled,
    "listed": _listed,
}
