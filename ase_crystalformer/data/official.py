"""The official parts of public data sets, drawn or looked up as those who use them do."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from ase_crystalformer.data.crystals import Split
from ase_crystalformer.data.json_stream import JsonStream
from ase_crystalformer.data.rows import open_text
from ase_crystalformer.errors import BadStructure

#: MatBench's folds, and the seed they are drawn with.
FOLDS, FOLD_SEED = 5, 18012019

#: ALIGNN's seed, and its shares of validation and test.
SHUFFLE_SEED, SHARE = 123, 0.1

#: What lists of parts call them.
LISTED: Mapping[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "test": "test",
    "id_train": "train",
    "id_val": "val",
    "id_test": "test",
}


def folds(rows: int, classes: Sequence[float] | None = None) -> Int[ndarray, " rows"]:
    """In which of MatBench's five folds each row of a task is tested.

    Source: A. Dunn et al., npj Computational Materials 6, 138 (2020). Checked against the fold of
    every MatBench row in our extracts, 237,591 in six tasks. The folds of ``matbench_mp_is_metal``
    are stratified; these follow the same rule, and are checked against nothing.

    Args:
        rows: How many the whole task has.
        classes: Of a task of classes, that of each row.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    if classes is None:
        cut = KFold(FOLDS, shuffle=True, random_state=FOLD_SEED).split(np.zeros(rows))
    else:
        stratified = StratifiedKFold(FOLDS, shuffle=True, random_state=FOLD_SEED)
        cut = stratified.split(np.zeros(rows), np.asarray(classes))
    fold = np.empty(rows, dtype=np.int64)
    for number, (_, tested) in enumerate(cut):
        fold[tested] = number
    return fold


def row_name(task: str, rows: int, number: int) -> str:
    """Name a row of a task of MatBench as its authors do: ``mb-jdft2d-001``.

    Args:
        task: Its name; with hyphens, as data sets here are called, or with MatBench's underscores.
        rows: How many the whole task has.
        number: Counted from 1.
    """
    prefix = task.replace("matbench", "mb").replace("_", "-")
    return f"{prefix}-{number:0{len(str(rows))}d}"


def shuffled(rows: int) -> list[Split | None]:
    """Parts of rows as ALIGNN draws them, and Matformer, PotNet and ComFormer after it.

    The first 80 % of a shuffle with Python's generator, seed 123, are learned from; the last 10 %
    are the test, and the 10 % before them validate. What rounding leaves over belongs to no part.

    Source: K. Choudhary and B. DeCost, npj Computational Materials 7, 185 (2021).
    """
    order = list(range(rows))
    random.Random(SHUFFLE_SEED).shuffle(order)
    held = int(SHARE * rows)
    parts: list[Split | None] = [None] * rows
    named: list[tuple[Split, list[int]]] = [
        ("train", order[: int(0.8 * rows)]),
        ("val", order[rows - 2 * held : rows - held]),
        ("test", order[rows - held :]),
    ]
    for part, members in named:
        for member in members:
            parts[member] = part
    return parts


def listed(path: Path) -> tuple[dict[str, Split], Split | None]:
    """Read lists of parts: names of rows, or their numbers from 0, as text.

    The second is the part of a row in no list: the test, if the lists know no test; else none.

    Each of ``train``, ``val`` (or ``valid``) and ``test`` is a list, or an object whose keys
    count, as in JARVIS-Leaderboard.

    Raises:
        BadStructure: It is no such file, or lists no row of a part.
    """
    parts: dict[str, Split] = {}
    rest: Split | None = "test"
    try:
        with open_text(path) as file:
            stream = JsonStream(file)
            for key in stream.members():
                part = LISTED.get(str(key))
                rest = None if part == "test" else rest
                names = map(str, stream.value())
                parts.update(dict.fromkeys(names, part) if part else {})
    except (OSError, ValueError, TypeError, BadZipFile) as error:
        raise BadStructure(
            f"{path} is no list of parts ({type(error).__name__}: {error}). Fetch it again."
        ) from error
    if not parts:
        raise BadStructure(
            f"{path} lists no rows under {', '.join(LISTED)}. Is it the list of parts? Fetch it "
            "again."
        )
    return parts, rest
