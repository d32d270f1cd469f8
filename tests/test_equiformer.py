"""Equiformer, computed in the frames of edges, is the Clebsch-Gordan sums it stands for."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.nn import functional

from ase_crystalformer.encoders.equiformer import PUBLISHED, Config, Equiformer
from ase_crystalformer.graph import collate
from ase_crystalformer.heads import forces_and_stress
from ase_crystalformer.neighbours import Radius, build
from ase_crystalformer.nn.radial import envelope
from ase_crystalformer.testing import LAWS, check, randomised

SMALL = Config(width=8, degrees=(4, 6, 2), heads=2, blocks=2, basis=8, radial=8, cutoff=3.0)
PAPER = replace(SMALL, mode="paper", handed=True, merged=False)
KINDS = {
    "smooth": SMALL,
    "smooth-L3": replace(SMALL, degrees=(4, 2, 4, 2)),
    "smooth-L1-handed": replace(SMALL, degrees=(4, 2), handed=True),
    "paper-gaussian": PAPER,
    "paper-exponential-L3": replace(PAPER, functions="exponential", degrees=(4, 2, 4, 2)),
}
EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture
def graph(wurtzite):
    return build(wurtzite, Radius(3.0))


@pytest.fixture(params=KINDS)
def encoder(request, dtype):
    return randomised(Equiformer(KINDS[request.param]).to(dtype))


class Slow:
    """The equations, one edge, path and degree after the other, with e3nn's coefficients.

    Features are a list with one tensor (atoms, channels, 2 l + 1) per degree.
    """

    def __init__(self, encoder, graph):
        self.encoder, self.config, self.graph = encoder, encoder.config, graph
        self.degree = len(self.config.degrees) - 1
        self.distance = graph.vector.norm(dim=1)
        fade = envelope(self.distance, self.config.cutoff)
        self.fade = fade if self.config.mode == "smooth" else torch.ones_like(fade)

    def features(self):
        encoder, graph = self.encoder, self.graph
        scalars = encoder.atoms.features.weight[graph.species - 1]
        x = self.neighbourhood()
        x[0] = x[0] + scalars[..., None]
        for block in encoder.blocks:
            x = self.block(block, x)
        last = encoder.last_norm
        return functional.layer_norm(x[0][..., 0], [len(last.weight)], last.weight, last.bias)

    def block(self, block, x):
        y = self.attention(block.attention, self.norm(block.first_norm, x))
        x = [a + b for a, b in zip(x, y, strict=False)]
        layer = block.feed_forward
        y = self.norm(block.second_norm, x)
        y = self.linear(layer.shrink, self.gate(self.linear(layer.expand, y)))
        x = self.linear(block.shortcut, x) if block is self.encoder.blocks[-1] else x
        return [a + b for a, b in zip(x, y, strict=True)]

    @staticmethod
    def linear(layer, x):
        y = [
            torch.einsum("acm,cd->adm", part, weight) / math.sqrt(weight.shape[0])
            for part, weight in zip(x, layer.weights, strict=True)
        ]
        if layer.bias is not None:
            y[0] = y[0] + layer.bias[:, None]
        return y

    def norm(self, layer, x):
        x = [x[0] - x[0].mean(1, keepdim=True), *x[1:]]
        variances = [part.square().mean((1, 2)) for part in x]
        if self.config.merged:
            variances = [sum(variances) / len(variances)] * len(variances)
        y = [
            weight[:, None] * part / (variance[:, None, None] + 1e-5).sqrt()
            for part, variance, weight in zip(x, variances, layer.weights, strict=True)
        ]
        return [y[0] + layer.bias[:, None], *y[1:]]

    @staticmethod
    def gate(x):
        sizes = [part.shape[1] for part in x[1:]]
        scalar, *gates = x[0].split([x[0].shape[1] - sum(sizes), *sizes], dim=1)
        gated = [1.8462285 * g.sigmoid() * part for g, part in zip(gates, x[1:], strict=True)]
        return [1.6765325 * scalar * scalar.sigmoid(), *gated]

    def harmonics(self, degree, edge):
        from e3nn.o3 import spherical_harmonics

        vector = self.graph.vector[edge]
        return spherical_harmonics(degree, vector, normalize=True, normalization="component")

    def radial(self, network, weights, edge):
        r = self.distance[edge] / self.config.cutoff
        size = self.config.basis
        match self.config.mode, self.config.functions:
            case "smooth", "gaussian":
                basis = torch.exp(-0.5 * (r * size - torch.arange(1, size + 1)) ** 2)
            case "paper", "gaussian":
                kernel = self.encoder.basis
                spread = kernel.spread.abs() + 1e-5
                offset = kernel.scale * r + kernel.shift - kernel.centre
                basis = torch.exp(-0.5 * (offset / spread) ** 2) / (spread * math.sqrt(2 * math.pi))
            case "paper", "exponential":
                lowest = math.exp(-self.config.cutoff)
                centre = torch.linspace(lowest, 1, size).to(r)
                beta = (2 / size * (1 - lowest)) ** -2
                basis = torch.exp(-beta * (torch.exp(-5 * r) - centre) ** 2)
                basis = basis * (1 + torch.cos(math.pi * r)) / 2
        return network(basis.to(r)[None])[0] @ weights

    def paths(self, inputs, outputs):
        """Every (l1, l2, l3) in the order of the channels that leave, with their number."""
        step = 1 if self.config.handed else 2
        for third in range(outputs):
            for first, channels in enumerate(inputs):
                for odd in (0, 1)[: 3 - step]:
                    for second in range(abs(first - third) + odd, first + third + 1, 2):
                        if second <= self.degree:
                            yield (first, second, third), channels

    def product(self, x, weights, edge, outputs):
        """Depthwise tensor product of the features of one edge, [(channels, 2 l + 1), ...]."""
        from e3nn.o3 import wigner_3j

        found, start = [[] for _ in range(outputs)], 0
        for (first, second, third), count in self.paths([part.shape[0] for part in x], outputs):
            weight = weights[start : start + count]
            start += count
            coefficients = math.sqrt(2 * third + 1) * wigner_3j(
                first, second, third, dtype=weight.dtype
            )
            y = self.harmonics(second, edge)
            found[third].append(torch.einsum("c,cm,n,mnk->ck", weight, x[first], y, coefficients))
        assert start == len(weights)
        return [torch.cat(parts) for parts in found]

    @staticmethod
    def mixed(layer, x):
        y = [
            torch.einsum("cm,cd->dm", part, weight) / math.sqrt(weight.shape[0])
            for part, weight in zip(x, layer.weights, strict=True)
        ]
        y[0] = y[0] + layer.bias[:, None]
        return y

    def neighbourhood(self):
        layer, graph, channels = self.encoder.neighbourhood, self.graph, self.config.degrees
        total = [
            torch.zeros(graph.atoms, channels[0], 2 * degree + 1, dtype=self.distance.dtype)
            for degree in range(len(channels))
        ]
        for edge, atom in enumerate(graph.receiver):
            weights = self.radial(self.encoder.radial, layer.radial.flatten(1), edge)
            seed = [layer.constant[:, None]]
            parts = self.product(seed, weights, edge, len(channels))
            for degree, part in enumerate(parts):
                scale = self.fade[edge] / math.sqrt(self.config.neighbours)
                total[degree][atom] = total[degree][atom] + scale * part
        return self.linear(layer.out, total)

    def attention(self, layer, x):
        graph, heads, channels = self.graph, self.config.heads, self.config.degrees
        senders, receivers = self.linear(layer.sender, x), self.linear(layer.receiver, x)
        scores, values = [], []
        for edge in range(graph.edges):
            i, j = graph.receiver[edge], graph.sender[edge]
            joined = [s[j] + r[i] for s, r in zip(senders, receivers, strict=True)]
            weights = self.radial(layer.radial, layer.message.radial, edge)
            message = self.mixed(layer.message, self.product(joined, weights, edge, len(channels)))
            score = message[0][: channels[0], 0]
            score = 1.5290871 * (0.6 * score + 0.4 * score * (2 * score.sigmoid() - 1))
            scores.append((score.reshape(heads, -1) * layer.direction).sum(1))
            gated = self.gate([part[None] for part in (message[0][channels[0] :], *message[1:])])
            weights = torch.cat(list(layer.value.path_weights))
            value = self.product([part[0] for part in gated], weights, edge, len(layer.out.weights))
            values.append(self.mixed(layer.value, value))
        weights = self.softmax(torch.stack(scores))
        total = []
        for degree, weight in enumerate(layer.out.weights):
            part = torch.stack([value[degree] for value in values]).unflatten(1, (heads, -1))
            part = (weights[..., None, None] * part).flatten(1, 2)
            sums = torch.zeros(graph.atoms, weight.shape[0], 2 * degree + 1, dtype=part.dtype)
            total.append(sums.index_add(0, graph.receiver, part))
        return self.linear(layer.out, total)

    def softmax(self, scores):
        """Envelopes in numerator and denominator, and once more after."""
        terms = self.fade[:, None] * scores.exp()
        sums = terms.new_zeros(self.graph.atoms, terms.shape[1])
        sums = sums.index_add(0, self.graph.receiver, terms)
        return terms / sums[self.graph.receiver] * self.fade[:, None]


def test_encoder_is_its_equations(encoder, graph):
    expected = Slow(encoder, graph).features()
    torch.testing.assert_close(encoder(graph).invariant, expected, **EXACT)


def components_turn(degree, turn):
    """How components change when space turns: as e3nn's harmonics of any points do."""
    from e3nn.o3 import spherical_harmonics

    points = torch.randn(20, 3, dtype=turn.dtype)
    here = spherical_harmonics(degree, points, normalize=True)
    there = spherical_harmonics(degree, points @ turn.T, normalize=True)
    return torch.linalg.lstsq(here, there).solution.T


