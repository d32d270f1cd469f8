r"""E2Former: equivariant attention whose tensor products stay off the edges.

Y. Li et al., "E2Former: An Efficient and Equivariant Transformer with Linear-Scaling Tensor
Products", NeurIPS 2025, arXiv:2501.19216.

Atoms have features of degrees 0, 1, 2, all with the same number of channels. Attention weighs
neighbours by scalars and distance; a message couples features and harmonics of the edge,

.. math:: \sum_j a^l_{ij} \, h_j \otimes R_l(r_j - r_i), \quad R_l(r) = |r|^l Y_l(\hat r).

An edge adds a number and no more, so that solid harmonics can be split between both atoms and
recoupled by 6j symbols: no tensor product is left on edges. In a crystal, where few edges share an
image of an atom, it is faster to sum over edges before coupling. See ``nn.neighbour_sums``.

In both modes ours differs from the publication: an edge gives a number per head, not per channel,
so that sums are matrix products; all orders l act in one layer; blocks share hidden layers of the
networks of distances; a block makes only degrees that later blocks can turn to scalars; no dropout,
no limit to the number of neighbours.

``paper`` mode couples degrees of odd sum too, so that mirror images differ, and has no cutoff
function. ``smooth`` mode has even couplings, an envelope in every sum and softmax, and a silent
neighbour in every softmax, so that the last neighbour may leave.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ase_crystalformer.encoders.base import AtomFeatures, Broken, Claims, Encoder
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import Radius
from ase_crystalformer.nn.attention import fading_softmax
from ase_crystalformer.nn.blocks import EdgeBlocks
from ase_crystalformer.nn.elements import ElementEmbedding
from ase_crystalformer.nn.equivariant import (
    Directed,
    DirectedLinear,
    DirectedNorm,
    FeedForward,
    components,
)
from ase_crystalformer.nn.harmonics import harmonics
from ase_crystalformer.nn.neighbour_sums import EdgeSums, NodeSums, nodes_may_pay, nodes_pay
from ase_crystalformer.nn.radial import GaussianBasis, envelope, norm
from ase_crystalformer.nn.recoupling import HIGHEST_ORDER, Couplings
from ase_crystalformer.nn.starts import keep_scale
from ase_crystalformer.nn.unfolding import unfold

CITATION = """@inproceedings{li2025e2former,
  title = {E2Former: An Efficient and Equivariant Transformer with Linear-Scaling Tensor Products},
  author = {Li, Yunyang and Huang, Lin and Ding, Zhihao and Wang, Chu and Wei, Xinran and
            Yang, Han and Wang, Zun and Liu, Chang and Shi, Yu and Jin, Peiran and Qin, Tao and
            Gerstein, Mark and Zhang, Jia},
  booktitle = {Advances in Neural Information Processing Systems}, year = {2025}
}"""

MIRRORED = Broken(because="cross products tell left from right")
TURNED = Broken(because="vectors of a sender would have to be turned along with it")
ABRUPT = Broken(because="neighbours leave abruptly at the cutoff")

HIGHEST_DEGREE = 3
"""Of features; couplings with solid harmonics are tabulated to one more."""

NEIGHBOURS = 40.0
"""Typical number of neighbours, in place of the number."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Size and flavour of an E2Former; see ``PUBLISHED`` for the published size.

    Attributes:
        mode: ``smooth`` for potentials, ``paper`` for the published formulation.
        cutoff: Radius of the graph, Å.
        width: Channels per atom and degree, and of the networks of distances.
        heads: Attention heads; must divide ``width``.
        blocks: Attention blocks.
        basis: Gaussians a distance is expanded in.
        degree: Largest degree of features, one to three.
        order: Largest degree of harmonics in messages, zero to two.
        elements: Largest atomic number.
        convolution: Sum messages on ``edges`` or ``nodes``; ``auto`` takes the faster.
    """

    mode: Literal["smooth", "paper"] = "smooth"
    cutoff: float = 5.0
    width: int = 64
    heads: int = 8
    blocks: int = 4
    basis: int = 16
    degree: int = 2
    order: int = 2
    elements: int = 98
    convolution: Literal["auto", "nodes", "edges"] = "auto"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width; {self.heads} do not divide {self.width}.")
        if not 1 <= self.degree <= HIGHEST_DEGREE:
            raise ValueError(f"degree is {self.degree}; it must be from 1 to {HIGHEST_DEGREE}.")
        if not 0 <= self.order <= HIGHEST_ORDER:
            raise ValueError(f"order is {self.order}; it must be from 0 to {HIGHEST_ORDER}.")

    @property
    def degrees(self) -> tuple[int, ...]:
        """Largest degree before every block and after the last, which leaves scalars."""
        left = reversed(range(self.blocks + 1))
        return tuple(min(self.degree, self.order * blocks) for blocks in left)


#: The network for large molecules, as its authors configure it for MD22.
PUBLISHED = {
    "md22": Config(mode="paper", cutoff=15.0, width=128, heads=4, blocks=8, basis=128, order=1)
}


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What a block needs to know of the edges.

    Attributes:
        graph: Who sends to whom.
        fade: Envelope of every edge, for every head.
        sums: The convolution, which knows directions.
    """

    graph: CrystalGraph
    fade: Float[Tensor, "edges heads"]
    sums: EdgeSums | NodeSums


