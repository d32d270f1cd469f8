"""Equiformer after its equations, without regard to speed: what the encoder is held against."""

import math

import torch
from torch.nn import functional

from ase_crystalformer.nn.radial import envelope


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
