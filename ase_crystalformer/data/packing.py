"""Write crystals as the flat arrays of a packed set, graphs included; ``packed`` reads them.

Nothing here holds a set in memory.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ase_crystalformer.data.crystals import LabelledCrystal, check
from ase_crystalformer.data.packed import (
    ATOM_FIELDS,
    CRYSTAL_FIELDS,
    EDGE_FIELDS,
    IDS,
    SPLITS,
)
from ase_crystalformer.errors import BadModelFile, BadStructure
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import Rule, build
from ase_crystalformer.orbits import reduce

#: How many crystals a process is given at a time, and how often until all wait for the slowest.
AT_ONCE, TURNS = 16, 8


def pack(
    crystals: Iterable[LabelledCrystal],
    rule: Rule,
    folder: str | Path,
    *,
    labels: Sequence[str],
    by_symmetry: bool = False,
    remembered: Mapping[str, Any] | None = None,
    processes: int = 1,
) -> list[str]:
    """Build every graph once and write the set; return a line for each crystal left out, and why.

    What is written does not depend on the number of processes.

    Args:
        crystals: Read one at a time; never all in memory.
        rule: Which pairs are edges.
        folder: Where to; replaced as a whole when all is written.
        labels: Which scalar labels to keep; NaN where a crystal has none.
        by_symmetry: Keep one atom per orbit (no forces then).
        remembered: What else ``meta.json`` is to hold, plain values: where the crystals are from,
            and how their parts were chosen.
        processes: How many build graphs; a few hundred crystals for each are in memory. More than
            one begin anew and import torch, which takes seconds.

    Raises:
        BadModelFile: The folder holds something else, which would be lost.
    """
    folder = Path(folder).resolve()
    check_replaceable(folder)
    begun = _partial(folder)
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    kinds = {**CRYSTAL_FIELDS, **ATOM_FIELDS, **EDGE_FIELDS}
    kinds |= {f"label.{name}": ("<f8", ()) for name in labels}
    names: dict[str, dict[str, int]] = {"source": {}, "group": {}}
    failures: list[str] = []
    packed = 0
    with ExitStack() as stack:
        files = {name: stack.enter_context((begun / f"{name}.bin").open("wb")) for name in kinds}
        ids = stack.enter_context((begun / IDS).open("w", encoding="utf-8"))
        for crystal, graph in _graphs(crystals, rule, by_symmetry, processes):
            if isinstance(graph, str):
                failures.append(f"{crystal.id}: {graph}")
                continue
            packed += 1
            ids.write(json.dumps(crystal.id) + "\n")
            for name, value in _rows(crystal, graph, labels, by_symmetry, names).items():
                files[name].write(np.ascontiguousarray(value, dtype=kinds[name][0]).tobytes())
    meta = {
        **(remembered or {}),
        "rule": rule_dict(rule),
        "by_symmetry": by_symmetry,
        "crystals": packed,
        "labels": list(labels),
        "names": {key: list(values) for key, values in names.items()},
        "fields": {name: [kind, list(shape)] for name, (kind, shape) in kinds.items()},
    }
    (begun / "meta.json").write_text(json.dumps(meta))
    if folder.exists():
        shutil.rmtree(folder)
    begun.rename(folder)
    return failures


def remove_packed(folder: Path) -> None:
    """Remove a packed set, and nothing else that may bear its name.

    Raises:
        BadModelFile: The folder holds something, and no packed set.
    """
    check_replaceable(folder)
    folder = folder.resolve()
    if folder.exists():
        gone = _partial(folder)  # so that a kill leaves no half of a set
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
        shutil.rmtree(gone)


def check_replaceable(folder: Path) -> None:
    """Refuse to let a packed set take the place of anything else.

    Raises:
        BadModelFile: The folder holds something, and no packed set; or it is a file, or the folder
            the program runs in, or above that.
    """
    if Path.cwd().is_relative_to(folder.resolve()):
        raise BadModelFile(
            f"{folder} would be replaced, but it is where this program runs. Name another folder "
            "for the packed set, e.g. packed/mine."
        )
    if not folder.exists() or (folder / "meta.json").is_file():
        return
    if folder.is_file() or any(folder.iterdir()):
        raise BadModelFile(
            f"{folder} would be replaced, but is no packed set. Let the packed set go elsewhere."
        )


def _partial(folder: Path) -> Path:
    return folder.with_name(folder.name + ".partial")


def rule_dict(rule: Rule) -> dict[str, Any]:
    """Write a neighbour rule as plain values."""
    return {"kind": type(rule).__name__, **asdict(rule)}


def _graphs(
    crystals: Iterable[LabelledCrystal], rule: Rule, by_symmetry: bool, processes: int
) -> Iterator[tuple[LabelledCrystal, CrystalGraph | str]]:
    """Build the graph of every crystal, or say why there is none, in the order given."""
    work = partial(_graph, rule=rule, by_symmetry=by_symmetry)
    if processes == 1:
        yield from map(work, crystals)
        return
    from joblib import Parallel, delayed

    stream, size = iter(crystals), processes * AT_ONCE * TURNS
    with Parallel(processes, return_as="generator", batch_size=AT_ONCE) as parallel:
        found: Iterable[tuple[LabelledCrystal, CrystalGraph | str]] = ()
        while read := list(islice(stream, size)):  # here: databases are read by one thread alone
            yield from found
            found = parallel([delayed(work)(crystal) for crystal in read])
        yield from found


def _graph(
    crystal: LabelledCrystal, *, rule: Rule, by_symmetry: bool
) -> tuple[LabelledCrystal, CrystalGraph | str]:
    try:
        graph = build(check(crystal), rule)
        return crystal, reduce(graph) if by_symmetry else graph
    except BadStructure as error:
        return crystal, str(error)


def _rows(
    crystal: LabelledCrystal,
    graph: CrystalGraph,
    labels: Sequence[str],
    by_symmetry: bool,
    names: dict[str, dict[str, int]],
) -> dict[str, Any]:
    """Everything the files hold of one crystal."""
    code = {key: names[key].setdefault(getattr(crystal, key), len(names[key])) for key in names}
    missing = np.full((graph.atoms, 3), np.nan)
    rows: dict[str, Any] = {
        "cell": graph.cell[0],
        "periodic": graph.periodic[0],
        "atoms": graph.atoms,
        "edges": graph.edges,
        "split": -1 if crystal.split is None else SPLITS.index(crystal.split),
        **code,
        "stress": _stress(crystal, graph),
        "species": graph.species,
        "positions": graph.positions,
        "multiplicity": graph.multiplicity,
        "degree": torch.bincount(graph.receiver, minlength=graph.atoms),
        "forces": missing if by_symmetry else crystal.labels.get("forces", missing),
        "sender": graph.sender,
        "vector": graph.vector,
        "image": graph.image,
    }
    return rows | {f"label.{name}": crystal.labels.get(name, np.nan) for name in labels}


def _stress(crystal: LabelledCrystal, graph: CrystalGraph) -> Any:
    """Tell the stress; NaN where there is none, or no volume: programs write zeros then."""
    if float(graph.volume[0]) == 0:
        return np.full((3, 3), np.nan)
    return crystal.labels.get("stress", np.full((3, 3), np.nan))