class EdgeFeatures(nn.Module):
    """Describe every edge by its length and both elements."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.basis = GaussianBasis(config.basis, config.cutoff)
        self.length = nn.Linear(config.basis, config.width)
        self.receiver = ElementEmbedding(config.elements, config.width)
        self.sender = ElementEmbedding(config.elements, config.width)
        self.last = nn.Linear(config.width, config.width)

    def forward(
        self, graph: CrystalGraph, distance: Float[Tensor, " edges"]
    ) -> Float[Tensor, "edges width"]:
        ends = self.receiver(graph.species).index_select(0, graph.receiver)
        ends = ends + self.sender(graph.species).index_select(0, graph.sender)
        hidden = nn.functional.silu(self.length(self.basis(distance)) + ends)
        return nn.functional.silu(self.last(hidden))


class Embedding(nn.Module):
    r"""Start from the element, and from what neighbours there are in which directions.

    .. math:: x^l_i = \delta_{l0} e_{Z_i} + \bar N^{-1/2} W^l \sum_j f_{ij} t_{ij} Y_l(\hat r)

    with t the features of edges.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.degree = config.degrees[0]
        self.element = ElementEmbedding(config.elements, config.width)
        channels = (config.width,) * (self.degree + 1)
        self.linear = DirectedLinear(channels, channels, bias=False)

    def forward(
        self,
        graph: CrystalGraph,
        edge: Float[Tensor, "edges width"],
        fade: Float[Tensor, " edges"],
        unit: Float[Tensor, "edges 3"],
    ) -> Directed:
        blocks = EdgeBlocks.build(graph.receiver, graph.atoms)
        angular = torch.ones_like(fade)[:, None]
        if self.degree:
            angular = torch.cat([angular, harmonics(unit, self.degree)], dim=1)
        weight = blocks.spread(angular * (fade * NEIGHBOURS**-0.5)[:, None], 0.0)
        total = blocks.sum_outer(weight, blocks.spread(edge, 0.0), graph.atoms)
        scalar, *rest = self.linear(components(total, self.degree))
        return (scalar + self.element(graph.species)[:, None], *rest)


