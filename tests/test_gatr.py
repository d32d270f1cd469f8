"""GATr in a frame per atom is the published network in one frame, and its Euclidean sibling."""

from dataclasses import replace

import blades
import pytest
import torch
from ase.build import bulk, molecule

from ase_crystalformer.encoders.gatr import PUBLISHED, Config, GATr
from ase_crystalformer.neighbours import Radius, build
from ase_crystalformer.nn.attention import fading_softmax, fading_softmax_of_blocks
from ase_crystalformer.nn.blocks import EdgeBlocks
from ase_crystalformer.testing import check, randomised

SMALL = Config(width=6, multivectors=4, heads=2, blocks=2, basis=5, cutoff=4.0)
EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture
def crystal(wurtzite, seed):
    wurtzite.rattle(0.1, seed=seed)
    return build(wurtzite, Radius(3.0))


def encoder_of(config):
    return randomised(GATr(config).double())


def pairs(graph, atom):
    """Neighbours of an atom, and the way to them."""
    edges = (graph.receiver == atom).nonzero()[:, 0].tolist()
    return [(graph.sender[e].item(), graph.vector[e]) for e in edges]


def columns(x, row):
    """Multivectors of an atom, as blades."""
    return [blades.read(x[:, row, :, channel]) for channel in range(x.shape[3])]


def inner(x, y, grades):
    """Sum of products of components without e0."""
    return sum(p * y.get(a, 0.0) for a, p in x.items() if not a & 1 and blades.grade(a) in grades)


def softmax(scores, fades):
    weights = torch.tensor(fades, dtype=torch.float64) * torch.exp(
        torch.stack(scores) - max(scores)
    )
    return (weights / weights.sum()).tolist()


class Published:
    """Blocks in one frame for all atoms, pair by pair and head by head, as the paper has them."""

    def __init__(self, encoder, positions):
        self.encoder, self.positions = encoder, positions

    def features(self, species):
        encoder, many = self.encoder, self.encoder.config.multivectors
        x = torch.zeros(8, len(species), 2, many, dtype=torch.float64)
        for atom, place in enumerate(self.positions):
            # A point, times a weight per channel.
            x[7, atom, 0] = encoder.start
            x[4:7, atom, 1] = place[:, None] * encoder.start
        s = encoder.embedding(species)
        for block in encoder.blocks:
            y, t = self.attention(block.attention, *block.norm(x, s))
            x, s = x + y, s + t
            y, t = block.products(*block.norm(x, s))
            x, s = x + y, s + t
        x, s = encoder.norm(x, s)
        return encoder.last(torch.cat([x[0, :, 0], s], dim=1))

    def attention(self, layer, x, s):
        (many, scalars), heads = self.encoder.config.depth, layer.heads
        y, t = layer.project(x, s)
        atoms, values, others = x.shape[1], [], []
        for i in range(atoms):
            query, keys = columns(y, i), [columns(y, j) for j in range(atoms)]
            value, other = [], []
            for h in range(heads):
                scores = []
                for j in range(atoms):
                    scalar = t[i, h * scalars :][:scalars] @ t[j, -2 * scalars :][:scalars]
                    score = scalar
                    for c in range(many):
                        q, k = query[h * many + c], keys[j][heads * many + c]
                        far = layer.log_weight[h, c].exp() * apart(q, k)
                        score = score + inner(q, k, (0, 1, 2)) - far
                    scores.append(score / (12 * many + scalars) ** 0.5)
                weights = softmax(scores, [1.0] * atoms)
                for c in range(many):
                    terms = [
                        blades.scaled(keys[j][(heads + 1) * many + c], weights[j])
                        for j in range(atoms)
                    ]
                    value.append(blades.written(blades.add(*terms), 2))
                other.append(sum(weights[j] * t[j, -scalars:] for j in range(atoms)))
            values.append(torch.stack(value, dim=2))
            others.append(torch.cat(other))
        return layer.out(torch.stack(values, dim=1), torch.stack(others))


def apart(q, k, normaliser=1e-3):
    """Squared distance of two points, their weights divided out as in the paper."""
    (p, w), (r, v) = (([x[13], -x[11], x[7]], x[14]) for x in (q, k))
    a, b = w / (w**2 + normaliser), v / (v**2 + normaliser)
    return sum((b * v * a * x - a * w * b * y) ** 2 for x, y in zip(p, r, strict=True))


