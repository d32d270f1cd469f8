"""Laws of smoothness: features and their slopes change steadily as atoms move."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ase_crystalformer.encoders.base import Encoder
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import Radius, Rule, build
from ase_crystalformer.structures import Crystal
from ase_crystalformer.testing import crystals
from ase_crystalformer.testing.measure import (
    draw,
    geometry,
    largest,
    moments,
    relative,
    response,
    slopes,
    summary,
)

TREMBLE = 1e-7
"""Å. Less than any relaxation leaves behind."""

Path = Callable[[float], Crystal]
"""A crystal that moves as the argument goes from 0 to 1."""


class Event(NamedTuple):
    """A crystal, and the same just before and just after an edge appears or ends as it moves."""

    start: Crystal
    before: Crystal
    after: Crystal


def cutoff(encoder: Encoder) -> float:
    """Move atoms until an edge appears or ends, and compare features and slopes on both sides."""
    return largest(_step(encoder, event) for event in _events(encoder.rule))


def tremor(encoder: Encoder) -> float:
    """Rattle symmetric crystals by 1e-7 Å, and take the limit of ever smaller rattles."""
    return largest(_tremor(encoder, crystal) for crystal in crystals.symmetric().values())


def symmetric_sites(encoder: Encoder) -> float:
    """Differentiate at sites of high symmetry, once and twice; infinite unless all is finite."""
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    finite = True
    for crystal in crystals.symmetric().values():
        slope = slopes(encoder, draw(encoder, crystal), create_graph=True)
        twice = torch.autograd.grad(slope.square().sum(), weights, allow_unused=True)
        found = [slope, *(gradient for gradient in twice if gradient is not None)]
        finite &= all(bool(gradient.isfinite().all()) for gradient in found)
    return 0.0 if finite else float("inf")


@cache
def _events(rule: Rule) -> tuple[Event, ...]:
    """Find where edges of a few moving crystals come or go; the search is long, hence the cache."""
    tested = crystals.general(rule)
    names = ("wurtzite", "left-handed cell", "chiral crystal")
    paths: list[Path] = [partial(_sheared, tested[name]) for name in names]
    if isinstance(rule, Radius):
        paths.append(lambda at: crystals.pair((0.7 + 0.6 * at) * rule.cutoff))
    return tuple(_event(rule, path) for path in paths)


def _sheared(crystal: Crystal, by: float) -> Crystal:
    """Shear a crystal by up to a fifth while its first atom moves."""
    shear = np.eye(3) + by * np.array([[0.1, 0.2, 0.0], [0.0, -0.1, 0.1], [0.0, 0.0, 0.1]])
    moved = crystals.transformed(crystal, shear)
    moved.positions[0] += by * np.array([0.3, -0.2, 0.25])
    return moved


def _event(rule: Rule, path: Path) -> Event:
    """Enclose a point where the number of edges changes as tightly as numbers allow.

    Raises:
        ValueError: It never changes on the path.
    """

    def edges(at: float) -> int:
        return build(path(at), rule).edges

    low, first = 0.0, edges(0.0)
    high = next((at for at in np.linspace(0.1, 1.0, 10).tolist() if edges(at) != first), None)
    if high is None:
        raise ValueError(f"{rule} draws as many edges all the way; no step can be seen.")
    while high - low > 1e-13:
        middle = (low + high) / 2
        low, high = (middle, high) if edges(middle) == first else (low, middle)
    return Event(path(0.0), path(low), path(high))


def _step(encoder: Encoder, event: Event) -> float:
    """Step of features and slopes where the graph changes, relative to their response."""
    start, here, there = (draw(encoder, crystal) for crystal in event)
    deformed = draw(encoder, crystals.strained(event.start))
    steps = []
    for answer in (_values, _virial):
        step = answer(encoder, here) - answer(encoder, there)
        steps.append(relative(step, answer(encoder, start) - answer(encoder, deformed)))
    return largest(steps)


@torch.no_grad()
def _values(encoder: Encoder, graph: CrystalGraph) -> Float[Tensor, "1 moments"]:
    return moments(encoder(graph), graph)


def _virial(encoder: Encoder, graph: CrystalGraph) -> Float[Tensor, "3 3"]:
    """Derivative of a mixture of features per atom with respect to strain."""
    return geometry(encoder, graph).T @ slopes(encoder, graph)


def _tremor(encoder: Encoder, crystal: Crystal) -> float:
    start = summary(encoder, crystal)
    whole = summary(encoder, crystals.rattled(crystal, by=TREMBLE)) - start
    half = summary(encoder, crystals.rattled(crystal, by=TREMBLE / 2)) - start
    return relative(2 * half - whole, response(encoder, crystal))
