"""The plain transformer is its formulas, edge by edge; and it must learn what a rotation does."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation

from ase_crystalformer.encoders.plain import Config, Plain
from ase_crystalformer.neighbours import build
from ase_crystalformer.nn.radial import envelope
from ase_crystalformer.testing import crystals, randomised

SMALL = Config(cutoff=4.0, width=12, heads=3, blocks=2, feedforward=10, token=7, basis=5)
CRYSTALS = {
    "wurtzite": crystals.rattled(crystals.wurtzite()),
    "cell smaller than the cutoff": crystals.carbon(),
    "molecule": crystals.molecule(),
    "lone atom": crystals.alone(),
}


@pytest.fixture
def encoder(dtype):
    """A small encoder with weights that hide nothing."""
    return randomised(Plain(SMALL)).to(dtype)


@pytest.fixture(params=CRYSTALS)
def graph(request, encoder):
    return build(CRYSTALS[request.param], encoder.rule)


def linear(layer, x):
    y = layer.weight @ x
    return y if layer.bias is None else y + layer.bias


def normalised(norm, x):
    x = x - x.mean()
    return x / (x.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias


def silu(x):
    return x / (1 + torch.exp(-x))


def token(tokens, vector, element):
    """Components, distance and element of one edge, through two layers."""
    distance = vector.norm()
    spacing = SMALL.cutoff / SMALL.basis
    basis = [
        math.exp(-0.5 * ((float(distance) - n * spacing) / spacing) ** 2)
        for n in range(1, SMALL.basis + 1)
    ]
    raw = vector * math.sqrt(3) / (0.7 * SMALL.cutoff)
    told = torch.cat([raw, torch.tensor(basis, dtype=raw.dtype)])
    hidden = linear(tokens.first, told) + tokens.element.features.weight[element - 1]
    return math.sqrt(SMALL.neighbours) * silu(linear(tokens.second, silu(hidden)))


def attended(attention, x, i, edges):
    """What one atom takes from itself and the edges (sender, token, envelope) it receives."""
    heads, depth = SMALL.heads, SMALL.width // SMALL.heads

    def by_head(layer, features):
        return linear(layer, features).reshape(heads, depth)

    query, key, value = (attention.query, attention.key, attention.value)
    q = by_head(query, x[i])
    y = torch.zeros(heads, depth, dtype=x.dtype)
    for h in range(heads):
        terms = [(1.0, by_head(key, x[i])[h], by_head(value, x[i])[h])]
        for sender, t, fade in edges:
            k = by_head(key, x[sender]) + by_head(attention.token_key, t)
            v = by_head(value, x[sender]) + by_head(attention.token_value, t)
            terms.append((fade, k[h], v[h]))
        weights = [fade * torch.exp(q[h] @ k / math.sqrt(depth)) for fade, k, _ in terms]
        y[h] = sum(w * v for w, (_, _, v) in zip(weights, terms, strict=True)) / sum(weights)
    return linear(attention.out, y.flatten())


def by_hand(encoder, graph):
    """All blocks, one atom and one edge at a time."""
    species = graph.species.tolist()
    received = [[] for _ in species]
    for i, j, vector in zip(graph.receiver, graph.sender, graph.vector, strict=True):
        t = token(encoder.tokens, vector, species[j])
        received[i].append((int(j), t, envelope(vector.norm(), SMALL.cutoff)))
    x = [encoder.embedding.features.weight[number - 1] for number in species]
    for block in encoder.blocks:
        seen = torch.stack([normalised(block.first_norm, row) for row in x])
        x = [row + attended(block.attention, seen, i, received[i]) for i, row in enumerate(x)]
        x = [
            row
            + linear(block.shrink, silu(linear(block.expand, normalised(block.second_norm, row))))
            for row in x
        ]
    return torch.stack([normalised(encoder.last_norm, row) for row in x])


@torch.no_grad()
def test_attention_is_what_the_formulas_say(encoder, graph):
    for row, hand in zip(encoder(graph).invariant, by_hand(encoder, graph), strict=True):
        torch.testing.assert_close(row, hand, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_a_turned_crystal_is_another_crystal(encoder, seed):
    graph = build(CRYSTALS["wurtzite"], encoder.rule)
    turn = torch.from_numpy(Rotation.random(rng=seed).as_matrix())
    before, after = encoder(graph), encoder(graph.with_vector(graph.vector @ turn.T))
    assert (before.invariant - after.invariant).abs().max() > 1e-3


@torch.no_grad()
def test_directions_reach_atoms_through_tokens_alone(encoder, seed):
    graph = build(CRYSTALS["wurtzite"], encoder.rule)
    turn = torch.from_numpy(Rotation.random(rng=seed).as_matrix())
    encoder.tokens.first.weight[:, :3] = 0
    before, after = encoder(graph), encoder(graph.with_vector(graph.vector @ turn.T))
    torch.testing.assert_close(before.invariant, after.invariant, rtol=1e-10, atol=1e-10)


def test_every_weight_acts(wurtzite):
    encoder = randomised(Plain(SMALL))
    graph = build(wurtzite, encoder.rule).to(dtype=torch.float32)
    encoder(graph).invariant.square().sum().backward()
    still = [name for name, w in encoder.named_parameters() if not w.grad.abs().max() > 1e-6]
    assert not still


def test_features_start_of_order_one_however_deep(perovskite, seed):
    encoder = Plain(Config(blocks=8))
    graph = build(perovskite, encoder.rule).to(dtype=torch.float32)
    x = encoder.embedding(graph.species)
    near = encoder._surroundings(graph)
    assert 0.1 < near.token[near.blocks.edge.view(-1, 16) < graph.edges].square().mean() ** 0.5 < 3
    for block in encoder.blocks:
        x = block(x, near)
    assert 0.5 < x.square().mean() ** 0.5 < 10


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="5 do not divide 12"):
        replace(SMALL, heads=5)