def test_frames_of_atoms_give_the_numbers_of_one_frame():
    config = replace(SMALL, mode="paper", algebra="projective", cutoff=20.0)
    encoder, chiral = encoder_of(config), molecule("CH3CHO")
    graph = build(chiral, encoder.rule)
    assert graph.edges == len(chiral) * (len(chiral) - 1)
    with torch.no_grad():
        expected = Published(encoder, graph.positions).features(graph.species)
        torch.testing.assert_close(encoder(graph).invariant, expected, **EXACT)


class EuclideanAttention:
    """Attention edge by edge, with edges as multivectors; see the docstring of the encoder."""

    def __init__(self, encoder, graph, x, s):
        self.config, self.layer = encoder.config, encoder.blocks[0].attention
        (self.many, self.scalars), self.heads = self.config.depth, self.config.heads
        self.encoder, self.graph = encoder, graph
        y, t = self.layer.project(x, s)
        sizes = [self.heads * self.scalars, self.heads * self.config.basis]
        self.query, self.around, self.key, self.value = t.split([*sizes, *[self.scalars] * 2], 1)
        self.columns = [columns(y, atom) for atom in range(graph.atoms)]

    def result(self):
        rows = [[self.head(i, h) for h in range(self.heads)] for i in range(self.graph.atoms)]
        values = [torch.cat([value for value, _, _ in row], dim=2) for row in rows]
        others = [torch.cat([other for _, other, _ in row]) for row in rows]
        vectors = [torch.cat([vector for _, _, vector in row], dim=1) for row in rows]
        y, s = self.layer.out(torch.stack(values, dim=1), torch.stack(others))
        y[1:4, :, 0] += torch.stack(vectors, dim=1) @ self.layer.vectors
        return y, s

    def head(self, i, h):
        """What one head of one atom sums up: multivectors, scalars, and vectors of scalars."""
        near = pairs(self.graph, i)
        scores = [self.score(i, h, i, None), *(self.score(i, h, j, r) for j, r in near)]
        fades = [1.0, *(fade(r.norm().item() / self.config.cutoff) for _, r in near)]
        edges = [{0: 1.0}, *(self.edge(h, r) for _, r in near)]
        edges = [blades.scaled(e, w) for e, w in zip(edges, softmax(scores, fades), strict=True)]
        senders = [i, *(j for j, _ in near)]
        found = list(zip(senders, edges, strict=True))
        value = []
        for c in range((self.heads + 1) * self.many, (self.heads + 2) * self.many):
            terms = [blades.times(self.columns[j][c], edge) for j, edge in found]
            value.append(blades.written(blades.add(*terms), 1))
        other = [
            sum(edge.get(blade, 0.0) * self.value[j] for j, edge in found) for blade in (0, 2, 4, 8)
        ]
        return torch.stack(value, dim=2), other[0], torch.stack(other[1:])

    def score(self, i, h, j, r):
        """Without ``r``, of an atom with itself."""
        many, scalars, basis = self.many, self.scalars, self.config.basis
        score = self.query[i, h * scalars :][:scalars] @ self.key[j]
        if r is not None:
            score = score + self.around[i, h * basis :][:basis] @ self.encoder.radial(r.norm())
        way = [0.0, 0.0, 0.0] if r is None else r.tolist()
        for c in range(many):
            q, k = self.columns[i][h * many + c], self.columns[j][self.heads * many + c]
            far = sum((q[2 << x] - k[2 << x] - way[x]) ** 2 - q[2 << x] ** 2 for x in range(3))
            score = score + inner(q, k, (0, 2, 3)) - self.layer.log_weight[h, c].exp() * far
        return score / (9 * many + scalars) ** 0.5

    def edge(self, h, r):
        f, g = self.layer.edge(self.encoder.radial(r.norm()))[[h, self.heads + h]].tolist()
        return {0: f, **{2 << x: g * (r[x] / r.norm()).item() for x in range(3)}}


