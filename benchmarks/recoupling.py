"""Tensor products of neighbours: coupled on every edge, after sums over edges, or by 6j symbols.

All pairs of a cluster are the case 6j symbols are made for; crystals are what we have.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import Radius, build
from ase_crystalformer.nn.equivariant import Directed
from ase_crystalformer.nn.neighbour_sums import EdgeSums, NodeSums, nodes_pay
from ase_crystalformer.nn.recoupling import Couplings, part, solid_harmonics, tables
from ase_crystalformer.nn.unfolding import Places, unfold
from benchmarks.crystals import random_crystals, salt, silicon
from benchmarks.timing import Effort, Row, Way, compare

DEGREE, WIDTH, HEADS, BLOCKS = 2, 32, 4, 4

Convolution = Callable[[Tensor, Tensor], Directed]
Builder = Callable[[CrystalGraph, Couplings], Convolution]


def cluster(atoms: int) -> Atoms:
    """Take a random crystal out of its surroundings."""
    found = random_crystals(1, atoms, atoms)[0]
    found.pbc = False
    return found


#: What is summed: name, how to make it, cutoff in Å, largest degree of harmonics.
SYSTEMS: tuple[tuple[str, Callable[[], Atoms], float, int], ...] = (
    ("cluster of 64, all pairs", partial(cluster, 64), 100.0, 1),
    ("cluster of 64, all pairs", partial(cluster, 64), 100.0, 2),
    ("cluster of 64", partial(cluster, 64), 5.0, 2),
    ("cluster of 128, all pairs", partial(cluster, 128), 100.0, 2),
    ("NaCl8", partial(salt, 1), 5.0, 2),
    ("Si64", partial(silicon, 2), 5.0, 2),
    ("Si512", partial(silicon, 4), 5.0, 2),
)


def run(effort: Effort) -> list[Row]:
    """Convolve four times in the same places, and differentiate by the places of atoms."""
    systems = [SYSTEMS[4]] if effort.small else SYSTEMS
    return [
        row
        for name, make, cutoff, order in systems
        for row in _one(
            name, build(make(), Radius(cutoff)), Couplings(DEGREE, order, DEGREE), effort
        )
    ]


def _one(name: str, graph: CrystalGraph, couplings: Couplings, effort: Effort) -> list[Row]:
    graph = graph.to(dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = torch.randn(graph.atoms, (DEGREE + 1) ** 2, WIDTH)
        weight = torch.rand(graph.edges, couplings.order + 1, HEADS)
    ways: dict[str, Builder] = {"coupled on edges": on_edges, "summed first": summed, "6j": by_6j}
    places = _places(graph)
    images = len(places.sender)
    taken = "6j" if nodes_pay(graph.edges, places) else "summed first"
    case = (
        f"{name}, order {couplings.order}: {graph.edges:,} edges, {images:,} images, "
        f"{graph.edges / images:.0f} edges per image; automatic: {taken}"
    )
    rows = []
    for what, task in (("values", _values), ("values and slopes", _slopes)):
        contenders = [
            Way(
                name=way,
                run=partial(task, builder, graph, couplings, x, weight),
                read=_numbers,
                items=(BLOCKS * graph.edges, "edges"),
            )
            for way, builder in ways.items()
        ]
        # 6j symbols lose a digit or two to cancellation in single precision.
        rows += compare(f"{what}, {case}", contenders, effort, tolerance=1e-4)
    return rows


def on_edges(graph: CrystalGraph, couplings: Couplings) -> Convolution:
    """Couple on every edge and sum, as the convolution is written."""
    unit = torch.nn.functional.normalize(graph.vector, dim=1)
    harmonics = solid_harmonics(unit, couplings.order)
    known = tables(couplings, unit.dtype, unit.device).whole
    maps = [
        torch.einsum("omn,em->eon", table, harmonics[:, part(order)])
        for order, table in enumerate(known)
    ]

    def convolve(x: Tensor, weight: Tensor) -> Directed:
        sent = x.index_select(0, graph.sender)
        results = []
        for order, matrix in enumerate(maps):
            shares = weight[:, order].repeat_interleave(WIDTH // HEADS, dim=1)
            message = torch.bmm(matrix, sent) * shares[:, None]
            total = x.new_zeros(graph.atoms, *message.shape[1:])
            results.append(total.index_add(0, graph.receiver, message))
        return couplings.collect(results)

    return convolve


def summed(graph: CrystalGraph, couplings: Couplings) -> Convolution:
    """Sum plain products over edges, and couple on atoms."""
    ends = graph.receiver, graph.sender
    sums = EdgeSums.build(*ends, graph.vector, graph.atoms, couplings.order, HEADS)
    return lambda x, weight: sums(x, weight, couplings)


def by_6j(graph: CrystalGraph, couplings: Couplings) -> Convolution:
    """Couple on images and on atoms, with numbers on edges."""
    sums = NodeSums.build(graph.receiver, graph.vector, _places(graph), couplings.order)
    return lambda x, weight: sums(x, weight, couplings)


def _places(graph: CrystalGraph) -> Places:
    return unfold(graph.receiver, graph.sender, graph.image, graph.vector, graph.atoms)


@torch.no_grad()
def _values(
    builder: Builder, graph: CrystalGraph, couplings: Couplings, x: Tensor, weight: Tensor
) -> Float[Tensor, " numbers"]:
    convolve = builder(graph, couplings)
    return torch.cat([made.flatten() for _ in range(BLOCKS) for made in convolve(x, weight)])


def _slopes(
    builder: Builder, graph: CrystalGraph, couplings: Couplings, x: Tensor, weight: Tensor
) -> Float[Tensor, " numbers"]:
    """Differentiate by positions, features and weights, each in units of its largest entry."""
    positions, x, weight = (leaf.detach().requires_grad_() for leaf in (graph.positions, x, weight))
    convolve = builder(graph.moved(positions, graph.cell), couplings)
    value = sum(made.square().sum() for _ in range(BLOCKS) for made in convolve(x, weight))
    assert isinstance(value, Tensor)
    slopes = torch.autograd.grad(value, (positions, x, weight))
    return torch.cat([(slope / slope.abs().max()).flatten() for slope in slopes])


def _numbers(result: Tensor) -> NDArray[np.float64]:
    return result.double().numpy()
