"""Encoders in published sizes against what their original programs took, and a tensor product.

Originals were measured once, on another day, single-threaded like everything here. Their rows are
told, not timed: not side by side, a guide to a factor of about one and a half.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ase_crystalformer.encoders import ENCODERS, Encoder, ecomformer, equiformer, et, gatr
from ase_crystalformer.graph import CrystalGraph, collate
from ase_crystalformer.heads import EnergyHead, forces_and_stress
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.neighbours import Nearest, build
from ase_crystalformer.nn.bonds import bonds
from ase_crystalformer.nn.harmonics import harmonics
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training.objective import PropertyObjective
from benchmarks.crystals import random_crystals
from benchmarks.timing import Effort, Ratio, Row, Way, compare

SPACING = 2.366
"""Å; 64 atoms then have 1,206 neighbours within 5 Å, as in the measurement of the originals."""

EVERYONE = 50.0
"""Å; larger than the cluster."""

NEAREST = 27
"""Neighbours an atom has at least; 160 atoms then have 5,414 edges, and 5,440 where measured."""

TARGET = TARGETS["formation_energy_per_atom"]


@dataclass(frozen=True, kw_only=True)
class Original:
    """What an original program took.

    Attributes:
        encoder: Name of the encoder.
        size: Name of the published settings, and what they are here.
        told_ms: Processor time, ms.
    """

    encoder: str
    size: tuple[str, Any]
    told_ms: float


POTENTIALS = (
    Original(encoder="et", size=("MD17", et.PUBLISHED["md17"]), told_ms=60),
    Original(
        encoder="gatr",
        size=("n-body, all pairs", replace(gatr.PUBLISHED["n-body"], cutoff=EVERYONE)),
        told_ms=145,
    ),
    Original(
        encoder="equiformer",
        size=("MD17, L = 2", equiformer.PUBLISHED["md17-l2"]),
        told_ms=1393,
    ),
    Original(
        encoder="equiformer",
        size=("MD17, L = 3", equiformer.PUBLISHED["md17-l3"]),
        told_ms=4667,
    ),
)

#: Encoder, and its original's inference and training step on 16 crystals, ms.
PROPERTIES = {"icomformer": (930.0, 2280.0), "ecomformer": (690.0, 2230.0)}


def run(effort: Effort) -> list[Row]:
    """Time potentials on a cluster, property models on a batch, and a tensor product."""
    originals = POTENTIALS[:1] if effort.small else POTENTIALS
    rows = [row for original in originals for row in _potential(original, effort)]
    rows += [row for name in PROPERTIES for row in _property(name, effort)]
    return rows + _lift(effort)


def cluster(edge: int) -> Atoms:
    """Carbon atoms near the points of a cube of ``edge`` points a side, in empty space."""
    grid = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    shifts = np.random.default_rng(0).normal(scale=0.25, size=grid.shape)
    return Atoms(numbers=[6] * len(grid), positions=SPACING * grid + shifts)


def _potential(original: Original, effort: Effort) -> list[Row]:
    """Time energy and forces, from ASE's atoms on, and how long the model takes to build."""
    name, (size, config) = original.encoder, original.size
    atoms = cluster(2 if effort.small else 4)

    def make() -> tuple[Encoder, EnergyHead]:
        encoder = ENCODERS[name][0](config)
        return encoder, EnergyHead(encoder.width)

    encoder, head = make()
    edges = build(atoms, encoder.rule).edges
    parameters = sum(weight.numel() for weight in encoder.parameters())
    for module in (encoder, head):
        module.requires_grad_(requires_grad=False)
    case = f"{name}, {size}: energy and forces of {len(atoms)} atoms, {edges:,} edges"
    ways = [
        Way(name=f"{name}, {parameters:,} parameters", run=partial(_forces, encoder, head, atoms)),
        Way(name=f"{name}, building the model", run=make),
    ]
    rows = compare(case, ways, effort, tolerance=0.0)
    return rows if effort.small else [*rows, _told(rows[0], original.told_ms)]


def _forces(encoder: Encoder, head: EnergyHead, atoms: Atoms) -> Float[Tensor, "atoms 3"]:
    graph = build(atoms, encoder.rule).to(dtype=torch.float32)
    graph = graph.with_vector(graph.vector.requires_grad_())
    energy = head.interaction(encoder(graph), graph).sum()
    return forces_and_stress(energy, graph)[0]


