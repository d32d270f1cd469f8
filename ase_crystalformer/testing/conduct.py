"""Laws of conduct: what any network must do to be used in batches, saved and trusted."""

from copy import deepcopy
from dataclasses import fields, replace

import numpy as np
import safetensors.torch
import torch

from ase_crystalformer.encoders.base import Encoder
from ase_crystalformer.graph import CrystalGraph, collate
from ase_crystalformer.heads import with_leaves
from ase_crystalformer.testing import crystals
from ase_crystalformer.testing.measure import (
    draw,
    largest,
    relative,
    response,
    slopes,
    summary,
)


def batch(encoder: Encoder) -> float:
    """Compute crystals together and one by one."""
    tested = list(crystals.general(encoder.rule).values())
    graphs = [draw(encoder, crystal) for crystal in tested]
    with torch.no_grad():
        together = encoder(collate(graphs)).invariant
        singly = torch.cat([encoder(graph).invariant for graph in graphs])
    return relative(together - singly, response(encoder, tested[0]))


def separation(encoder: Encoder) -> float:
    """Differentiate the features of one crystal with respect to the atoms of another."""
    tested = list(crystals.general(encoder.rule).values())
    first, others = draw(encoder, tested[0]), [draw(encoder, each) for each in tested[1:]]
    together = with_leaves(collate([first, *others]), encoder)
    features = encoder(together).invariant[: first.atoms]
    own = {"vector": first.edges, "positions": first.atoms, "cell": 1}
    leaves = {name: getattr(together, name) for name in own}
    leaves = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    found = torch.autograd.grad(features.square().sum(), list(leaves.values()))
    pairs = zip(leaves, found, strict=True)
    return largest(relative(slope[own[name] :], slope[: own[name]]) for name, slope in pairs)


def isolation(encoder: Encoder) -> float:
    """Describe a lone atom: elsewhere, in a large cell, and just beyond the reach of another."""
    lone, reach = crystals.alone(), encoder.rule.cutoff
    same = [
        replace(lone, positions=lone.positions + 17.3),
        replace(lone, cell=3 * reach * np.eye(3), periodic=np.full(3, True)),
        replace(crystals.pair(reach + 0.01), species=np.repeat(lone.species, 2)),
    ]
    alone = summary(encoder, lone)
    unit = summary(encoder, crystals.pair(0.5 * reach)) - alone
    return largest(relative(summary(encoder, each) - alone, unit) for each in same)


def precision(encoder: Encoder) -> float:
    """Answer float32 in float32, close to the answer in float64; infinite if the type changes."""
    single = deepcopy(encoder).float()
    found = []
    for crystal in crystals.general(encoder.rule).values():
        graph = draw(encoder, crystal)
        with torch.no_grad():
            fine = encoder(graph).invariant
            coarse = single(graph.to(dtype=torch.float32)).invariant
        if (fine.dtype, coarse.dtype) != (torch.float64, torch.float32):
            return float("inf")
        found.append(relative(coarse - fine, response(encoder, crystal)))
    return largest(found)


def storage(encoder: Encoder) -> float:
    """Save the weights, load them into a new encoder, and compare bits.

    The new one is made from ``encoder.config``, as every encoder of this package is.
    """
    new = type(encoder)(encoder.config).to(torch.float64).eval()
    new.load_state_dict(safetensors.torch.load(safetensors.torch.save(encoder.state_dict())))
    tested = crystals.general(encoder.rule).values()
    return largest(summary(encoder, each) - summary(new, each) for each in tested)


def innocence(encoder: Encoder) -> float:
    """Ask twice, with derivatives: graph, weights and answer stay the same bits."""
    graph = draw(encoder, crystals.general(encoder.rule)["wurtzite"])
    before = deepcopy((_tensors(graph), encoder.state_dict()))
    answers = [(encoder(graph).invariant, slopes(encoder, graph)) for _ in range(2)]
    after = (_tensors(graph), encoder.state_dict())
    pairs = [(old[name], new[name]) for old, new in zip(before, after, strict=True) for name in old]
    pairs += zip(*answers, strict=True)
    return largest(first.double() - second.double() for first, second in pairs)


def _tensors(graph: CrystalGraph) -> dict[str, torch.Tensor]:
    return {field.name: getattr(graph, field.name) for field in fields(graph)}
