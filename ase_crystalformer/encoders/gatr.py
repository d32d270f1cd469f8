r"""GATr: attention among multivectors of a geometric algebra, and scalars beside them.

J. Brehmer, P. de Haan, S. Behrends, T. Cohen, "Geometric Algebra Transformer", NeurIPS 2023,
arXiv:2305.18415; algebras compared in P. de Haan, T. Cohen, J. Brehmer, AISTATS 2024,
arXiv:2311.04744.

The publication puts atoms into one frame, as points of the ``projective`` algebra. A crystal has no
such frame. Here every atom has its own, with the atom at the origin, and what a neighbour sends is
translated along the edge; for a molecule these are the same numbers. A translation is linear in the
edge, so that four sums of values per head, weighted by 1, x, y and z, are all that is needed of
the edges; the algebra follows on atoms.

The ``euclidean`` algebra has half the components and no translations. There the edge is itself a
multivector, which multiplies the value from the right, again as four sums per head,

.. math::
    y_i = \sum_j p_{ij} v_j \epsilon_{ij}, \quad \epsilon = f(r) + g(r) \hat r, \quad
    p_{ij} = \mathrm{softmax}_j \bigl( \langle q_i, k_j \rangle + s_i \cdot [t_j | b(r_{ij})]
    - \lambda |\langle q_i - k_j \rangle_1 - r_{ij}|^2 \bigr),

with s and t scalar queries and keys; f, g and the basis b are ours. Every grade has the parity of
its products of vectors, so that mirror images are alike; ``joins`` are not, and must be asked for.

``paper`` mode has the norms as published and attention that ends abruptly. Its projective values
know distances by translation only, which cancels in a Bravais lattice: atoms of copper see nothing
of theirs. ``smooth`` mode gives them f and b, the softmax an envelope, and the norms no kink.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ase_crystalformer.encoders.base import AtomFeatures, Broken, Claims, Encoder
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import Radius
from ase_crystalformer.nn.attention import fading_softmax_of_blocks
from ase_crystalformer.nn.blocks import EdgeBlocks
from ase_crystalformer.nn.elements import ElementEmbedding
from ase_crystalformer.nn.multivectors import (
    Multivector,
    MultivectorLinear,
    MultivectorNorm,
    MultivectorProducts,
    distance_key,
    distance_query,
    edge_actions,
    points,
    shifted,
)
from ase_crystalformer.nn.radial import ExponentialBasis, envelope, norm

CITATION = """@inproceedings{brehmer2023geometric,
  title = {Geometric Algebra Transformer},
  author = {Brehmer, Johann and de Haan, Pim and Behrends, S{\\"o}nke and Cohen, Taco},
  booktitle = {Advances in Neural Information Processing Systems}, year = {2023}
}"""

TURNED = Broken(because="multivectors of a sender would have to be turned along with it")
ORIENTED = Broken(because="joins, and atoms that are points, have an orientation")
ABRUPT = Broken(because="attention ends abruptly at the cutoff, and clamped norms have kinks")

NORMALISER = {"smooth": 0.1, "paper": 1e-3}
"""Added to the square of a point's weight, which its coordinates are divided by."""

BLOCK = 32
"""Edges per matrix product; about as many as an atom has."""

Scalars = Float[Tensor, "atoms scalars"]
Features = tuple[Multivector, Scalars]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Size and flavour of a GATr.

    Attributes:
        mode: ``smooth`` for potentials, ``paper`` as published.
        algebra: ``euclidean`` multivectors have 8 components, the published ``projective`` 16.
        cutoff: Radius of the graph, Å.
        width: Scalars per atom.
        multivectors: Multivectors per atom.
        heads: Attention heads; they share keys and values.
        blocks: Blocks of attention and geometric products.
        basis: Functions a distance is expanded in; not in the published model.
        joins: Half of the products are joins, as they always are in the projective algebra.
        elements: Largest atomic number.
    """

    mode: Literal["smooth", "paper"] = "smooth"
    algebra: Literal["euclidean", "projective"] = "euclidean"
    cutoff: float = 5.0
    width: int = 128
    multivectors: int = 16
    heads: int = 8
    blocks: int = 4
    basis: int = 16
    joins: bool = False
    elements: int = 98

    @property
    def parts(self) -> int:
        """Euclidean multivectors in one multivector."""
        return 2 if self.algebra == "projective" else 1

    @property
    def channels(self) -> tuple[int, int]:
        """Multivectors and scalars of an atom."""
        return self.multivectors, self.width

    @property
    def depth(self) -> tuple[int, int]:
        """Multivectors and scalars of one head: all heads together have twice the channels."""
        return -(-2 * self.multivectors // self.heads), max(-(-2 * self.width // self.heads), 4)


PUBLISHED = {"n-body": Config(mode="paper", algebra="projective", blocks=10)}


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What every block needs to know of the edges, slot by slot; computed once per forward pass."""

    blocks: EdgeBlocks
    sender: Int[Tensor, " slots"]
    vector: Float[Tensor, "blocks 3 size"]
    direction: Float[Tensor, "blocks 3 size"]
    basis: Float[Tensor, "blocks basis size"]
    fade: Float[Tensor, "blocks size"]

    def spread(self, atoms: Float[Tensor, "atoms _"]) -> Float[Tensor, "blocks size _"]:
        """Look up a row for the sender in every slot."""
        return atoms.index_select(0, self.sender).unflatten(0, self.fade.shape)


class Attention(nn.Module):
    """Distance-aware attention; heads share the keys and values, which is the published choice."""

    action: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.euclidean = config.algebra == "euclidean"
        self.heads, (self.many, self.scalars) = config.heads, config.depth
        self.basis = config.basis if self.euclidean or config.mode == "smooth" else 0
        self.normaliser = NORMALISER[config.mode]
        both, inner = config.channels, (self.heads * self.many, self.heads * self.scalars)
        scalars = inner[1] + self.heads * self.basis + 2 * self.scalars
        self.project = MultivectorLinear(config.parts, both, (inner[0] + 2 * self.many, scalars))
        self.out = MultivectorLinear(config.parts, inner, both)
        reach = torch.zeros(1) if config.mode == "paper" else torch.linspace(-4, 0, self.heads)
        self.log_weight = nn.Parameter(reach[:, None].repeat(self.heads // len(reach), self.many))
        if self.basis:
            self.edge = nn.Linear(self.basis, (2 if self.euclidean else 1) * self.heads)
            nn.init.uniform_(self.edge.weight, -1, 1)
        if self.euclidean:
            self.vectors = nn.Parameter(torch.randn(inner[1], both[0]) * inner[1] ** -0.5)
        self.register_buffer("action", edge_actions(config.parts), persistent=False)

    def forward(self, x: Multivector, s: Scalars, near: Surroundings) -> Features:
        (y, t), many, scalars = self.project(x, s), self.many, self.scalars
        query, key, value = y.split([self.heads * many, many, many], dim=3)
        sizes = [self.heads * scalars, self.heads * self.basis, scalars, scalars]
        *query_s, key_s, value_s = t.split(sizes, dim=1)
        scores = self._scores(self._questions(query, *query_s), (key, key_s), near)
        # Where precision is mixed, products are short and sums must not be.
        score, own = (part.to(near.fade) for part in scores)
        weight, own = fading_softmax_of_blocks(score, near.fade, near.blocks.receiver, own)
        return self._answer(weight, own, (value, value_s), near)

    def _inner(self, x: Multivector) -> Float[Tensor, "atoms components channels"]:
        """Take what no translation moves, but for points: scores have its inner products."""
        kept = torch.cat([x[:1], x[4:]]) if self.euclidean else x[:7]
        return kept[:, :, 0].transpose(0, 1)

    def _questions(
        self, query: Multivector, scalar: Scalars, around: Float[Tensor, "atoms bases"]
    ) -> Float[Tensor, "atoms heads features"]:
        """Write queries such that scores, distances of points included, are dot products."""
        channels = (self.heads, self.many)
        inner = self._inner(query).unflatten(2, channels).transpose(1, 2).flatten(2)
        point = points(query, self.normaliser).unflatten(2, channels)
        distance = distance_query(point, self.log_weight.exp())
        scalar, around = (part.unflatten(1, (self.heads, -1)) for part in (scalar, around))
        size = inner.shape[2] + scalar.shape[2] + distance.shape[2]
        return torch.cat([inner, scalar, distance, around], dim=2) * size**-0.5

    def _scores(
        self, questions: Float[Tensor, "atoms heads features"], key: Features, near: Surroundings
    ) -> tuple[Float[Tensor, "blocks heads size"], Float[Tensor, "atoms heads"]]:
        """Compare queries with keys of neighbours, moved to the receiver's frame, and of itself."""
        plain = torch.cat([self._inner(key[0]).flatten(1), key[1]], dim=1)
        point = points(key[0], self.normaliser)
        own = torch.cat([plain, distance_key(point)], dim=1)[:, :, None]
        own = torch.bmm(questions[:, :, : own.shape[1]], own)[:, :, 0]
        far = near.spread(point.flatten(1)).mT.contiguous().unflatten(1, point.shape[1:])
        keys = [distance_key(shifted(far, near.vector)), *([near.basis] if self.basis else [])]
        questions = questions.index_select(0, near.blocks.receiver)
        asked, around = questions.tensor_split([plain.shape[1]], dim=2)
        score = torch.bmm(asked, near.spread(plain).mT)
        return torch.baddbmm(score, around, torch.cat(keys, dim=1)), own

    def _answer(
        self,
        weight: Float[Tensor, "blocks heads size"],
        own: Float[Tensor, "atoms heads"],
        value: Features,
        near: Surroundings,
    ) -> tuple[Tensor, Tensor]:  # Features, of all channels
        """Sum values four times, for the weight of an edge and its x, y and z; then act on them."""
        x, s = value
        _, atoms, parts, _ = x.shape
        flat = torch.cat([x.transpose(0, 1).flatten(1), s], dim=1)
        total = near.blocks.sum_outer(self._rows(weight, near).mT, near.spread(flat), atoms)
        moved, scalar = total.unflatten(1, (4, -1)).split([x[:, 0].numel(), s.shape[1]], dim=3)
        moved = moved.unflatten(3, (8, parts, -1)).permute(1, 3, 4, 0, 2, 5)
        y = self.action.flatten(0, 1).flatten(1) @ moved.flatten(3).flatten(0, 2)
        y = y.view(8, parts, atoms, self.heads, -1).transpose(1, 2)
        y = (y + own[:, None, :, None] * x[:, :, :, None]).flatten(3)
        y, s = self.out(y, (scalar[:, 0] + own[:, :, None] * s[:, None]).flatten(1))
        if self.euclidean:
            y[1:4, :, 0] += scalar[:, 1:].transpose(0, 1).flatten(2) @ self.vectors
        return y, s

    def _rows(
        self, weight: Float[Tensor, "blocks heads size"], near: Surroundings
    ) -> Float[Tensor, "blocks rows size"]:
        """Weigh every edge, and its x, y and z."""
        even = odd = weight
        if self.basis:
            radial = self.edge.weight @ near.basis + self.edge.bias[:, None]
            even, odd = weight * radial[:, : self.heads], weight * radial[:, -self.heads :]
        along = near.direction if self.euclidean else near.vector
        return torch.cat([even, (odd[:, None] * along[:, :, None]).flatten(1, 2)], dim=1)


class Block(nn.Module):
    """Attention, then products, each of normalised features and added to what came before."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm = MultivectorNorm(config.parts, joint=config.mode == "paper")
        self.attention = Attention(config)
        self.products = MultivectorProducts(config.parts, config.channels, config.joins)

    def forward(self, x: Multivector, s: Scalars, near: Surroundings) -> Features:
        y, t = self.attention(*self.norm(x, s), near)
        x, s = x + y, s + t
        y, t = self.products(*self.norm(x, s))
        return x + y, s + t


class GATr(Encoder):
    """The geometric algebra transformer, for crystals as for molecules."""

    citation = CITATION

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.smooth = config.mode == "smooth"
        self.rule = Radius(config.cutoff)
        handed = config.joins or config.parts == 2
        self.claims = Claims(
            reflection=ORIENTED if handed and config.blocks > 1 else True,
            orbits=TURNED if config.blocks > 1 else True,
            smooth=True if self.smooth else ABRUPT,
        )
        self.embedding = ElementEmbedding(config.elements, config.width)
        self.start = nn.Parameter(torch.randn(config.multivectors))
        self.radial = ExponentialBasis(config.basis, config.cutoff)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = MultivectorNorm(config.parts, joint=not self.smooth)
        self.last = nn.Linear(config.multivectors + config.width, config.width)

    def forward(self, graph: CrystalGraph) -> AtomFeatures:
        near = self._surroundings(graph)
        s = self.embedding(graph.species)
        x = s.new_zeros(8, graph.atoms, self.config.parts, self.config.multivectors)
        x[0 if self.config.parts == 1 else 7, :, 0] = self.start
        for block in self.blocks:
            x, s = block(x, s, near)
        x, s = self.norm(x, s)
        return AtomFeatures(self.last(torch.cat([x[0, :, 0], s], dim=1)))

    def _surroundings(self, graph: CrystalGraph) -> Surroundings:
        blocks = EdgeBlocks.build(graph.receiver, graph.atoms, BLOCK)
        distance = norm(graph.vector)
        fade = envelope(distance, self.config.cutoff) if self.smooth else torch.ones_like(distance)
        direction = graph.vector / distance[:, None]
        return Surroundings(
            blocks=blocks,
            sender=blocks.spread_index(graph.sender).flatten(),
            vector=blocks.spread(graph.vector, 0.0).mT.contiguous(),
            direction=blocks.spread(direction, 0.0).mT.contiguous(),
            basis=self.radial(blocks.spread(distance, self.config.cutoff)).mT.contiguous(),
            fade=blocks.spread(fade, 0.0),
        )
