"""E2Former is what its equations say, wherever its sums are taken."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from e3nn import o3

from ase_crystalformer import orbits
from ase_crystalformer.encoders.e2former import PUBLISHED, Config, E2Former
from ase_crystalformer.neighbours import build
from ase_crystalformer.nn.neighbour_sums import EdgeSums, NodeSums
from ase_crystalformer.nn.radial import envelope
from ase_crystalformer.testing import check, randomised

SMALL = Config(width=12, heads=3, blocks=2, basis=8, cutoff=4.0)
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def encoder_of(dtype=torch.float64, **changes):
    torch.manual_seed(0)
    return randomised(E2Former(replace(SMALL, **changes))).to(dtype)


# ------------------------------------------------------- the equations, written as loops


def part(x, degree):
    return x[degree**2 : (degree + 1) ** 2]


def leaky(x):
    """Equiformer's smooth leaky ReLU of slope 0.2."""
    return 0.6 * x + 0.4 * x * (2 * torch.sigmoid(x) - 1)


def features_of_edges(encoder, graph):
    """What both elements and the length say, edge by edge; and harmonics."""
    net, config = encoder.edges, encoder.config
    spacing = config.cutoff / config.basis
    features = []
    for edge, length in enumerate(graph.vector.norm(dim=1)):
        i, j = graph.receiver[edge], graph.sender[edge]
        gaussians = torch.stack(
            [torch.exp(-0.5 * (length / spacing - k) ** 2) for k in range(1, config.basis + 1)]
        )
        ends = net.receiver.features.weight[graph.species[i] - 1]
        ends = ends + net.sender.features.weight[graph.species[j] - 1]
        hidden = torch.nn.functional.silu(net.length(gaussians) + ends)
        features.append(torch.nn.functional.silu(net.last(hidden)))
    return torch.stack(features)


def start(encoder, graph, edge, fade):
    """Elements, and the sum of what edges say in every direction."""
    config = encoder.config
    weights = encoder.embedding.linear.weights
    x = torch.zeros(graph.atoms, (config.degrees[0] + 1) ** 2, config.width, dtype=edge.dtype)
    for degree, weight in enumerate(weights):
        y = o3.spherical_harmonics(degree, graph.vector, True, "component")
        for e, i in enumerate(graph.receiver):
            told = fade[e] / 40**0.5 * torch.outer(y[e], edge[e])
            part(x[i], degree).add_(told @ weight / config.width**0.5)
    x[:, 0] += encoder.embedding.element.features.weight[graph.species - 1]
    return x


def shares(attention, x, edge, fade, graph):
    """Softmax over neighbours and silence, times what the distance says per order."""
    heads, depth = attention.heads, x.shape[2] // attention.heads
    radial = attention.radial(edge).view(graph.edges, -1, heads)
    q, k = attention.query(x[:, 0]), attention.key(x[:, 0])
    result = torch.zeros(graph.edges, radial.shape[1] - 1, heads, dtype=x.dtype)
    for i, head in product(range(graph.atoms), range(heads)):
        mine = slice(head * depth, (head + 1) * depth)
        edges = (graph.receiver == i).nonzero()[:, 0].tolist()
        senders = graph.sender[edges]
        scores = leaky((k[senders, mine] @ q[i, mine]) / depth**0.5 * radial[edges, 0, head])
        terms = fade[edges] * torch.exp(scores)
        silence = 0.0 if attention.silence is None else torch.exp(attention.silence[head])
        for e, term in zip(edges, terms / (silence + terms.sum()), strict=True):
            result[e, :, head] = term * radial[e, 1:, head]
    return result


