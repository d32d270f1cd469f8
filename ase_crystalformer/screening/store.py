"""What every candidate went through so far: one SQLite file, complete after every result."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ase_crystalformer.errors import BadRecipe

Outcome: TypeAlias = Literal["passed", "left out", "failed"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS names (
    kind TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (kind, number)
);
CREATE TABLE IF NOT EXISTS results (
    stage TEXT NOT NULL, number INTEGER NOT NULL, outcome TEXT NOT NULL, told TEXT NOT NULL,
    atoms TEXT, PRIMARY KEY (stage, number)
);
"""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How one candidate fared in one stage.

    Attributes:
        outcome: ``"passed"`` goes on; ``"left out"`` and ``"failed"`` do not.
        told: Numbers and texts for the table; ``reason`` where it does not go on.
        atoms: The structure after the stage, as ``encode`` of ``ase.io.jsonio`` writes it; ``None``
            if the stage does not change it.
    """

    outcome: Outcome = "passed"
    told: dict[str, Any] = field(default_factory=dict)
    atoms: str | None = None

    @classmethod
    def failed(cls, reason: str) -> "Result":
        """Say why a candidate cannot go on."""
        return cls(outcome="failed", told={"reason": reason})


class Store:
    """Results by stage and number of the candidate, each written once and never changed.

    A result is safe as soon as ``add`` returns: a process that is killed afterwards, at any moment,
    leaves it whole. One process at a time may open the file; the log of SQLite needs no shared
    memory then, so that file systems of clusters will do.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["Store"]:
        """Open a file of results, or begin one.

        Raises:
            BadRecipe: Another process works on it, or it is no such file.
        """
        database = sqlite3.connect(path, timeout=1.0, isolation_level=None)
        try:
            try:
                database.execute("PRAGMA locking_mode = EXCLUSIVE")
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = NORMAL")
                database.executescript(_SCHEMA)
            except sqlite3.OperationalError as error:
                raise BadRecipe(
                    f"{path} cannot be used ({error}). Is another screening at work in this "
                    "folder? Wait for it or end it, or choose another folder."
                ) from error
            except sqlite3.DatabaseError as error:
                raise BadRecipe(f"{path}: {error}. Remove it, or choose another folder.") from error
            yield cls(database)
        finally:
            database.close()

    def fact(self, key: str) -> Any:
        """What was remembered under this name; ``None`` if nothing."""
        row = self._database.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def remember(self, key: str, value: Any) -> None:
        """Write down a fact, in place of an earlier one."""
        text = json.dumps(value, ensure_ascii=False)
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, text))

    def enter(self, kind: str, number: int, name: str, result: Result) -> None:
        """Take in a structure: its name, and how it fared in the stage that is called ``kind``."""
        with self._transaction():
            self._database.execute("INSERT INTO names VALUES (?, ?, ?)", (kind, number, name))
            self._insert(kind, number, result)

    def add(self, stage: str, results: Iterable[tuple[int, Result]]) -> None:
        """Write results of a stage, all or none.

        Raises:
            sqlite3.IntegrityError: One of them is there already.
        """
        with self._transaction():
            for number, result in results:
                self._insert(stage, number, result)

    def name(self, kind: str, number: int) -> str:
        """How a structure was called where it was found."""
        query = "SELECT name FROM names WHERE kind = ? AND number = ?"
        return str(self._database.execute(query, (kind, number)).fetchone()[0])

    def result(self, stage: str, number: int) -> Result | None:
        """Read one result; ``None`` if there is none yet."""
        query = "SELECT outcome, told, atoms FROM results WHERE stage = ? AND number = ?"
        row = self._database.execute(query, (stage, number)).fetchone()
        return row and Result(outcome=row[0], told=json.loads(row[1]), atoms=row[2])

    def atoms(self, stage: str, number: int) -> str:
        """Read the structure of one that passed a stage."""
        query = "SELECT atoms FROM results WHERE stage = ? AND number = ?"
        return str(self._database.execute(query, (stage, number)).fetchone()[0])

    def numbers(self, stage: str, outcome: Outcome | None = "passed") -> list[int]:
        """Who came out of a stage like this, in the order of numbers; ``None`` for all."""
        query = (
            "SELECT number FROM results WHERE stage = ? AND outcome IN (?, ?, ?) ORDER BY number"
        )
        wanted = (outcome,) * 3 if outcome else ("passed", "left out", "failed")
        return [number for (number,) in self._database.execute(query, (stage, *wanted))]

    def waiting(self, stage: str, before: str, key: str | None = None) -> list[int]:
        """Who passed the stage before and is not through this one, in the order of numbers.

        Args:
            stage: The stage.
            before: The stage before it.
            key: Sort by this number that the stage before told, the lowest first; those without
                it last.
        """
        query = """
            SELECT number FROM results AS here WHERE stage = ? AND outcome = 'passed' AND NOT EXISTS
            (SELECT 1 FROM results WHERE stage = ? AND number = here.number)
            ORDER BY json_extract(told, ?) IS NULL, json_extract(told, ?), number
        """
        path = f"$.{key or 'nothing'}"
        return [number for (number,) in self._database.execute(query, (before, stage, path, path))]

    def told(self, stage: str, key: str) -> list[tuple[int, Any]]:
        """One entry of what was told of all who passed a stage, by number."""
        query = """
            SELECT number, told FROM results
            WHERE stage = ? AND outcome = 'passed' ORDER BY number
        """
        return [
            (number, json.loads(told)[key])
            for number, told in self._database.execute(query, (stage,))
        ]

    def failures(self) -> list[tuple[str, int, dict[str, Any]]]:
        """Stage, number and what was told of everything that ever failed, stage by stage."""
        query = "SELECT stage, number, told FROM results WHERE outcome = 'failed' ORDER BY rowid"
        return [
            (stage, number, json.loads(told))
            for stage, number, told in self._database.execute(query)
        ]

    def counts(self, stage: str) -> dict[Outcome, int]:
        """How many came out of a stage, by how they did."""
        query = "SELECT outcome, COUNT(*) FROM results WHERE stage = ? GROUP BY outcome"
        found: dict[Outcome, int] = {"passed": 0, "left out": 0, "failed": 0}
        return found | dict(self._database.execute(query, (stage,)))

    def _insert(self, stage: str, number: int, result: Result) -> None:
        told = json.dumps(result.told, ensure_ascii=False, allow_nan=False)
        row = (stage, number, result.outcome, told, result.atoms)
        self._database.execute("INSERT INTO results VALUES (?, ?, ?, ?, ?)", row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")