def test_directions_turn_with_the_crystal(encoder, graph, dtype, seed):
    turn = torch.from_numpy(Rotation.random(rng=seed).as_matrix())
    turns = [components_turn(degree, turn) for degree in range(len(encoder.config.degrees))]
    x = [
        torch.randn(graph.atoms, 2 * degree + 1, channels, dtype=dtype)
        for degree, channels in enumerate(encoder.config.degrees)
    ]

    def turned(x):
        return tuple(turn @ part for turn, part in zip(turns, x, strict=True))

    def directed(x, vector):
        return encoder.blocks[0](tuple(x), encoder._surroundings(graph.with_vector(vector)))

    after = directed(turned(x), graph.vector @ turn.T)
    for part, expected in zip(after, turned(directed(x, graph.vector)), strict=True):
        torch.testing.assert_close(part, expected, **EXACT)


def idle(config):
    """Weights of the publication that no output depends on, or that shift what is free anyway."""
    channels, width = config.degrees, config.radial
    encoder = Equiformer(replace(config, blocks=2))
    message, value = encoder.blocks[0].attention.message, encoder.blocks[0].attention.value
    mixed = message.paths.outputs
    # Directions of the constant that edges are multiplied with: it has none.
    constant = (sum(mixed) - len(channels) * channels[0]) * (width + 1)
    constant += sum((n - channels[0]) * c for n, c in zip(mixed, channels, strict=True))
    # Directions behind the last block's first coupling: only scalars leave.
    last = sum(weight.numel() for weight in value.path_weights[1:])
    last += sum(weight.numel() for weight in value.weights[1:])
    last += sum(c * c + c for c in channels[1:])
    last += sum(c * 3 * c + (channels[0] + 1) * 3 * c for c in channels[1:])
    # A shift of all elements' features, and of the constant.
    return constant + last + 2 * channels[0]


