"""iComFormer is what its equations say when written out naively."""

import pytest
import torch
from ase.data import chemical_symbols
from torch import nn
from torch.nn.functional import softplus

from ase_crystalformer.encoders.icomformer import Config, IComFormer
from ase_crystalformer.graph import collate
from ase_crystalformer.heads import PropertyHead
from ase_crystalformer.neighbours import build
from ase_crystalformer.nn.elements import element_table
from ase_crystalformer.nn.expansion import Expansion
from ase_crystalformer.nn.gated import GatedEdges, GatedNodes
from ase_crystalformer.nn.reference import LocalReference
from ase_crystalformer.targets import Target
from ase_crystalformer.testing import randomised

WIDTH = 12
EXACT = {"rtol": 1e-10, "atol": 1e-10}

#: Weights of the released model that never act on its output; we do not carry them.
UNUSED = {"embedding of the three lattice vectors": 3 * 32, "edge lengths": (256 + 32) * 256 + 256}


@pytest.fixture
def edges():
    """Random edges between five atoms, the last of which has none."""
    receiver = torch.randint(4, (40,)).sort().values
    return receiver, torch.randint(4, (40,))


def side_by_side(network, *parts):
    """The network on its concatenated inputs, as the paper writes it."""
    hidden = torch.cat(torch.broadcast_tensors(*parts), dim=-1)
    return network.second(nn.functional.silu(network.first(hidden)))


def normalised(norm, rows):
    """A batch norm from its definition, or whatever else stands in its place."""
    if not isinstance(norm, nn.BatchNorm1d):
        return norm(rows)
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        mean, variance = rows.mean(0), rows.var(0, unbiased=False)
    return norm.weight * (rows - mean) / (variance + norm.eps).sqrt() + norm.bias


def naive_nodes(layer, x, edge, receiver, sender, weight):
    y = layer.first_norm(x)
    q, k, v, e = layer.query(y), layer.key(y), layer.value(y), layer.edge(edge)
    key = side_by_side(layer.key_network, k[receiver], k[sender], e)
    message = side_by_side(layer.message_network, v[receiver], v[sender], e)
    score = q[receiver] * key / x.shape[1] ** 0.5
    message = message * torch.sigmoid(normalised(layer.gate.norm, score)) * weight[:, None]
    total = torch.stack([message[receiver == i].sum(0) for i in range(len(x))])
    return softplus(x + normalised(layer.last_norm, layer.out(total)))


def naive_edges(layer, edge, reference, owner, angle):
    q, k, v = layer.query(edge), layer.key(edge), layer.value(edge)
    scores, messages = [], []
    for index in range(3):
        along = layer.angle(angle[:, index])
        other = reference[owner, index]
        key = side_by_side(layer.key_network, k, layer.reference_keys[index](other), along)
        value = layer.reference_values[index](other)
        messages.append(side_by_side(layer.message_network, v, value, along))
        scores.append(q * key / edge.shape[1] ** 0.5)
    gate = torch.sigmoid(normalised(layer.gate.norm, torch.cat(scores))).chunk(3)
    total = sum(layer.out(m * g) for m, g in zip(messages, gate, strict=True))
    return softplus(edge + normalised(layer.last_norm, total))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("count", [40, 5])
def test_nodes_follow_the_equation(edges, dtype, batch_norm, training, count):
    receiver, sender = (end[:count] for end in edges)
    layer = randomised(GatedNodes(WIDTH, batch_norm)).to(dtype).train(training)
    x, edge = torch.randn(5, WIDTH, dtype=dtype), torch.randn(count, WIDTH, dtype=dtype)
    weight = torch.rand(count, dtype=dtype)
    expected = naive_nodes(layer, x, edge, receiver, sender, weight)
    torch.testing.assert_close(layer(x, edge, receiver, sender, weight), expected, **EXACT)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_edges_follow_the_equation(dtype, batch_norm, training):
    layer = randomised(GatedEdges(WIDTH, 7, batch_norm)).to(dtype).train(training)
    edge, angle = torch.randn(25, WIDTH, dtype=dtype), torch.randn(40, 3, 7, dtype=dtype)
    reference, owner = torch.randn(4, 3, WIDTH, dtype=dtype), torch.randint(4, (40,))
    bond = torch.randint(25, (40,))
    expected = naive_edges(layer, edge[bond], reference, owner, angle)
    torch.testing.assert_close(layer(edge, reference, owner, angle, bond), expected, **EXACT)