def _told(ours: Row, told_ms: float) -> Row:
    """What the original took, next to what this package takes."""
    ratio = told_ms / ours.cpu_ms
    return replace(
        ours,
        way="original, on another day, not side by side",
        rounds=0,
        wall_ms=told_ms,
        cpu_ms=told_ms,
        wall_ratio=Ratio(*[ratio] * 3),
        cpu_ratio=Ratio(*[ratio] * 3),
        rate="",
        difference=None,
    )


def _property(name: str, effort: Effort) -> Iterator[Row]:
    """Time prediction and one training step of a property model, on graphs there already."""
    model = CrystalModel(name, {"mode": "paper", "nearest": NEAREST}, targets=[TARGET])
    graph = _batch(effort)
    tasks: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("prediction", partial(_predict, model, graph)),
        ("training step", _training_step(model, graph)),
    )
    for (task, work), told_ms in zip(tasks, PROPERTIES[name], strict=True):
        case = f"{name}, {task}: {graph.crystals} crystals, {graph.atoms} atoms"
        way = Way(name=f"{name}, {graph.edges:,} edges", run=work, items=(graph.edges, "edges"))
        (ours,) = compare(case, [way], effort, tolerance=0.0)
        yield ours
        if not effort.small:
            told = _told(ours, told_ms)
            yield replace(told, way=f"{told.way}, 5,440 edges")


def _batch(effort: Effort) -> CrystalGraph:
    count, atoms = (2, 2) if effort.small else (16, 10)
    crystals = random_crystals(count, atoms, atoms)
    return collate([build(crystal, Nearest(NEAREST)) for crystal in crystals]).to(
        dtype=torch.float32
    )


@torch.no_grad()
def _predict(model: CrystalModel, graph: CrystalGraph) -> dict[str, Tensor]:
    return model.eval()(graph)


def _training_step(model: CrystalModel, graph: CrystalGraph) -> Callable[[], None]:
    """Make a training step at rate zero, so that all steps are the same."""
    objective = PropertyObjective({})
    labels = {TARGET.name: torch.zeros(graph.crystals)}
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0)

    def step() -> None:
        optimiser.zero_grad()
        objective(model.train(), graph, labels).backward()
        optimiser.step()

    return step


def _lift(effort: Effort) -> list[Row]:
    """Time eComFormer's first tensor product against one matrix of weights per edge."""
    config = ecomformer.Config(mode="paper")
    graph = _batch(effort)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lift = ecomformer.Lift(config).requires_grad_(requires_grad=False)
        x = torch.randn(graph.atoms, config.scalars)
        bond = bonds(graph.receiver, graph.sender, graph.image)
        edge = torch.randn(int(bond.max()) + 1, config.width)
    unit = torch.nn.functional.normalize(graph.vector, dim=1)
    weight = torch.ones(graph.edges)
    near = ecomformer.Directions(edge, bond, harmonics(unit, 2), weight, graph)
    items = (graph.edges, "edges")
    ways = [
        Way(name="weights on atoms", run=partial(lift, x, near), read=_numbers, items=items),
        Way(
            name="weights on edges",
            run=partial(lift_by_edges, lift, x, near),
            read=_numbers,
            items=items,
        ),
    ]
    case = f"eComFormer's first tensor product, {graph.atoms} atoms, {graph.edges:,} edges"
    return compare(case, ways, effort, tolerance=1e-4)


def lift_by_edges(
    lift: ecomformer.Lift, x: Float[Tensor, "atoms scalars"], near: ecomformer.Directions
) -> ecomformer.Directed:
    """Write out a matrix for every edge, act with it on the sender, and couple; as published."""
    graph, weights = near.graph, lift.weights
    edge = near.edge.index_select(0, near.bond)
    matrix = weights.last(weights.hidden(edge)).unflatten(1, weights.shape)
    sent = torch.bmm(x.index_select(0, graph.sender)[:, None], matrix)[:, 0] * x.shape[1] ** -0.5
    scalar, vector, tensor = (sent * near.weight[:, None]).split(lift.sizes, dim=1)
    parts = (
        scalar,
        vector[:, :, None] * near.angular[:, None, :3],
        tensor[:, :, None] * near.angular[:, None, 3:],
    )
    return ecomformer.Directed(
        *(
            part.new_zeros(graph.atoms, *part.shape[1:]).index_add(0, graph.receiver, part)
            for part in parts
        )
    )


def _numbers(lifted: ecomformer.Directed) -> NDArray[np.float64]:
    parts = (lifted.scalar, lifted.vector, lifted.tensor)
    return np.concatenate([part.double().numpy().ravel() for part in parts])
