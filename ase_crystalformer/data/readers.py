"""From the file of a public data set to labelled crystals."""

import csv
import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ase_crystalformer.data.crystals import SPLITS, LabelledCrystal, Labels, Split, sound
from ase_crystalformer.data.extxyz import Frame, read_extxyz, real_array
from ase_crystalformer.data.files import read_file
from ase_crystalformer.data.registry import DATA_SETS, DataSet
from ase_crystalformer.errors import MissingData, unknown_name


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

    Rows nobody could compute are left out; a warning in the log names each.

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
        raise MissingData(
            f"The data set {data_set.name} needs its file {path}, which does not exist. Name the "
            f"folder that holds {data_set.file}; the data come from {data_set.url}."
        )
    return path


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
    return {
        label.name: label.read(info[label.column])
        for label in data_set.labels
        if info.get(label.column)
    }


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
