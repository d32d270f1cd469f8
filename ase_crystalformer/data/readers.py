"""From the file of a public data set to labelled crystals."""

import csv
import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from logging import getLogger
from math import isfinite
from pathlib import Path

from ase_crystalformer.data.crystals import SPLITS, LabelledCrystal, Labels, Split, sound
from ase_crystalformer.data.extxyz import Frame, read_extxyz, real_array
from ase_crystalformer.data.files import read_file
from ase_crystalformer.data.published import is_there, lacking, matbench_name, read_published
from ase_crystalformer.data.registry import DATA_SETS, DataSet, Extract
from ase_crystalformer.errors import MissingData, unknown_name

#: The set that is asked of the interface of Materials Project.
QUERIED = "mp"

_LOG = getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """Labels of a crystal whose structure is elsewhere.

    Attributes:
        id: What the source calls the crystal.
        labels: Quantity to value, in the units of the data set.
        split: The part of the data it belongs to, if any.
        info: What else the row says, as text.
    """

    id: str
    labels: Mapping[str, float]
    split: Split | None
    info: Mapping[str, str]


def load(name: Path | str, data_dir: Path | str | None = None) -> Iterator[LabelledCrystal]:
    """Read a data set: a public one by its name, or a file of one's own by its path.

    Where the files of a published set are not in the folder, what our own sets hold of it is read
    under its name, with the same names, labels and parts (but for the names of
    ``matbench-mp-is-metal``, which our sets do not know). Rows nobody could compute are left out; a
    warning in the log names each.

    Args:
        name: A key of ``DATA_SETS``, or a path, as ``files.read_file`` takes it.
        data_dir: The folder with the files of the public data sets.

    Raises:
        UnknownName: There is no such data set.
        MissingData: The file is not there.
        BadStructure: The file as a whole cannot be read.
    """
    if name not in DATA_SETS and (Path(name).suffix or Path(name).is_file()):
        return read_file(name)
    data_set = _find(str(name), [key for key, known in DATA_SETS.items() if not _is_table(known)])
    folder = None if data_dir is None else Path(data_dir)
    if folder and is_there(data_set, folder):
        return read_published(data_set, folder)
    if folder and (parts := extracts_in(data_set, folder)):
        return read_extracts(data_set, parts, folder)
    if data_set.downloads:
        raise _missing(data_set, folder)
    frames = enumerate(read_extxyz(path_of(data_set, data_dir)))
    return sound(from_frame(frame, data_set, number) for number, frame in frames)


def load_labels(name: str, data_dir: Path | str) -> Iterator[LabelRow]:
    """Read a data set that is a table of labels without structures.

    Raises:
        UnknownName: There is no such table.
        MissingData: Its file is not in the folder.
    """
    data_set = _find(name, [key for key, known in DATA_SETS.items() if _is_table(known)])
    path = path_of(data_set, data_dir)
    return _table_rows(path, data_set)


def path_of(data_set: DataSet, data_dir: Path | str | None) -> Path:
    """Find the file of a data set.

    Raises:
        MissingData: No folder was named, or the file is not in it.
    """
    path = Path(data_dir or ".") / data_set.file
    if data_dir is None or not path.is_file():
        raise _missing(data_set, None if data_dir is None else Path(data_dir))
    return path


def _missing(data_set: DataSet, folder: Path | None) -> MissingData:
    """Say which files are not there, and what to do about it."""
    names = [download.place for download in data_set.downloads] or [data_set.file]
    lacking = [str((folder or Path()) / name) for name in names]
    lacking = [name for name in lacking if folder is None or not Path(name).exists()]
    ours = sorted({DATA_SETS[name].file for part in data_set.extracts for name in _sources(part)})
    fetched = data_set.downloads or data_set.name == QUERIED
    told = (
        f"The data set {data_set.name} needs {' and '.join(lacking)}, which "
        f"{'does' if len(lacking) == 1 else 'do'} not exist. Name the folder that holds "
        f"{data_set.file}; the data come from {data_set.url}."
    )
    told += f" A folder with {', '.join(ours)} has part of it." if ours else ""
    told += f" To get it: crystalformer data fetch {data_set.name} --to FOLDER" if fetched else ""
    return MissingData(told)


def extracts_in(data_set: DataSet, folder: Path) -> list[Extract]:
    """Those of a set's extracts whose files lie in a folder."""
    return [
        part
        for part in data_set.extracts
        if all((folder / DATA_SETS[name].file).is_file() for name in _sources(part))
    ]


