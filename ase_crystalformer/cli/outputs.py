"""Results in files, written as they come: CSV, JSON, parquet or extended XYZ by suffix."""

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import typer
from numpy import ndim

from ase_crystalformer.errors import MissingExtra

if TYPE_CHECKING:
    from ase import Atoms
    from pandas import DataFrame

Write: TypeAlias = Callable[["DataFrame", Sequence["Atoms | None"]], None]
"""Takes rows of results and, for formats that hold them, their structures."""


class Writer(ABC):
    """An open file that grows by rows of results and, if its format can, their structures."""

    def __init__(self, file: IO[Any]) -> None:
        self.file = file
        self.started = False

    def write(self, rows: "DataFrame", structures: Sequence["Atoms | None"]) -> None:
        """Append rows, so that an interrupt loses none of them."""
        self.append(rows, structures)
        self.file.flush()
        self.started = True

    @abstractmethod
    def append(self, rows: "DataFrame", structures: Sequence["Atoms | None"]) -> None:
        """Append rows."""

    def close(self) -> None:  # noqa: B027  most formats need nothing at the end
        """Make what was written a whole file."""


class _Csv(Writer):
    def append(self, rows: "DataFrame", structures: Sequence["Atoms | None"]) -> None:
        rows.to_csv(self.file, index=False, header=not self.started, float_format="%.8g")


class _Json(Writer):
    """A list of one object per row."""

    def append(self, rows: "DataFrame", structures: Sequence["Atoms | None"]) -> None:
        told = json.loads(rows.to_json(orient="records"))  # NaN becomes null
        lines = [json.dumps(row, ensure_ascii=False) for row in told]
        self.file.write((",\n" if self.started else "[\n") + ",\n".join(lines))

    def close(self) -> None:
        if self.started:
            self.file.write("\n]\n")


class _Parquet(Writer):
    writer: Any = None

    def append(self, rows: "DataFrame", structures: Sequence["Atoms | None"]) -> None:
        import pyarrow
        from pyarrow.parquet import ParquetWriter

        table = pyarrow.Table.from_pandas(rows, preserve_index=False)
        if self.writer is None:
            self.writer = ParquetWriter(self.file, table.schema)
        self.writer.write_table(table)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class _Extxyz(Writer):
    """Structures whose ``info`` holds their row; those that failed are left out."""

    def append(self, rows: "DataFrame", structures: Sequence["Atoms | None"]) -> None:
        from ase.io import write

        for row, atoms in zip(rows.to_dict("records"), structures, strict=True):
            if atoms is not None and not isinstance(row["error"], str):
                told = {key: value for key, value in row.items() if key != "error"}
                frame = _one_result(atoms, told)
                for name, values in _uncertainties(atoms).items():
                    (frame.arrays if ndim(values) else frame.info)[name] = values
                write(self.file, frame, format="extxyz")


def _one_result(atoms: "Atoms", told: dict[str, Any]) -> "Atoms":
    """Copy a structure and tell its row in ``info``; ASE writes no quantity twice.

    What the row tells stands for what the calculator knows, and that for what came with the file.
    """
    frame = atoms.copy()
    known = set(getattr(atoms.calc, "results", {}))
    if known.isdisjoint(told):
        frame.calc = atoms.calc
        for name in known:
            frame.info.pop(name, None)
            frame.arrays.pop(name, None)
    frame.info |= told
    return frame


def _uncertainties(atoms: "Atoms") -> dict[str, Any]:
    """What a calibrated potential says of its errors; ASE's writers leave it out."""
    return getattr(getattr(atoms.calc, "results", None), "uncertainties", {})


_WRITERS: dict[str, tuple[type[Writer], str]] = {
    ".csv": (_Csv, "w"),
    ".json": (_Json, "w"),
    ".parquet": (_Parquet, "wb"),
    ".extxyz": (_Extxyz, "w"),
    ".xyz": (_Extxyz, "w"),
}

TABLES = (".csv", ".json", ".parquet")
TABLES_AND_STRUCTURES = (".csv", ".json", ".parquet", ".extxyz", ".xyz")
STRUCTURES = (".extxyz", ".xyz")


def holds_structures(path: Path | None) -> bool:
    """Say whether a file of this suffix holds structures, not a table alone."""
    return path is not None and path.suffix in STRUCTURES


@contextmanager
def results(path: Path | None, suffixes: Sequence[str]) -> Iterator[Write]:
    """Open a file of results, or standard output as CSV, to write as results come.

    The file appears under its name when all is written. Until then, and if it comes to no good end,
    what is done is in ``FILE.partial``.

    Raises:
        typer.BadParameter: The suffix is none of ``suffixes``.
        MissingExtra: What the format needs is not installed.
    """
    if path is None:
        yield _Csv(sys.stdout).write
        return
    build, mode = _writer(path, suffixes)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            writer = build(file)
            try:
                yield writer.write
            finally:
                writer.close()
    except BaseException:
        _leave(partial)
        raise
    partial.replace(path)


def _leave(partial: Path) -> None:
    """Keep what is there of an unfinished file, and say so."""
    if partial.is_file() and partial.stat().st_size:
        typer.echo(f"Not finished; what was done is in {partial}", err=True)
    else:
        partial.unlink(missing_ok=True)


def _writer(path: Path, suffixes: Sequence[str]) -> tuple[type[Writer], str]:
    if path.suffix not in suffixes:
        raise typer.BadParameter(
            f"{path} ends in {path.suffix or 'nothing'!r}; use {', '.join(suffixes)}.",
            param_hint="--out",
        )
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401 -- before hours are spent on results
        except ImportError as error:
            hint = "pip install 'ase-crystalformer[parquet]'"
            raise MissingExtra(f"{path} needs pyarrow: {hint}; or use .csv or .json.") from error
    return _WRITERS[path.suffix]