def test_expansion_follows_the_equation(dtype):
    layer = Expansion(-4.0, 0.0, 256, WIDTH).to(dtype)
    x = -0.75 / torch.rand(9, dtype=dtype).add(0.5)
    centres = torch.linspace(-4, 0, 256, dtype=dtype)
    expected = softplus(layer.linear(torch.exp(-63.75 * (x[:, None] - centres) ** 2)))
    torch.testing.assert_close(layer(x), expected, **EXACT)


def test_references_are_sums_over_pairs_of_edges(edges, dtype):
    receiver, sender = edges
    layer = LocalReference(WIDTH, 4).to(dtype)
    x, edge = torch.randn(5, WIDTH, dtype=dtype), torch.randn(40, WIDTH, dtype=dtype)
    unit = nn.functional.normalize(torch.randn(40, 3, dtype=dtype), dim=1)
    weight = torch.rand(40, dtype=dtype)
    _, angle = layer(x, edge, unit, weight, edges)
    cosine = unit @ unit.T
    legendre = [cosine, (3 * cosine**2 - 1) / 2, (5 * cosine**3 - 3 * cosine) / 2]
    part = layer.radial(edge) * layer.colour(x)[sender] * weight[:, None]
    together = (receiver[:, None] == receiver).to(dtype)
    for degree, polynomial in enumerate(legendre, start=1):
        expected = (2 * degree + 1) ** 0.5 * (together * polynomial) @ part
        torch.testing.assert_close(angle[:, degree - 1], expected, **EXACT)


def test_table_is_that_of_jarvis():
    from jarvis.core.specie import get_node_attributes

    expected = [get_node_attributes(symbol, "cgcnn") for symbol in chemical_symbols[1:101]]
    assert element_table()[:100].tolist() == expected
    assert not element_table()[100:].any()


def test_published_number_of_parameters():
    encoder = IComFormer(Config(mode="paper"))
    head = PropertyHead(encoder.width, [Target(name="formation_energy", unit="eV/atom")])
    ours = sum(weight.numel() for module in (encoder, head) for weight in module.parameters())
    assert ours + sum(UNUSED.values()) == 4_966_497


@pytest.mark.parametrize("mode", ["paper", "smooth"])
def test_every_weight_acts(wurtzite, mode):
    encoder = randomised(IComFormer(Config(mode=mode, width=WIDTH, basis=8)))
    graph = build(wurtzite, encoder.rule).to(dtype=torch.float32)
    encoder(graph).invariant.square().sum().backward()
    still = [name for name, w in encoder.named_parameters() if w.grad is None or not w.grad.any()]
    assert not still


def test_paper_mode_sees_the_lattice_of_each_crystal(wurtzite, perovskite, dtype):
    encoder = randomised(IComFormer(Config(mode="paper", width=WIDTH, basis=8))).to(dtype).eval()
    graph = collate([build(each, encoder.rule) for each in (wurtzite, perovskite)])
    before = encoder(graph).invariant
    graph.cell[1, 0] *= 1.01
    moved = (encoder(graph).invariant - before).abs().amax(1) > 1e-8
    assert moved.tolist() == [False] * 4 + [True] * 5


def test_a_batch_of_one_atom_can_be_trained_on(fcc):
    encoder = IComFormer(Config(mode="paper", width=WIDTH, basis=8)).train()
    graph = build(fcc, encoder.rule).to(dtype=torch.float32)
    assert encoder(graph).invariant.isfinite().all()
