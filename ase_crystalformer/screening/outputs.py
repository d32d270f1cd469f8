"""What a screening leaves behind: table, selected structures, failures, report."""

import csv
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_crystalformer.screening.conditions import Condition
from ase_crystalformer.screening.report import MOST_COLUMNS, Findings, write_report
from ase_crystalformer.screening.store import Store
from ase_crystalformer.screening.table import Table, write_parquet
from ase_crystalformer.stability.known_phases import CAVEAT, KNOWN
from ase_crystalformer.writing import whole

if TYPE_CHECKING:
    from ase import Atoms
    from pandas import DataFrame

FORMATS = ("extxyz", "db")
"""Of the selected structures."""

MOST_REASONS = 20
"""Kinds of failures that the report tells."""


@dataclass(frozen=True, kw_only=True)
class Screened:
    """What a screening found.

    Attributes:
        selected: Rows of the selected candidates, the best first; units in ``attrs["units"]``.
        counts: Stage to how many passed, were left out, failed.
        failures: Stage, name and reason of what failed.
        folder: Where everything is.
    """

    selected: "DataFrame"
    counts: dict[str, dict[str, int]]
    failures: list[tuple[str, str, str]]
    folder: Path


def write_outputs(
    folder: Path, table: Table, condition: Condition, top: int, structures: str
) -> Screened:
    """Write everything anew from the results in the store.

    Args:
        folder: Where.
        table: All candidates.
        condition: Which are selected.
        top: How many the report draws.
        structures: ``"extxyz"`` or ``"db"``: format of the selected structures.
    """
    from pandas import DataFrame

    store = table.store
    best, numbers = _selected(folder, table, condition)
    _write_csv(folder / "selected.csv", best)
    _write_structures(folder / f"selected.{structures}", store, numbers, best)
    for other in set(FORMATS) - {structures}:  # of an earlier call, whose selection may differ
        (folder / f"selected.{other}").unlink(missing_ok=True)
    failures = list(_failures(table))
    _write_failures(folder / "failures.csv", failures)
    counts = _counts(table, len(best))
    texts = zip(numbers[:top], best["formula"], strict=False)
    findings = Findings(
        title=folder.resolve().name,
        stages=DataFrame([{"stage": stage, **counted} for stage, counted in counts.items()]),
        selected=best,
        numbers=_distributions(folder, table),
        units=table.units,
        top=[(str(formula), _atoms(store, number)) for number, formula in texts],
        failures=dict(Counter(reason for *_, reason in failures).most_common(MOST_REASONS)),
        settings=json.dumps({**store.fact("settings"), "where": condition.text}, indent=1),
        remarks=_remarks(folder, table, best),
    )
    write_report(folder, findings)
    return Screened(selected=best, counts=counts, failures=failures, folder=folder)


def rank_by(table: Table) -> str:
    """By which column the selected are sorted, the lowest first."""
    wanted = ("e_above_hull", "formation_energy_per_atom", "energy_per_atom")
    return next(name for name in wanted if name in table.columns)


def _selected(folder: Path, table: Table, condition: Condition) -> tuple["DataFrame", list[int]]:
    """Write the table of all; return the rows and numbers of the selected, the best first."""
    from pandas import concat

    last = table.stages[-1].partition(" ")[0]
    parts: list[DataFrame] = [table.frame([]).assign(number=0)]

    def frames() -> Iterator["DataFrame"]:
        for numbers, frame in table.chunks():
            through = (frame["stage"] == last) & (frame["outcome"] == "passed")
            chosen = condition.holds(frame[through]).index
            frame.loc[through, "outcome"] = "not selected"
            frame.loc[chosen, "outcome"] = "selected"
            if len(chosen):
                parts.append(frame.loc[chosen].assign(number=np.array(numbers)[chosen]))
            yield frame

    write_parquet(folder / "candidates.parquet", frames(), table)
    best = concat(parts[1:] or parts, ignore_index=True)
    best = best.sort_values([rank_by(table), "number"], ignore_index=True)
    numbers = best.pop("number").tolist()
    best = best.drop(columns=["outcome", "stage", "reason"])
    best.attrs["units"] = {key: unit for key, unit in table.units.items() if key in best}
    return best, numbers


def _counts(table: Table, selected: int) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {
        stage.partition(" ")[0]: {str(key): n for key, n in table.store.counts(stage).items()}
        for stage in table.stages
    }
    through = counts[table.stages[-1].partition(" ")[0]]["passed"]
    return counts | {"where": {"passed": selected, "left out": through - selected, "failed": 0}}


