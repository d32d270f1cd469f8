"""The public data sets this package knows; ``data_sets.toml`` lists them."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from math import isfinite, nan
from typing import Any, Literal

Use = Literal["training", "validation", "benchmark", "structures"]

#: How the official parts of a data set are told: by a column ``split`` of its rows, or by the
#: file a row is in; by MatBench's folds, of classes stratified; by ALIGNN's shuffle; by lists in a
#: file of their own; or by nobody, where frames of one material stay together.
Parts = Literal["column", "folds", "stratified", "shuffled", "listed", "series"]


@dataclass(frozen=True, kw_only=True)
class Label:
    """How a column of a file becomes a label.

    Attributes:
        name: What we call it.
        unit: Its unit.
        column: What the file calls it; the name, if not given.
        log10: Whether the column holds decimal logarithms of the label.
        is_zero: Whether the label is that the column is zero: 1 if so, else 0.
    """

    name: str
    unit: str
    column: str = ""
    log10: bool = False
    is_zero: bool = False

    def __post_init__(self) -> None:
        if not self.column:
            object.__setattr__(self, "column", self.name)

    def read(self, told: Any) -> float:
        """Read a value of the column, in ``unit``; what is no finite number is NaN."""
        try:
            value = float(told)
        except (TypeError, ValueError):
            return nan
        if self.is_zero and isfinite(value):
            return float(value == 0)
        return float(10.0**value) if self.log10 else value


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file as its authors publish it.

    Attributes:
        file: Its name in a data folder.
        url: Where it lies.
        size: Bytes; 0 where unknown.
        sha256: Checksum; empty where nobody published one.
        md5: The same, where the authors give MD5.
        split: The part of the data all of its rows belong to, if so.
        lists: Whether it holds no crystals but the parts of the data.
    """

    file: str
    url: str
    size: int = 0
    sha256: str = ""
    md5: str = ""
    split: str | None = None
    lists: bool = False

    @property
    def place(self) -> str:
        """What lies in the data folder when it is there: the file, or what it unpacks to."""
        return self.file.removesuffix(".tar.gz")


@dataclass(frozen=True, kw_only=True)
class Extract:
    """A set of ours that holds part of a published one.

    Attributes:
        set: Its name.
        labels: A table with more remarks about its crystals, joined by name.
        id: Which remark holds the name that the published set gives the crystal.
        fold: Which remark holds the fold in which it is tested.
        split: Whether rows without a part of the data are no part of the published set.
        joins: How label and cell must have been joined to be believed; empty if anyhow.
    """

    set: str
    labels: str = ""
    id: str = "material_id"
    fold: str = ""
    split: bool = False
    joins: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set: one file, its labels, and whom to thank.

    Attributes:
        name: Its name.
        file: Its file in a data folder; ``<name>.extxyz.gz``, if not given.
        about: What it holds.
        method: How the labels were made: functional, code, or potential.
        group: The scale its energies stand on; those of two groups must not be pooled.
        use: Whether shipped models are trained on it, or measured on it.
        licence: SPDX identifier, or the terms in words.
        citations: What to cite.
        url: Where it comes from.
        labels: Scalar labels.
        dynamics: Whether it has total energies (eV), forces (eV/Å) and stresses (eV/Å³).
        id_keys: The keys which, joined by a slash, name a crystal.
        numbered: Whether rows share a name, so that the row's number joins it.
        downloads: Its files as published; if there are any, ``file`` is the first.
        extracts: What else may lie in a data folder and holds part of it.
        rows: How many there are; 0 where unknown.
        file_rows: How many the file has where some are no rows of it; 0 where unknown.
        parts: How its official parts are told.
        split: The official parts, in words.
        only: A label that a row must have to belong to it.
        note: What to know before using it.
    """

    name: str
    about: str
    method: str
    group: str
    use: Use
    licence: str
    citations: tuple[str, ...]
    url: str
    file: str = ""
    labels: tuple[Label, ...] = ()
    dynamics: bool = False
    id_keys: tuple[str, ...] = ("material_id",)
    numbered: bool = False
    downloads: tuple[Download, ...] = ()
    extracts: tuple[Extract, ...] = ()
    rows: int = 0
    file_rows: int = 0
    parts: Parts = "column"
    split: str = ""
    only: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not self.file:
            first = self.downloads[0].place if self.downloads else f"{self.name}.extxyz.gz"
            object.__setattr__(self, "file", first)


def _read_registry() -> dict[str, DataSet]:
    folder = files("ase_crystalformer.data")
    tables = [
        tomllib.loads(folder.joinpath(name).read_text(encoding="utf-8"))
        for name in ("data_sets.toml", "published_sets.toml")
    ]
    citations = {key: text for table in tables for key, text in table["citations"].items()}
    rows = {name: row for table in tables for name, row in table["sets"].items()}
    return {name: _data_set(name, _inherited(row, rows), citations) for name, row in rows.items()}


def _inherited(row: dict[str, Any], rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a set says, and what the set it is like says otherwise."""
    if "like" not in row:
        return row
    own = {key: value for key, value in row.items() if key != "like"}
    return {**_inherited(rows[row["like"]], rows), **own}


def _data_set(name: str, row: dict[str, Any], citations: dict[str, str]) -> DataSet:
    read = {
        "labels": tuple(Label(**label) for label in row.get("labels", ())),
        "citations": tuple(citations[key] for key in row["citations"]),
        "id_keys": tuple(row.get("id_keys", ["material_id"])),
        "downloads": tuple(Download(**told) for told in row.get("downloads", ())),
        "extracts": tuple(
            Extract(**{**told, "joins": tuple(told.get("joins", ()))})
            for told in row.get("extracts", ())
        ),
    }
    return DataSet(**{"name": name, **row, **read})


#: Every public data set by name.
DATA_SETS: dict[str, DataSet] = _read_registry()
