r"""Plain: an ordinary transformer on raw edge vectors, blind to the symmetry of space.

It answers to no publication and is here for one question: does equivariance matter, or do data,
``data.augment`` and size make up for it? In that spirit S. Pozdnyakov, M. Ceriotti, "Smooth, exact
rotational symmetrization for deep learning on point clouds", NeurIPS 2023, arXiv:2305.19302, and
E. Qu, A. Krishnapriyan, "The Importance of Being Scalable", NeurIPS 2024, arXiv:2410.24169.

Every neighbour is a token made of the components of its edge, its distance and its element,

.. math::
    t_{ij} = \sqrt n \, \mathrm{MLP}[r_{ij} / r_c \,|\, b(|r_{ij}|) \,|\, z_j],

with a typical number of neighbours n: a mean over them then starts as large as atoms' own features.
Atoms attend to their neighbours, with an envelope :math:`f` inside the softmax:

.. math::
    y_i \propto e^{q_i k_i} v_i +
        \sum_j f_{ij} e^{q_i (k_j + K t_{ij})} (v_j + V t_{ij}).

Inside a block no matrix acts on edges: :math:`q_i K t_{ij} = (K^\top q_i) t_{ij}`, and V acts on
the sum of tokens. Energies are smooth and conserved, but change as the crystal is turned. Unlike in
the first of the papers, neighbours do not attend to each other: atoms learn of angles from the
feed-forward layers, which see the sum of all tokens, and from what neighbours tell of theirs.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ase_crystalformer.encoders.base import AtomFeatures, Broken, Claims, Encoder
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import Radius
from ase_crystalformer.nn.attention import fading_softmax
from ase_crystalformer.nn.blocks import EdgeBlocks
from ase_crystalformer.nn.elements import ElementEmbedding
from ase_crystalformer.nn.radial import GaussianBasis, envelope, norm
from ase_crystalformer.nn.starts import keep_scale

CITATION = (
    "@inproceedings{pozdnyakov2023smooth, title={Smooth, exact rotational symmetrization for deep "
    "learning on point clouds}, author={Pozdnyakov, Sergey and Ceriotti, Michele}, "
    "booktitle={NeurIPS}, year={2023}}"
)

RAW = Broken(because="the components of edge vectors are read as they are")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Size of a plain transformer.

    Attributes:
        mode: ``smooth``; there is no publication it follows.
        cutoff: Radius of the graph, Å.
        width: Channels per atom.
        heads: Attention heads; must divide ``width``.
        blocks: Attention blocks.
        feedforward: Hidden channels of the feed-forward layers.
        token: Channels per edge.
        basis: Gaussians a distance is expanded in.
        neighbours: Typical number of neighbours.
        elements: Largest atomic number.
    """

    mode: Literal["smooth"] = "smooth"
    cutoff: float = 5.0
    width: int = 128
    heads: int = 8
    blocks: int = 4
    feedforward: int = 256
    token: int = 64
    basis: int = 16
    neighbours: float = 40.0
    elements: int = 98

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width; {self.heads} do not divide {self.width}.")


#: There are no published settings.
PUBLISHED: dict[str, Config] = {}


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What every block needs to know of the edges; computed once per forward pass."""

    blocks: EdgeBlocks
    slot: Int[Tensor, " edges"]
    graph: CrystalGraph
    token: Float[Tensor, "blocks size token"]
    fade: Float[Tensor, "edges 1"]


class Tokens(nn.Module):
    """One token per edge: components, distance, element of the sender."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.cutoff = config.cutoff
        self.scale = config.neighbours**0.5
        self.radial = GaussianBasis(config.basis, config.cutoff)
        self.first = nn.Linear(3 + config.basis, config.token)
        self.element = ElementEmbedding(config.elements, config.token)
        self.second = nn.Linear(config.token, config.token)

    def forward(
        self, graph: CrystalGraph, distance: Float[Tensor, " edges"]
    ) -> Float[Tensor, "edges token"]:
        # Components of a vector of random direction and typical length are then of order one.
        raw = graph.vector * (3**0.5 / (0.7 * self.cutoff))
        hidden = self.first(torch.cat([raw, self.radial(distance)], dim=1))
        hidden = hidden + self.element(graph.species).index_select(0, graph.sender)
        return self.scale * functional.silu(self.second(functional.silu(hidden)))