def _failures(table: Table) -> Iterator[tuple[str, str, str]]:
    """Stage, name and reason of what failed, known phases included; not under earlier hulls."""
    mark = table.stages[-1].removeprefix("hull ")
    shown = {*table.stages, f"phases {mark}", f"relaxed {mark}"}
    for stage, number, told in table.store.failures():
        if stage in shown:
            kind, _, of = stage.partition(" ")
            source = stage if kind == "phases" else f"phases {of}" if kind == "relaxed" else "read"
            yield kind, table.store.name(source, number), told["reason"]


def _write_failures(path: Path, failures: list[tuple[str, str, str]]) -> None:
    with whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stage", "name", "reason"])
        writer.writerows(failures)


def _write_csv(path: Path, best: "DataFrame") -> None:
    """Write rows with the unit of every column behind its name."""
    units = best.attrs["units"]
    named = best.rename(columns={name: f"{name} ({unit})" for name, unit in units.items()})
    with whole(path) as partial:
        named.to_csv(partial, index=False, float_format="%.8g")


def _write_structures(path: Path, store: Store, numbers: list[int], best: "DataFrame") -> None:
    """Write relaxed structures, one by one, each with its row."""
    rows = zip(numbers, best.to_dict("records"), strict=True)
    frames = (_with_row(_atoms(store, number), row) for number, row in rows)
    with whole(path) as partial:
        partial.unlink(missing_ok=True)  # A database would be added to.
        (_write_database if path.suffix == ".db" else _write_extxyz)(partial, frames)


def _write_extxyz(path: Path, frames: Iterator["Atoms"]) -> None:
    from ase.io import write

    with path.open("w", encoding="utf-8") as file:
        for atoms in frames:
            write(file, atoms, format="extxyz")


def _write_database(path: Path, frames: Iterator["Atoms"]) -> None:
    from ase.db import connect
    from ase.db.core import reserved_keys

    reserved = {*reserved_keys, "energy", "formula", "fmax"}
    with connect(path, type="db", use_lock_file=False) as database:
        for atoms in frames:
            told = {key: value for key, value in atoms.info.items() if key not in reserved}
            named = {key: value for key, value in told.items() if _is_searchable(key, value)}
            database.write(atoms, named, data=told)


def _is_searchable(key: str, value: Any) -> bool:
    """Say whether ASE's database takes a note as a key; text that reads as a number is none."""
    from ase.db.core import check

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of keys that are formulas
        try:
            check({key: value})
        except ValueError:
            return False
    return True


def _with_row(atoms: "Atoms", row: dict[str, Any]) -> "Atoms":
    """Give a structure its energy and the rest of its row."""
    from ase.calculators.singlepoint import SinglePointCalculator

    row = dict(row)
    atoms.info.pop("energy", None)
    atoms.calc = SinglePointCalculator(atoms, energy=row.pop("energy"))
    atoms.info |= {key: value for key, value in row.items() if isinstance(value, str | float | int)}
    return atoms


def _atoms(store: Store, number: int) -> "Atoms":
    from ase.io.jsonio import decode

    atoms: Atoms = decode(store.atoms("relax", number))
    return atoms


def _remarks(folder: Path, table: Table, best: "DataFrame") -> str:
    """Say what to keep in mind of energies above the hull, and of how many not to believe them."""
    from pandas import read_parquet

    if "hull_note" not in table.columns:
        return ""
    noted = read_parquet(folder / "candidates.parquet", columns=["hull_note"])["hull_note"].count()
    told = [CAVEAT] if table.stages[-1] == f"hull {KNOWN}" else []
    if noted:
        told.append(
            f"For {noted:,} of the candidates, {best['hull_note'].count():,} of them selected, the "
            "hull knows no stable compound of their elements: their e_above_hull is not to be "
            "trusted (column hull_note)."
        )
    return " ".join(told)


def _distributions(folder: Path, table: Table) -> dict[str, Any]:
    """Values of the columns worth drawing, over all candidates that went through."""
    from pandas import read_parquet

    wanted = [rank_by(table), "energy_uncertainty_per_atom", "volume_per_atom", "band_gap", "steps"]
    names = list(dict.fromkeys([*wanted, *table.units]))
    names = [name for name in names if name in table.columns and name != "energy"]
    found: dict[str, Any] = {}
    for name in names:
        if len(found) < MOST_COLUMNS:
            frame = read_parquet(folder / "candidates.parquet", columns=["outcome", name])
            values = frame.loc[frame["outcome"].isin(["selected", "not selected"]), name].dropna()
            found |= {name: values.astype(float)} if len(values) else {}
    return found
