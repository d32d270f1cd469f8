"""From the file of a data set to labelled crystals."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from numpy import ndarray

from ase_crystalformer.data.crystals import LabelledCrystal, Split, check
from ase_crystalformer.data.extxyz import Frame, read_extxyz, real_array
from ase_crystalformer.data.registry import DataSet
from ase_crystalformer.data.table import DATA_SETS
from ase_crystalformer.errors import BadStructure, CrystalformerError, unknown_name

_LOG = logging.getLogger(__name__)
_SPLITS: dict[str | None, Split | None] = {
    None: None,
    "train": "train",
    "val": "val",
    "test": "test",
}


def load(name: str, data_dir: Path | str) -> Iterator[LabelledCrystal]:
    """Read a public data set from a folder that holds its file.

    Rows nobody could compute are left out; a warning names each.

    Raises:
        UnknownName: There is no such data set.
        BadStructure: The file is not there, or is no extended XYZ.
    """
    if name not in DATA_SETS:
        raise unknown_name("data set", name, DATA_SETS)
    data_set = DATA_SETS[name]
    path = Path(data_dir) / data_set.file
    if not path.is_file():
        raise CrystalformerError(
            f"The data set {name} needs the file {path}, which is not there. Put it there, or name "
            f"another folder. It comes from {data_set.url}."
        )
    rows = enumerate(read_extxyz(path))
    return sound(from_frame(frame, data_set, number) for number, frame in rows)


def from_frame(frame: Frame, data_set: DataSet, number: int) -> LabelledCrystal:
    """Label one frame as its data set says."""
    info = frame.info
    name = [info[key] for key in data_set.id_keys]
    return LabelledCrystal(
        species=frame.species,
        positions=frame.positions,
        cell=frame.cell,
        periodic=frame.periodic,
        labels=_labels(frame, data_set),
        id="/".join([*name, str(number)] if data_set.numbered else name),
        split=_SPLITS[info.get("split")],
        source=data_set.name,
        group=data_set.group,
        info=info,
    )


def sound(crystals: Iterable[LabelledCrystal]) -> Iterator[LabelledCrystal]:
    """Pass on the crystals that can be computed; warn of the others, by name and reason."""
    for crystal in crystals:
        try:
            check(crystal)
        except BadStructure as reason:
            _LOG.warning("Left out: %s", reason)
        else:
            yield crystal


def _labels(frame: Frame, data_set: DataSet) -> dict[str, float | ndarray]:
    info = frame.info
    labels: dict[str, float | ndarray] = {
        label.name: label.read(float(info[label.column]))
        for label in data_set.labels
        if label.column in info
    }
    if data_set.dynamics:
        if "energy" in info:
            labels["energy"] = float(info["energy"])
        if "stress" in info:
            labels["stress"] = real_array(info["stress"], (3, 3))
        labels["forces"] = frame.columns["forces"]
    return labels