class Attention(nn.Module):
    """Attention of atoms to the tokens of their edges, to their neighbours and to themselves."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.depth = width // self.heads
        self.query = nn.Linear(width, width)
        # A shift of all keys would change no softmax.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.token_key = nn.Linear(config.token, width, bias=False)
        self.token_value = nn.Linear(config.token, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "atoms width"], near: Surroundings
    ) -> Float[Tensor, "atoms width"]:
        graph, blocks = near.graph, near.blocks
        q, k, v = (f(x).unflatten(1, (self.heads, -1)) for f in (self.query, self.key, self.value))
        q = q * self.depth**-0.5
        score = (q.index_select(0, graph.receiver) * k.index_select(0, graph.sender)).sum(-1)
        score = score + self._token_scores(q, near)
        # Where precision is mixed, products are short and sums must not be.
        score, own = score.to(near.fade), (q * k).sum(-1).to(near.fade)
        fade = near.fade.expand_as(score)
        share, own = fading_softmax(score, fade, graph.receiver, own)
        share = share * fade
        carried = share[..., None] * v.index_select(0, graph.sender)
        y = (own[..., None] * v).index_add(0, graph.receiver, carried)
        tokens = blocks.sum_outer(blocks.spread(share, 0.0), near.token, graph.atoms)
        matrix = self.token_value.weight.unflatten(0, (self.heads, self.depth))
        y = y + torch.einsum("aht,hdt->ahd", tokens, matrix)
        return self.out(y.flatten(1))

    def _token_scores(
        self, q: Float[Tensor, "atoms heads depth"], near: Surroundings
    ) -> Float[Tensor, "edges heads"]:
        """Products of queries with the keys of tokens; the matrix acts on the query."""
        matrix = self.token_key.weight.unflatten(0, (self.heads, self.depth))
        asked = torch.einsum("ahd,hdt->aht", q, matrix).index_select(0, near.blocks.receiver)
        return torch.bmm(near.token, asked.mT).flatten(0, 1).index_select(0, near.slot)


class Block(nn.Module):
    """Attention, then a feed-forward layer, each of normalised features and added to them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.expand = nn.Linear(config.width, config.feedforward)
        self.shrink = nn.Linear(config.feedforward, config.width)
        self.first_norm = nn.LayerNorm(config.width)
        self.second_norm = nn.LayerNorm(config.width)

    def forward(
        self, x: Float[Tensor, "atoms width"], near: Surroundings
    ) -> Float[Tensor, "atoms width"]:
        x = x + self.attention(self.first_norm(x), near)
        return x + self.shrink(functional.silu(self.expand(self.second_norm(x))))


class Plain(Encoder):
    """A transformer that must learn from data what turning a crystal does."""

    citation = CITATION
    claims = Claims(rotation=RAW, reflection=RAW, orbits=RAW)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.rule = Radius(config.cutoff)
        self.embedding = ElementEmbedding(config.elements, config.width)
        self.tokens = Tokens(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.last_norm = nn.LayerNorm(config.width)
        keep_scale(self)

    def forward(self, graph: CrystalGraph) -> AtomFeatures:
        near = self._surroundings(graph)
        x = self.embedding(graph.species)
        for block in self.blocks:
            x = block(x, near)
        return AtomFeatures(self.last_norm(x))

    def _surroundings(self, graph: CrystalGraph) -> Surroundings:
        blocks = EdgeBlocks.build(graph.receiver, graph.atoms)
        distance = norm(graph.vector)
        slot = torch.empty(graph.edges + 1, dtype=torch.long, device=graph.receiver.device)
        slot[blocks.edge] = torch.arange(blocks.edge.shape[0], device=slot.device)
        return Surroundings(
            blocks=blocks,
            slot=slot[:-1],
            graph=graph,
            token=blocks.spread(self.tokens(graph, distance), 0.0),
            fade=envelope(distance, self.config.cutoff)[:, None],
        )