def messages(attention, value, weight, graph):
    """Solid harmonics over the power of the length, coupled with the sender, per edge and path."""
    couplings, width = attention.couplings, value.shape[2]
    made = [[] for _ in range(couplings.outputs + 1)]
    for order, output, degree in product(range(couplings.order + 1), range(5), range(4)):
        exists = degree <= couplings.degree and output <= couplings.outputs
        even = (degree + order + output) % 2 == 0
        if not (exists and abs(degree - order) <= output <= degree + order):
            continue
        if not (even or couplings.odd):
            continue
        symbols = (2 * output + 1) ** 0.5 * o3.wigner_3j(degree, order, output, dtype=value.dtype)
        solid = o3.spherical_harmonics(order, graph.vector, False, "component")
        total = torch.zeros(graph.atoms, 2 * output + 1, width, dtype=value.dtype)
        for e, (i, j) in enumerate(zip(graph.receiver, graph.sender, strict=True)):
            per_channel = weight[e, order] / graph.vector[e].norm() ** order
            per_channel = per_channel.repeat_interleave(width // len(weight[e, order]))
            h = part(value[j], degree)
            total[i] += per_channel * torch.einsum("mc,n,mno->oc", h, solid[e], symbols)
        made[output].append(total)
    return tuple(torch.cat(paths, dim=2) for paths in made)


def reference(encoder, graph):
    """The encoder with its own layers for what lives on atoms, and loops for all neighbours."""
    config = encoder.config
    length = graph.vector.norm(dim=1)
    smooth = config.mode == "smooth"
    fade = envelope(length, config.cutoff) if smooth else torch.ones_like(length)
    edge = features_of_edges(encoder, graph)
    x = start(encoder, graph, edge, fade)
    for block, degree in zip(encoder.blocks, config.degrees, strict=False):
        split = [2 * d + 1 for d in range(degree + 1)]
        y = block.first_norm(x.split(split, dim=1))
        weight = shares(block.attention, y[0], edge, fade, graph)
        value = torch.cat(block.attention.value(y), dim=1)
        change = torch.cat(block.attention.out(messages(block.attention, value, weight, graph)), 1)
        x = x[:, : change.shape[1]] + change
        split = split[: round(change.shape[1] ** 0.5)]
        x = x + torch.cat(block.feedforward(block.second_norm(x.split(split, dim=1))), dim=1)
    return encoder.last_norm((x,))[0][:, 0]


@pytest.mark.parametrize("convolution", ["edges", "nodes"])
@pytest.mark.parametrize("mode", ["smooth", "paper"])
@torch.no_grad()
def test_features_are_what_the_equations_say(wurtzite, mode, convolution):
    encoder = encoder_of(mode=mode, convolution=convolution, cutoff=3.5)
    graph = build(wurtzite, encoder.rule)
    assert graph.edges > 20
    torch.testing.assert_close(encoder(graph).invariant, reference(encoder, graph), **EXACT)


# --------------------------------------------------------------------------- both ways


@pytest.mark.parametrize("changes", [{"order": 1}, {"degree": 3, "blocks": 3, "mode": "paper"}])
def test_nodes_and_edges_give_the_same_features_and_forces(perovskite, changes):
    perovskite.rattle(0.1, seed=1)
    found = []
    for convolution in ("edges", "nodes"):
        encoder = encoder_of(convolution=convolution, **changes)
        graph = build(perovskite, encoder.rule)
        positions = graph.positions.requires_grad_()
        features = encoder(graph.moved(positions, graph.cell)).invariant
        found.append((features, *torch.autograd.grad(torch.sin(features).sum(), positions)))
    for edges, nodes in zip(*found, strict=True):
        torch.testing.assert_close(nodes, edges, **EXACT)


@pytest.mark.parametrize(
    "law", ["forces", "stress", "cutoff", "symmetric sites", "isolation", "batch", "separation"]
)
def test_laws_hold_on_nodes(law):
    check(encoder_of(convolution="nodes", width=6), law)


def test_a_graph_reduced_by_symmetry_has_no_places(rocksalt):
    encoder = encoder_of(convolution="nodes")
    graph = build(rocksalt.repeat((2, 1, 1)), encoder.rule)
    assert isinstance(encoder._sums(graph), NodeSums)
    assert isinstance(encoder._sums(orbits.reduce(graph)), EdgeSums)


def test_small_crystals_are_summed_on_edges_unless_told(crystals):
    for atoms in crystals:
        for convolution, kind in (("auto", EdgeSums), ("nodes", NodeSums)):
            encoder = encoder_of(convolution=convolution)
            assert isinstance(encoder._sums(build(atoms, encoder.rule)), kind)


# ------------------------------------------------------------------------------ the rest


@pytest.mark.parametrize("mode", ["smooth", "paper"])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_every_weight_acts(wurtzite, mode, order):
    encoder = encoder_of(torch.float32, mode=mode, order=order, blocks=3)
    graph = build(wurtzite, encoder.rule).to(dtype=torch.float32)
    encoder(graph).invariant.square().sum().backward()
    still = [name for name, w in encoder.named_parameters() if w.grad is None or not w.grad.any()]
    assert not still


def test_a_block_makes_only_what_later_ones_can_read():
    assert Config(blocks=4).degrees == (2, 2, 2, 2, 0)
    assert Config(blocks=4, order=1).degrees == (2, 2, 2, 1, 0)
    assert Config(blocks=2, order=0).degrees == (0, 0, 0)


@pytest.mark.parametrize("crystal", ["fcc", "diamond"])
def test_training_is_finite_where_symmetry_makes_vectors_vanish(request, crystal):
    encoder = encoder_of()
    graph = build(request.getfixturevalue(crystal), encoder.rule)
    vector = graph.vector.requires_grad_()
    energy = encoder(graph.with_vector(vector)).invariant.square().sum()
    (slope,) = torch.autograd.grad(energy, vector, create_graph=True)
    slope.square().sum().backward()
    grads = [weight.grad for weight in encoder.parameters() if weight.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("convolution", ["edges", "nodes"])
def test_mixed_precision_is_close(perovskite, convolution):
    encoder = encoder_of(torch.float32, convolution=convolution)
    graph = build(perovskite, encoder.rule).to(dtype=torch.float32)
    vector = graph.vector.requires_grad_()
    exact = encoder(graph).invariant
    with torch.autocast("cpu", torch.bfloat16):
        close = encoder(graph.with_vector(vector)).invariant
    assert 1e-6 < (close - exact).abs().max() < 0.1
    assert torch.autograd.grad(close.sin().sum(), vector)[0].isfinite().all()


def test_features_start_at_the_scale_of_one(perovskite):
    encoder = E2Former(Config())
    features = encoder(build(perovskite, encoder.rule).to(dtype=torch.float32)).invariant
    assert 0.5 < features.std() < 2


def test_the_published_network_is_built():
    encoder = E2Former(PUBLISHED["md22"])
    assert len(encoder.blocks) == 8
    assert encoder.width == 128


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"width": 10, "heads": 4}, "4 do not divide 10"),
        ({"degree": 4}, "degree is 4"),
        ({"order": 3}, "order is 3"),
    ],
)
def test_impossible_sizes_are_refused(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        Config(**wrong)
