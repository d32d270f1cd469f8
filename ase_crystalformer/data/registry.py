"""The public data sets this package knows; ``data_sets.toml`` lists them."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

Use = Literal["training", "validation", "benchmark", "structures"]


@dataclass(frozen=True, kw_only=True)
class Label:
    """How a column of a file becomes a label.

    Attributes:
        name: What we call it.
        unit: Its unit.
        column: What the file calls it; the name, if not given.
        log10: Whether the column holds decimal logarithms of the label.
    """

    name: str
    unit: str
    column: str = ""
    log10: bool = False

    def __post_init__(self) -> None:
        if not self.column:
            object.__setattr__(self, "column", self.name)

    def read(self, text: str) -> float:
        """Read a value of the column, in ``unit``."""
        value = float(text)
        return float(10.0**value) if self.log10 else value


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

    def __post_init__(self) -> None:
        if not self.file:
            object.__setattr__(self, "file", f"{self.name}.extxyz.gz")


def _read_registry() -> dict[str, DataSet]:
    text = files("ase_crystalformer.data").joinpath("data_sets.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    return {name: _data_set(name, row, table["citations"]) for name, row in table["sets"].items()}


def _data_set(name: str, row: dict[str, Any], citations: dict[str, str]) -> DataSet:
    read = {
        "labels": tuple(Label(**label) for label in row.get("labels", ())),
        "citations": tuple(citations[key] for key in row["citations"]),
        "id_keys": tuple(row.get("id_keys", ["material_id"])),
    }
    return DataSet(**{"name": name, **row, **read})


#: Every public data set by name.
DATA_SETS: dict[str, DataSet] = _read_registry()