def holding(data_set: DataSet, folder: Path) -> str:
    """What a folder has of a data set: ``whole``, ``part``, ``extract``, or nothing."""
    if data_set.downloads:
        if is_there(data_set, folder):
            return "part" if lacking(data_set, folder) else "whole"
        return "extract" if extracts_in(data_set, folder) else ""
    return "whole" if (folder / data_set.file).is_file() else ""


def _sources(part: Extract) -> list[str]:
    return [part.set, *filter(None, [part.labels])]


def read_extracts(
    data_set: DataSet, parts: Sequence[Extract], folder: Path
) -> Iterator[LabelledCrystal]:
    """Read what our sets hold of a published one, under its name.

    The log says how many rows are missing, once all are read.
    """
    found = 0
    for part in parts:
        rows = {row.id: row for row in load_labels(part.labels, folder)} if part.labels else {}
        for crystal in load(part.set, folder):
            told = rows.get(crystal.id) if part.labels else crystal
            if told is not None and _belongs(told, part):
                found += 1
                yield _under_name(crystal, told, part, data_set)
    if found < data_set.rows:
        files = ", ".join(DATA_SETS[name].file for part in parts for name in _sources(part))
        _LOG.warning(
            "%s: read %s of %s rows, all that is in %s of %s. %s",
            data_set.name,
            f"{found:,}",
            f"{data_set.rows:,}",
            files,
            folder,
            data_set.note,
        )


def _belongs(told: LabelledCrystal | LabelRow, part: Extract) -> bool:
    known = all(told.info.get(key) for key in filter(None, [part.id, part.fold]))
    sure = not part.joins or told.info.get("join") in part.joins
    return known and sure and not (part.split and told.split is None)


def _under_name(
    crystal: LabelledCrystal, told: LabelledCrystal | LabelRow, part: Extract, data_set: DataSet
) -> LabelledCrystal:
    """Give a row the name, the labels and the place it has in the published set."""
    name, wanted = told.info[part.id], {label.name for label in data_set.labels}
    if name.startswith("mb-"):
        name = matbench_name(data_set, int(name.rpartition("-")[2]))
    fold = {"fold_test": told.info[part.fold]} if part.fold else {}
    return replace(
        crystal,
        id=name,
        labels={key: value for key, value in told.labels.items() if key in wanted},
        split=None if part.fold else crystal.split,
        source=data_set.name,
        group=data_set.group,
        info={**crystal.info, **told.info, **fold},
    )


def from_frame(frame: Frame, data_set: DataSet, number: int) -> LabelledCrystal:
    """Label one frame as its data set says."""
    name = [frame.info[key] for key in data_set.id_keys]
    return LabelledCrystal(
        species=frame.species,
        positions=frame.positions,
        cell=frame.cell,
        periodic=frame.periodic,
        labels={**_scalars(frame.info, data_set), **_dynamics(frame, data_set)},
        id="/".join([*name, str(number)] if data_set.numbered else name),
        split=SPLITS[frame.info.get("split")],
        source=data_set.name,
        group=data_set.group,
        info=frame.info,
    )


def _scalars(info: Mapping[str, str], data_set: DataSet) -> dict[str, float]:
    found = {label.name: label.read(info.get(label.column)) for label in data_set.labels}
    return {name: value for name, value in found.items() if isfinite(value)}


def _dynamics(frame: Frame, data_set: DataSet) -> Labels:
    """Whatever the frame has of energy, forces and stress."""
    if not data_set.dynamics:
        return {}
    labels: Labels = {"forces": frame.columns["forces"]}
    if "energy" in frame.info:
        labels["energy"] = float(frame.info["energy"])
    if "stress" in frame.info:
        labels["stress"] = real_array(frame.info["stress"], (3, 3))
    return labels


def _table_rows(path: Path, data_set: DataSet) -> Iterator[LabelRow]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield LabelRow(
                id="/".join(row[key] for key in data_set.id_keys),
                labels=_scalars(row, data_set),
                split=SPLITS[row.get("split")],
                info=row,
            )


def _is_table(data_set: DataSet) -> bool:
    return ".csv" in data_set.file


def _find(name: str, known: list[str]) -> DataSet:
    if name not in known:
        raise unknown_name("data set", name, known)
    return DATA_SETS[name]
