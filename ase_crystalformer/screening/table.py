"""All candidates in one table, and the conditions that select from it."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_crystalformer.errors import BadRecipe, MissingExtra, unknown_name
from ase_crystalformer.screening.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

ROWS_AT_ONCE = 1000

TEXTS = ("name", "formula", "outcome", "stage", "reason", "decomposes_to")
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
ROW_BY_ROW = ("str", "isin", "isna", "isnull", "notna", "notnull", "between", "abs")
"""What a condition may call of a column; others, such as a mean, would depend on its chunk."""

CALIBRATED = ("energy_uncertainty_per_atom", "novelty")
HULL = ("e_above_hull", "hull_formation_energy_per_atom", "decomposes_to")


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
        return row


class Condition:
    """A condition on the columns of a table, such as ``band_gap > 1 and e_above_hull < 0.05``.

    Args:
        text: An expression of ``pandas.eval`` about one row; ``None`` for no condition.
        table: What it is about.

    Raises:
        UnknownName: A column of that name does not exist.
        BadRecipe: It is no condition.
    """

    def __init__(self, text: str | None, table: Table) -> None:
        self.text = text
        if text is not None:
            self._try(text, table)

    def holds(self, frame: "DataFrame") -> "DataFrame":
        """Keep the rows for which it is true; where a number is missing, it is not."""
        if self.text is None:
            return frame
        kept = frame.eval(self.text, engine="python", local_dict={}, global_dict={})
        return frame[kept.fillna(False).astype(bool)]

    def _try(self, text: str, table: Table) -> None:
        from pandas import Series
        from pandas.api.types import is_bool_dtype
        from pandas.errors import UndefinedVariableError

        _refuse_others(text)
        row: dict[str, Any] = dict.fromkeys(table.columns, 1) | dict.fromkeys(TEXTS, "")
        sample = table.frame([row | dict.fromkeys(FLAGS, True)])
        try:
            found = sample.eval(text, engine="python", local_dict={}, global_dict={})
        except UndefinedVariableError as error:
            name = str(error).split("'")[1]
            if name in HULL:
                raise BadRecipe(f"{name} needs known phases: name some with hull.") from error
            if name in CALIBRATED:
                raise BadRecipe(f"{name} needs a calibrated potential; this one is not.") from error
            raise unknown_name("column", name, table.columns) from error
        except Exception as error:  # pandas raises whatever Python's parser and operators do
            raise BadRecipe(
                f"{text!r} is no condition ({type(error).__name__}: {error})."
            ) from error
        if not (isinstance(found, Series) and is_bool_dtype(found.dtype)):
            raise BadRecipe(
                f"{text!r} is no condition: it is neither true nor false of a candidate."
            )


def _refuse_others(text: str) -> None:
    """Refuse what is about more than one candidate, or does anything.

    Raises:
        BadRecipe: A method is asked for that is not of one row.
    """
    try:
        tree = ast.parse(text.replace("`", "").replace("@", "").strip(), mode="eval")
    except SyntaxError:
        return  # pandas tells it better
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or node.attr in ROW_BY_ROW:
            continue
        if not (isinstance(node.value, ast.Attribute) and node.value.attr == "str"):
            raise BadRecipe(
                f"{text!r} takes .{node.attr} of a column. A condition is about one candidate; it "
                f"may take {', '.join(f'.{name}' for name in ROW_BY_ROW)}."
            )


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

    partial = path.with_name(f"{path.name}.partial")
    plain = pa.Schema.from_pandas(table.frame([]), preserve_index=False)
    noted = [
        plain.field(name).with_metadata({"unit": table.units[name]} if name in table.units else {})
        for name in table.columns
    ]
    schema = pa.schema(noted, metadata=plain.metadata)
    with ParquetWriter(partial, schema) as writer:
        for frame in frames:
            writer.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
    partial.replace(path)


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