@pytest.mark.parametrize(
    ("name", "published", "unseen"),
    [("qm9-l2", 3_531_715, 4), ("md17-l2", 3_496_001, 0), ("md17-l3", 5_500_865, 0)],
)
def test_published_number_of_parameters(name, published, unseen):
    config = PUBLISHED[name]
    ours = sum(weight.numel() for weight in Equiformer(config).parameters())
    head = 512 * 512 + 512 + 512 + 1
    # QM9 has no helium, lithium, beryllium and boron.
    ours -= unseen * config.degrees[0]
    assert ours + head + idle(config) == published


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_acts(wurtzite, kind):
    encoder = randomised(Equiformer(KINDS[kind]))
    graph = build(wurtzite, encoder.rule).to(dtype=torch.float32)
    encoder(graph).invariant.square().sum().backward()
    still = [name for name, w in encoder.named_parameters() if w.grad is None or not w.grad.any()]
    assert not still


@pytest.mark.parametrize("kind", ["smooth-L1-handed", "smooth-L3", "paper-gaussian"])
def test_mirror_images_differ_only_if_handed(kind):
    check(randomised(Equiformer(KINDS[kind])), "reflection")


def test_published_norms_blow_up_directions_that_symmetry_makes_vanish(dtype):
    """Why one norm of all degrees is the default: a crystal rattled by 1e-7 Å is another one."""
    changes = []
    for merged in (True, False):
        encoder = randomised(Equiformer(replace(PAPER, merged=merged, handed=False)).to(dtype))
        changes.append(LAWS["tremor"].difference(encoder.eval()))
    assert changes[0] < 1e-9
    assert changes[1] > 1e-3


