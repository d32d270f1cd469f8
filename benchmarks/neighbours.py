"""Neighbour lists: our ``build``, each backend, against ASE's ``neighbor_list``."""

from functools import partial

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import Radius, build
from ase_crystalformer.neighbours.search import Backend
from benchmarks.crystals import copper, salt
from benchmarks.timing import Effort, Row, Way, compare

CUTOFF = 6.0

SYSTEMS = {
    "Si2": bulk("Si", "diamond", a=5.43),
    "NaCl8": salt(1),
    "Cu108": copper(3),
    "Cu864": copper(6),
}

BACKENDS: tuple[Backend, ...] = ("pymatgen", "vesin", "ase")


def run(effort: Effort) -> list[Row]:
    """Find all pairs within 6 Å, with images and vectors, from ``ase.Atoms``."""
    systems = ["Si2"] if effort.small else list(SYSTEMS)
    return [row for name in systems for row in _one(name, SYSTEMS[name], effort)]


def _one(name: str, atoms: Atoms, effort: Effort) -> list[Row]:
    edges = build(atoms, Radius(CUTOFF)).edges
    items = (edges, "pairs")
    ways = [
        Way(
            name=f"build, {backend}",
            run=partial(build, atoms, Radius(CUTOFF), backend=backend),
            read=_graph_table,
            items=items,
        )
        for backend in BACKENDS
    ]
    theirs = partial(neighbor_list, "ijSD", atoms, CUTOFF)
    ways.append(Way(name="ASE neighbor_list", run=theirs, read=_ase_table, items=items))
    return compare(f"{name}, {CUTOFF:g} Å, {edges} pairs", ways, effort, tolerance=1e-12)


def _graph_table(graph: CrystalGraph) -> NDArray[np.float64]:
    columns = (graph.receiver[:, None], graph.sender[:, None], graph.image, graph.vector)
    return np.hstack([column.double().numpy() for column in columns])


def _ase_table(found: tuple[NDArray[np.float64], ...]) -> NDArray[np.float64]:
    receiver, sender, image, vector = found
    table = np.hstack([receiver[:, None], sender[:, None], image, vector])
    return table[np.lexsort(table[:, 4::-1].T)]
