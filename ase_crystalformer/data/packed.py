"""Crystals as flat arrays on disk, graphs included: written once, mapped, read by slices.

Training needs nothing but these files, torch and numpy. A packed set is a folder with one raw array
per field, ``ids.jsonl`` with a name per line, and ``meta.json``, which holds types, the neighbour
rule, and the names of labels, sources and groups. Neither writing nor reading one holds a set in
memory.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_crystalformer.data.ragged import ranges, starts
from ase_crystalformer.errors import BadModelFile, unknown_name
from ase_crystalformer.graph import CrystalGraph

#: Arrays of a packed set: name -> (type, shape of one entry). One entry per crystal, atom or edge.
CRYSTAL_FIELDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "cell": ("<f8", (3, 3)),
    "periodic": ("|u1", (3,)),
    "atoms": ("<i4", ()),
    "edges": ("<i4", ()),
    "split": ("|i1", ()),
    "source": ("<i2", ()),
    "group": ("<i2", ()),
    "stress": ("<f4", (3, 3)),
}
ATOM_FIELDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "species": ("|u1", ()),
    "positions": ("<f4", (3,)),
    "multiplicity": ("<f4", ()),
    "degree": ("<i4", ()),
    "forces": ("<f4", (3,)),
}
EDGE_FIELDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "sender": ("<i4", ()),
    "vector": ("<f4", (3,)),
    "image": ("<i2", (3,)),
}
SPLITS = ("train", "val", "test")

#: The file with the names of the crystals.
IDS = "ids.jsonl"

#: Rows of an array that tell it from another.
SAMPLED = 10_000

#: Source of the frames of an earlier training that are mixed into a later one.
REPLAY = "replay"


class PackedCrystals:
    """A packed set, read by slices from memory-mapped files.

    Args:
        folder: What ``pack`` wrote.
        called: What messages call it; the folder, if not given.

    Raises:
        BadModelFile: if the folder is not a complete packed set.
    """

    def __init__(self, folder: str | Path, called: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.called = str(called or folder)
        meta = self.folder / "meta.json"
        if not meta.is_file():
            raise BadModelFile(f"{self.folder} is not a packed data set: it has no meta.json.")
        self.meta: dict[str, Any] = json.loads(meta.read_text())
        self.labels: list[str] = self.meta["labels"]
        self.arrays = {name: self._map(name, *spec) for name, spec in self.meta["fields"].items()}
        self.atom_start = starts(self.arrays["atoms"])
        self.edge_start = starts(self.arrays["edges"])
        self._check_lengths()

    def _map(self, name: str, kind: str, shape: list[int]) -> NDArray[Any]:
        path = self.folder / f"{name}.bin"
        try:
            if path.stat().st_size == 0:
                return np.zeros((0, *shape), kind)
            return np.memmap(path, kind, mode="r").reshape(-1, *shape)
        except (OSError, ValueError) as error:
            raise BadModelFile(f"{path} is missing or truncated: {error}. Pack anew.") from error

    def _check_lengths(self) -> None:
        """Compare the length of every array with what the counts say."""
        counts = {"atoms": self.arrays["atoms"].sum(), "edges": self.arrays["edges"].sum()}
        for name, array in self.arrays.items():
            rows = len(self)
            if name in ATOM_FIELDS or name in EDGE_FIELDS:
                rows = int(counts["atoms" if name in ATOM_FIELDS else "edges"])
            if len(array) != rows:
                raise BadModelFile(
                    f"{self.folder / name}.bin has {len(array)} rows and should have {rows}: it is "
                    "truncated or of another set. Pack anew."
                )

    @cached_property
    def ids(self) -> list[str]:
        """Names of all crystals, read when they are asked for."""
        if "ids" in self.meta:  # as sets were packed before
            return list(self.meta["ids"])
        try:
            with (self.folder / IDS).open(encoding="utf-8") as file:
                ids = [json.loads(line) for line in file]
        except (OSError, ValueError) as error:
            raise BadModelFile(
                f"{self.folder / IDS} cannot be read: {error}. Pack anew."
            ) from error
        if len(ids) != len(self):
            raise BadModelFile(f"{self.folder / IDS} is truncated or of another set. Pack anew.")
        return ids

    def __len__(self) -> int:
        return self.meta["crystals"] if "crystals" in self.meta else len(self.meta["ids"])

    def fingerprint(self) -> str:
        """Tell this set from one of other crystals, labels or parts, wherever it was packed from.

        Of what there is of every atom, a sample counts.
        """
        told = {key: self.meta[key] for key in ("rule", "by_symmetry", "labels", "names")}
        known = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        whole = ("split", "source", "group", "atoms", "cell", *(f"label.{n}" for n in self.labels))
        for name in (*whole, "stress", "species", "positions", "forces"):
            array = self.arrays[name]
            step = 1 if name in whole else max(1, len(array) // SAMPLED)
            known.update(np.ascontiguousarray(array[::step]).tobytes())
        return known.hexdigest()

    def where(self, split: str) -> NDArray[np.int64]:
        """Numbers of the crystals in a split: ``train``, ``val`` or ``test``.

        Raises:
            UnknownName: There is no such split.
        """
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        return np.flatnonzero(self.arrays["split"] == SPLITS.index(split))

    def label(self, name: str) -> NDArray[np.float64]:
        """One scalar label of every crystal, NaN where missing."""
        return np.asarray(self.arrays[f"label.{name}"])

    def batch(
        self, which: Sequence[int] | NDArray[np.int64]
    ) -> tuple[CrystalGraph, dict[str, Tensor]]:
        """Collate crystals by number: the graph in float32, and every label there is."""
        index = np.asarray(which, dtype=np.int64)
        atom_rows = ranges(self.atom_start[index], self.arrays["atoms"][index])
        edge_rows = ranges(self.edge_start[index], self.arrays["edges"][index])
        atoms = np.asarray(self.arrays["atoms"][index], dtype=np.int64)
        offset = np.repeat(np.cumsum(atoms) - atoms, self.arrays["edges"][index])
        read = self._read
        receiver = np.repeat(np.arange(atoms.sum()), self.arrays["degree"][atom_rows])
        graph = CrystalGraph(
            species=read("species", atom_rows).long(),
            positions=read("positions", atom_rows),
            cell=read("cell", index).float(),
            periodic=read("periodic", index).bool(),
            crystal=torch.from_numpy(np.repeat(np.arange(len(index)), atoms)),
            multiplicity=read("multiplicity", atom_rows),
            receiver=torch.from_numpy(receiver),
            sender=read("sender", edge_rows).long() + torch.from_numpy(offset),
            image=read("image", edge_rows).long(),
            vector=read("vector", edge_rows),
        )
        labels = {name: read(f"label.{name}", index) for name in self.labels}
        labels |= {"forces": read("forces", atom_rows), "stress": read("stress", index)}
        labels |= {"group": read("group", index).long(), "source": read("source", index).long()}
        return graph, labels

    def _read(self, name: str, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[name][rows]))