def test_smooth_mode_refuses_the_published_norms():
    with pytest.raises(ValueError, match="paper mode"):
        replace(SMALL, merged=False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"degrees": (8,)}, "l = 0 up to"),
        ({"degrees": (8, 8, 8, 8, 8)}, "l = 0 up to"),
        ({"degrees": (8, 6), "heads": 4}, "heads must divide"),
        ({"blocks": 0}, "at least one"),
    ],
)
def test_wrong_sizes_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Config(**wrong)


def test_a_few_steps_of_training_help(wurtzite, left_handed):
    """Energies of atoms and forces, learned from scratch at one plain rate."""
    graph = collate([build(crystal, Radius(3.0)) for crystal in (wurtzite, left_handed)])
    graph = graph.to(dtype=torch.float32)
    graph = graph.with_vector(graph.vector.requires_grad_(True))

    def derived(energies):
        return energies, forces_and_stress(energies.sum(), graph, create_graph=True)[0]

    distance = graph.vector.norm(dim=1)
    pairs = torch.exp(2 - distance) * envelope(distance, 3.0)
    wanted = derived(torch.zeros(graph.atoms).index_add(0, graph.receiver, pairs))
    encoder, head = Equiformer(SMALL), torch.nn.Linear(SMALL.width, 1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-2)
    losses = []
    for _ in range(20):
        found = derived(head(encoder(graph).invariant)[:, 0])
        loss = sum((a - b.detach()).square().mean() for a, b in zip(found, wanted, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("kind", ["smooth", "paper-exponential-L3"])
def test_mixed_precision_is_close(wurtzite, kind):
    """Within what bfloat16, of eight bits, leaves of derivatives of so small a network."""
    encoder = Equiformer(replace(KINDS[kind], merged=True))
    graph = build(wurtzite, encoder.rule).to(dtype=torch.float32)
    graph = graph.with_vector(graph.vector.requires_grad_(True))
    found = []
    for mixed in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            invariant = encoder(graph).invariant.float()
        found.append((invariant, forces_and_stress(invariant[:, 0].sum(), graph)[0]))
    for full, mixed in zip(*found, strict=True):
        assert (full - mixed).abs().max() < 0.2 * full.abs().max()


@pytest.mark.parametrize("mode", ["smooth", "paper"])
def test_one_block_cannot_tell_left_from_right(mode):
    encoder = Equiformer(replace(SMALL, mode=mode, handed=True, blocks=1))
    check(randomised(encoder.double()), "reflection")
