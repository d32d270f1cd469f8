"""Conditions that select from the table of candidates."""

import ast
from functools import cache
from typing import TYPE_CHECKING, Any

from ase_crystalformer.errors import BadRecipe, unknown_name
from ase_crystalformer.screening.table import CALIBRATED, FLAGS, HULL, TEXTS, Table

if TYPE_CHECKING:
    from pandas import DataFrame, Series

ROW_BY_ROW = ("str", "isin", "isna", "isnull", "notna", "notnull", "between", "abs")
"""What a condition may call of a column; others, such as a mean, would depend on its chunk."""


class Condition:
    """A condition on the columns of a table, such as ``band_gap > 1 and e_above_hull < 0.05``.

    Of a value that is missing nothing is known: ``==``, ``!=``, ``in`` and their contraries are
    neither true nor false of it, and a row passes only if the condition is true whatever the value
    may be. ``band_gap.isna()`` asks for such rows.

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
        """Keep the rows for which it is true."""
        if self.text is None:
            return frame
        return frame[_evaluated(self.text, frame).fillna(False).astype(bool)]

    def _try(self, text: str, table: Table) -> None:
        from pandas import Series
        from pandas.api.types import is_bool_dtype
        from pandas.errors import UndefinedVariableError

        _refuse_others(text)
        row: dict[str, Any] = dict.fromkeys(table.columns, 1) | dict.fromkeys(TEXTS, "")
        sample = table.frame([row | dict.fromkeys(FLAGS, True)])
        try:
            found = _evaluated(text, sample)
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


def _evaluated(text: str, frame: "DataFrame") -> Any:
    """Tell of every row whether a condition is true, or that it is unknown."""
    column = _column()
    known = frame.astype(dict.fromkeys(frame.select_dtypes("float64"), "Float64"))
    return known.eval(
        text,
        engine="python",
        local_dict={},
        global_dict={},
        resolvers=[{name: column(known[name]) for name in known}],
    )


@cache
def _column() -> "type[Series[Any]]":
    """Make the kind of column that does not know whether a missing value is in a list."""
    from pandas import Series

    class Column(Series):
        @property
        def _constructor(self) -> type[Series]:
            return Column

        def isin(self, values: Any) -> Series:
            return super().isin(values).astype("boolean").mask(self.isna())

    return Column


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