class Attention(nn.Module):
    """Sum messages of neighbours, weighed by a softmax and, per order, by the distance."""

    def __init__(self, config: Config, degree: int, outputs: int) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        paper = config.mode == "paper"
        self.couplings = Couplings(degree, config.order, outputs, odd=paper)
        channels = (width,) * (degree + 1)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = DirectedLinear(channels, channels)
        self.radial = nn.Linear(width, (config.order + 2) * self.heads)
        self.silence = None if paper else nn.Parameter(torch.zeros(self.heads))
        self.out = DirectedLinear(self.couplings.channels(width), (width,) * (outputs + 1))

    def forward(
        self, x: Directed, edge: Float[Tensor, "edges width"], near: Surroundings
    ) -> Directed:
        value = torch.cat(self.value(x), dim=1)
        weight = self._weights(x[0][:, 0], self.radial(edge).unflatten(1, (-1, self.heads)), near)
        return self.out(near.sums(value, weight, self.couplings))

    def _weights(
        self,
        x: Float[Tensor, "atoms width"],
        radial: Float[Tensor, "edges radial heads"],
        near: Surroundings,
    ) -> Float[Tensor, "edges orders heads"]:
        """Weight of every edge, order and head."""
        graph = near.graph
        query = self.query(x).index_select(0, graph.receiver)
        key = self.key(x).index_select(0, graph.sender)
        depth = x.shape[1] // self.heads
        product = (query * key).unflatten(1, (self.heads, depth)).sum(-1)
        score = (product * depth**-0.5 * radial[:, 0]).to(near.fade)  # where precision is mixed
        score = score * (0.2 + 0.8 * torch.sigmoid(score))  # a smooth leaky ReLU
        own = score.new_full((graph.atoms, self.heads), -torch.inf)
        if self.silence is not None:
            own = self.silence.expand(graph.atoms, -1)
        weight, _ = fading_softmax(score, near.fade, graph.receiver, own)
        return (weight * near.fade)[:, None] * radial[:, 1:]


class Block(nn.Module):
    """Attention, then a gated feed-forward layer, each added to what came before."""

    def __init__(self, config: Config, degree: int, outputs: int) -> None:
        super().__init__()
        width = config.width
        before, after = (width,) * (degree + 1), (width,) * (outputs + 1)
        self.first_norm = DirectedNorm(before, merged=True)
        self.attention = Attention(config, degree, outputs)
        self.second_norm = DirectedNorm(after, merged=True)
        self.feedforward = FeedForward(after, (2 * width, *after[1:]), after)

    def forward(
        self, x: Directed, edge: Float[Tensor, "edges width"], near: Surroundings
    ) -> Directed:
        message = self.attention(self.first_norm(x), edge, near)
        x = tuple(a + b for a, b in zip(x, message, strict=False))  # the highest degrees may end
        change = self.feedforward(self.second_norm(x))
        return tuple(a + b for a, b in zip(x, change, strict=True))


class E2Former(Encoder):
    """Equivariant attention with 6j convolutions, periodic."""

    citation = CITATION

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.rule = Radius(config.cutoff)
        paper, directed = config.mode == "paper", config.order > 0
        self.claims = Claims(
            reflection=MIRRORED if paper and directed and config.blocks > 1 else True,
            orbits=TURNED if directed else True,
            smooth=ABRUPT if paper else True,
        )
        self.edges = EdgeFeatures(config)
        self.embedding = Embedding(config)
        self.blocks = nn.ModuleList(
            Block(config, before, after)
            for before, after in zip(config.degrees, config.degrees[1:], strict=False)
        )
        self.last_norm = DirectedNorm((config.width,))
        keep_scale(self)
        nn.init.normal_(self.edges.length.weight, std=0.2)  # start gentle in the distance

    def forward(self, graph: CrystalGraph) -> AtomFeatures:
        config = self.config
        distance = norm(graph.vector)
        edge = self.edges(graph, distance)
        smooth = config.mode == "smooth"
        fade = envelope(distance, config.cutoff) if smooth else torch.ones_like(distance)
        x = self.embedding(graph, edge, fade, graph.vector / distance[:, None])
        near = Surroundings(graph, fade[:, None].expand(-1, config.heads), self._sums(graph))
        for block in self.blocks:
            x = block(x, edge, near)
        return AtomFeatures(self.last_norm(x)[0][:, 0])

    def _sums(self, graph: CrystalGraph) -> EdgeSums | NodeSums:
        """Choose where to sum; a graph reduced by symmetry has no places."""
        order, kind = self.config.order, self.config.convolution
        ends = graph.receiver, graph.sender
        forced = kind == "nodes"
        wanted = forced or (kind == "auto" and nodes_may_pay(graph.edges, graph.crystal))
        if wanted and graph.multiplicity.eq(1).all():
            places = unfold(*ends, graph.image, graph.vector, graph.atoms)
            if forced or nodes_pay(graph.edges, places):
                return NodeSums.build(graph.receiver, graph.vector, places, order)
        return EdgeSums.build(*ends, graph.vector, graph.atoms, order, self.config.heads)