def fade(x):
    """Envelope of Gasteiger et al. with p = 6, as published."""
    return 1 - 28 * x**6 + 48 * x**7 - 21 * x**8


def test_sums_over_heads_are_geometric_products_with_edges(crystal, dtype):
    encoder = encoder_of(replace(SMALL, cutoff=3.0))
    x = torch.randn(8, crystal.atoms, 1, SMALL.multivectors, dtype=dtype)
    s = torch.randn(crystal.atoms, SMALL.width, dtype=dtype)
    with torch.no_grad():
        found = encoder.blocks[0].attention(x, s, encoder._surroundings(crystal))
        expected = EuclideanAttention(encoder, crystal, x, s).result()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_the_softmax_of_blocks_is_that_of_edges(crystal, dtype):
    fade = torch.rand(crystal.edges, dtype=dtype)
    fade[::5] = 0
    score, own = 100 * torch.randn(crystal.edges, 2, dtype=dtype), torch.randn(4, 2, dtype=dtype)
    apart, lone = fading_softmax(score, fade[:, None].expand_as(score), crystal.receiver, own)
    blocks = EdgeBlocks.build(crystal.receiver, crystal.atoms, size=7)
    slots = blocks.spread(score, padding=7e3).mT, blocks.spread(fade, padding=0.0)
    found, alone = fading_softmax_of_blocks(*slots, blocks.receiver, own)
    expected = blocks.spread(apart * fade[:, None], padding=0.0).mT
    torch.testing.assert_close(found, expected, **EXACT)
    torch.testing.assert_close(alone, lone, **EXACT)


def test_published_number_of_parameters():
    encoder = GATr(PUBLISHED["n-body"])
    blocks = sum(weight.numel() for weight in encoder.blocks.parameters())
    # The whole published model has 2,211,218: 3,138 more, in linear maps to and from its data.
    assert blocks == 10 * 220_808 == 2_211_218 - 3_138


#: Atoms start without scalar components in the projective algebra, and end on scalars alone.
IDLE = {
    "blocks.0.attention.project.lower",
    "blocks.1.products.mix.ideal",
    "blocks.1.products.last.ideal",
}


@pytest.mark.parametrize(("algebra", "idle"), [("euclidean", set()), ("projective", IDLE)])
def test_every_weight_acts(crystal, algebra, idle):
    encoder = encoder_of(replace(SMALL, algebra=algebra))
    encoder(crystal).invariant.square().sum().backward()
    still = {name for name, w in encoder.named_parameters() if w.grad is None or not w.grad.any()}
    assert still == idle


@pytest.mark.parametrize(
    ("algebra", "mode", "blind"),
    [
        ("projective", "paper", True),
        ("projective", "smooth", False),
        ("euclidean", "paper", False),
        ("euclidean", "smooth", False),
    ],
)
def test_only_published_values_are_blind_to_a_bravais_lattice(algebra, mode, blind):
    encoder = encoder_of(replace(SMALL, algebra=algebra, mode=mode))
    with torch.no_grad():
        tight, wide = (encoder(build(bulk("Cu", a=a), encoder.rule)).invariant for a in (3.6, 3.7))
    change = (tight - wide).abs().max()
    assert change < 1e-9 if blind else change > 1e-4


def test_a_hand_shows_in_projective_points_alone(crystal):
    mirrored = crystal.with_vector(crystal.vector * torch.tensor([1.0, 1.0, -1.0]))
    for algebra, seen in (("euclidean", False), ("projective", True)):
        encoder = encoder_of(replace(SMALL, algebra=algebra))
        with torch.no_grad():
            change = (encoder(crystal).invariant - encoder(mirrored).invariant).abs().max()
        assert change > 1e-6 if seen else change < 1e-12


@pytest.mark.parametrize("law", ["orbits", "reflection"])
@pytest.mark.parametrize(
    ("algebra", "mode"), [("euclidean", "smooth"), ("euclidean", "paper"), ("projective", "smooth")]
)
def test_one_block_claims_what_it_keeps(algebra, mode, law):
    """Nothing that a sender tells in the first block has a direction yet.

    Published values are left out: laws need an answer from the lattice they are blind to.
    """
    check(encoder_of(replace(SMALL, algebra=algebra, mode=mode, blocks=1)), law)
