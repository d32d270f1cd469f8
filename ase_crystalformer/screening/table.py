"""All candidates in one table."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_crystalformer.errors import MissingExtra
from ase_crystalformer.screening.references import hull_note
from ase_crystalformer.screening.store import Store
from ase_crystalformer.writing import whole

if TYPE_CHECKING:
    from pandas import DataFrame

ROWS_AT_ONCE = 1000

TEXTS = ("name", "formula", "outcome", "stage", "reason", "decomposes_to", "hull_note")
FLAGS = ("balanced", "converged")
COUNTS = ("atoms", "steps")

UNITS = {
    "unrelaxed_formation_energy_per_atom": "eV/atom",
    "energy": "eV",
    "energy_per_atom": "eV/atom",
    "energy_uncertainty_per_atom": "eV/atom",
    "fmax": "eV/Å",
    "volume_per_atom": "Å³",
    "e_above_hull": "eV/atom",
    "hull_formation_energy_per_atom": "eV/atom",
}
"""Units of what the potential and the hull tell."""

ALWAYS = (
    *("name", "formula", "atoms", "outcome", "stage", "reason", "balanced"),
    *("unrelaxed_formation_energy_per_atom", "converged", "steps", "energy", "energy_per_atom"),
    *("fmax", "volume_per_atom"),
)
CALIBRATED = ("energy_uncertainty_per_atom", "novelty")
HULL = ("e_above_hull", "hull_formation_energy_per_atom", "decomposes_to", "hull_note")


class Table:
    """Candidates as rows, one each, whatever became of them.

    Args:
        store: What became of them.
        stages: Names of the stages, in their order.
        properties: What the property model predicts, each with its unit.
        calibrated: Whether the potential tells how far to trust it.
        hull: Whether a hull was supplied.

    Attributes:
        units: Columns that have a unit.
        columns: Names of all columns.
    """

    def __init__(
        self,
        store: Store,
        stages: Sequence[str],
        properties: dict[str, str],
        *,
        calibrated: bool,
        hull: bool,
    ) -> None:
        self.store, self.stages = store, list(stages)
        own = CALIBRATED if calibrated else ()
        self.columns = [*ALWAYS, *own, *properties, *(HULL if hull else ())]
        self.units = {
            key: unit for key, unit in (UNITS | properties).items() if key in self.columns
        }

    def chunks(self) -> Iterator[tuple[list[int], "DataFrame"]]:
        """Numbers and rows of all candidates, a thousand at a time."""
        numbers = self.store.numbers(self.stages[0], None)
        for start in range(0, len(numbers), ROWS_AT_ONCE):
            some = numbers[start : start + ROWS_AT_ONCE]
            yield some, self.frame([self._row(number) for number in some])

    def frame(self, rows: list[dict[str, Any]]) -> "DataFrame":
        """Make a table of rows; what they do not tell is missing."""
        from pandas import DataFrame

        frame = DataFrame(rows, columns=self.columns)
        return frame.astype({name: _kind(name) for name in self.columns})

    def _row(self, number: int) -> dict[str, Any]:
        row: dict[str, Any] = {"name": self.store.name(self.stages[0], number)}
        for stage in self.stages:
            result = self.store.result(stage, number)
            if result is None:
                break
            row |= result.told | {"outcome": result.outcome, "stage": stage.partition(" ")[0]}
        if "decomposes_to" in row:
            row["hull_note"] = hull_note(row["formula"], row["e_above_hull"], row["decomposes_to"])
        return row


def _kind(name: str) -> str:
    if name in TEXTS:
        return "string"
    if name in FLAGS:
        return "boolean"
    return "Int64" if name in COUNTS else "float64"


def write_parquet(path: Path, frames: Iterator["DataFrame"], table: Table) -> None:
    """Write rows as they come; units are in the notes of the columns.

    The file appears under its name when all is written.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    plain = pa.Schema.from_pandas(table.frame([]), preserve_index=False)
    noted = [
        plain.field(name).with_metadata({"unit": table.units[name]} if name in table.units else {})
        for name in table.columns
    ]
    schema = pa.schema(noted, metadata=plain.metadata)
    with whole(path) as partial, ParquetWriter(partial, schema) as writer:
        for frame in frames:
            writer.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))


def check_parquet() -> None:
    """Make sure that the table can be written, before hours are spent on it.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        hint = "pip install 'ase-crystalformer[parquet]'"
        raise MissingExtra(f"The table of a screening needs pyarrow: {hint}.") from error
