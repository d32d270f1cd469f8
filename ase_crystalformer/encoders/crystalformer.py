r"""Crystalformer: attention over every periodic image of every neighbour.

T. Taniai et al., "Crystalformer: Infinitely Connected Attention for Periodic Structure Encoding",
ICLR 2024, arXiv:2403.11686.

The paper writes attention between the atoms of one cell, with two lattice sums per pair,

.. math::
    y_i = \sum_j \mathrm{softmax}_j(q_i k_j / \sqrt d + \alpha_{ij}) (v_j + \beta_{ij}), \quad
    \alpha_{ij} = \log \sum_n e^{-\rho_i r_{ijn}^2 / 2 r_0^2}, \quad
    \beta_{ij} = \sum_n p_{ijn} W b(r_{ijn}).

Inserted, they give one softmax over all images (edges), with scores per pair and decay per edge. So
keys and values are gathered once per pair, the basis is summed once per edge, W acts on the sums:
the same numbers, at a cost per edge of ``heads`` exponentials and a small matrix product.

``paper`` mode is that, truncated at a radius of 3.5 of the largest sigma. ``smooth`` mode differs
in four points: an envelope multiplies every weight, inside the softmax; ELU and ReLU become
softplus and SiLU, so that forces are smooth; blocks may begin with a layer norm; and ``degree`` may
add invariants of angular moments under the same weights.
"""

import math
from dataclasses import dataclass, replace
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
from ase_crystalformer.nn.harmonics import COMPONENTS, harmonics
from ase_crystalformer.nn.moments import MomentInvariants
from ase_crystalformer.nn.radial import GaussianBasis, envelope, norm

CITATION = """@inproceedings{taniai2024crystalformer,
  title = {Crystalformer: Infinitely Connected Attention for Periodic Structure Encoding},
  author = {Taniai, Tatsunori and Igarashi, Ryo and Suzuki, Yuta and Chiba, Naoya and
            Saito, Kotaro and Ushiku, Yoshitaka and Ono, Kanta},
  booktitle = {International Conference on Learning Representations}, year = {2024}
}"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Size and flavour of a Crystalformer; the defaults are the published ones.

    Attributes:
        mode: ``smooth`` for potentials, ``paper`` for the published formulation.
        cutoff: Radius of the graph, Å.
        width: Channels per atom.
        heads: Attention heads; must divide ``width``.
        blocks: Attention blocks.
        feedforward: Hidden channels of the feed-forward layers.
        basis: Gaussians a distance is expanded in.
        basis_radius: Centre of the last Gaussian, Å.
        decay: Length r0 of the attention's decay, Å.
        elements: Largest atomic number.
        norm: Begin each half block with a layer norm (``smooth`` only).
        degree: Largest degree of angular moments, 0 for none (``smooth`` only).
    """

    mode: Literal["smooth", "paper"] = "smooth"
    cutoff: float = 7.0
    width: int = 128
    heads: int = 8
    blocks: int = 4
    feedforward: int = 512
    basis: int = 64
    basis_radius: float = 14.0
    decay: float = 1.4
    elements: int = 98
    norm: bool = False
    degree: int = 0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width; {self.heads} do not divide {self.width}.")
        if self.mode == "paper" and (self.norm or self.degree):
            raise ValueError("norm and degree are extensions of smooth mode; mode is 'paper'.")


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What every block needs to know of the edges; computed once per forward pass."""

    blocks: EdgeBlocks
    pair: Int[Tensor, "blocks size"]
    receiver: Int[Tensor, " pairs"]
    sender: Int[Tensor, " pairs"]
    envelope: Float[Tensor, "blocks size"]
    decay: Float[Tensor, "blocks size"]
    basis: Float[Tensor, "blocks size basis"]
    harmonics: Float[Tensor, "blocks size components"] | None


class Attention(nn.Module):
    """Attention over images: one softmax over all edges of an atom and the atom itself."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width, self.heads = config.width, config.heads
        self.depth = width // self.heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.decay_weight = nn.Parameter(torch.randn(self.heads, self.depth) * self.depth**-0.5)
        self.position = nn.Parameter(torch.empty(self.heads, config.basis, self.depth))
        nn.init.xavier_uniform_(self.position)
        self.register_buffer("decay_shift", torch.zeros(self.heads))
        self.register_buffer("decay_scale", torch.ones(self.heads))
        if config.degree:
            self.sender_weight = nn.Linear(width, 2 * self.heads)
            self.invariants = MomentInvariants(2 * self.heads, 32, config.degree)
            size = 32 * config.degree + 2 * self.heads * config.basis
            self.moments_out = nn.Linear(size, width)

    decay_shift: Tensor
    decay_scale: Tensor

    def forward(
        self,
        x: Float[Tensor, "atoms width"],
        near: Surroundings,
        self_basis: Float[Tensor, " basis"],
    ) -> Float[Tensor, "atoms width"]:
        atoms, rows = x.shape[0], near.receiver
        q, k, v = (f(x).unflatten(1, (self.heads, -1)) for f in (self.query, self.key, self.value))
        q = q * self.depth**-0.5
        fall = self._fall(q, near)
        pair_fall = fall.new_zeros(rows.shape[0] or 1, self.heads)
        pair_fall = pair_fall.index_add(0, near.pair.flatten(), fall.flatten(0, 1))[: rows.shape[0]]
        key, value = (table.index_select(0, near.sender) for table in (k, v))
        score, own = (q.index_select(0, rows) * key).sum(-1), (q * k).sum(-1)
        # Where precision is mixed, products are short and sums must not be.
        weight, own = fading_softmax(score.to(fall), pair_fall, rows, own.to(fall))
        y = own[..., None] * v
        y = y.index_add(0, rows, (weight * pair_fall)[..., None] * value)
        image = _take(weight, near.pair) * fall
        spread = near.blocks.sum_outer(image, near.basis, atoms) + own[..., None] * self_basis
        y = y + torch.einsum("ahk,hkd->ahd", spread, self.position)
        y = self.out(y.flatten(1))
        return y + self._moments(x, weight, fall, near) if self.config.degree else y

    def _fall(
        self, q: Float[Tensor, "atoms heads depth"], near: Surroundings
    ) -> Float[Tensor, "blocks size heads"]:
        """Gaussian decay of every edge, as wide as its receiver asks, times the envelope."""
        a = (q * self.depth**0.5 * self.decay_weight).sum(-1)
        a = 0.1 * (a + self.decay_shift) * self.decay_scale
        if self.config.mode == "paper":
            rho = 0.5 * functional.elu(2 * a) + 1
        else:
            rho = 0.5 + 0.5 / math.log(2) * functional.softplus(2 * a)
        exponent = near.decay[..., None] * rho.index_select(0, near.blocks.receiver)[:, None]
        return near.envelope[..., None] * torch.exp(-exponent)

    def _moments(
        self,
        x: Float[Tensor, "atoms width"],
        weight: Float[Tensor, "pairs heads"],
        fall: Float[Tensor, "blocks size heads"],
        near: Surroundings,
    ) -> Float[Tensor, "atoms width"]:
        """Radial and angular moments of the same weights, coloured by the sender."""
        assert near.harmonics is not None
        colour = (
            self.sender_weight(x).index_select(0, near.sender).unflatten(1, (2, self.heads))
            * weight[:, None]
        )
        image = (_take(colour, near.pair) * fall[:, :, None]).flatten(2)
        functions = torch.cat([near.basis, near.harmonics], dim=-1)
        sums = near.blocks.sum_outer(image, functions, x.shape[0])
        radial, angular = sums.split([self.config.basis, COMPONENTS[self.config.degree]], dim=-1)
        return self.moments_out(torch.cat([radial.flatten(1), self.invariants(angular)], dim=-1))


def _take(table: Float[Tensor, "pairs *rest"], index: Int[Tensor, "blocks size"]) -> Tensor:
    """Look up one row per slot; a graph without pairs has no slots either."""
    return table.index_select(0, index.flatten()).unflatten(0, index.shape)


class Block(nn.Module):
    """Attention, then a feed-forward layer, each added to what came before."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.expand = nn.Linear(config.width, config.feedforward)
        self.shrink = nn.Linear(config.feedforward, config.width)
        self.activation = nn.ReLU() if config.mode == "paper" else nn.SiLU()
        self.first_norm = nn.LayerNorm(config.width) if config.norm else nn.Identity()
        self.second_norm = nn.LayerNorm(config.width) if config.norm else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "atoms width"],
        near: Surroundings,
        self_basis: Float[Tensor, " basis"],
    ) -> Float[Tensor, "atoms width"]:
        x = x + self.attention(self.first_norm(x), near, self_basis)
        return x + self.shrink(self.activation(self.expand(self.second_norm(x))))

    def silence(self) -> None:
        """Let the block pass on what it is given, until it learns to add to it."""
        last = [self.attention.out, self.shrink]
        if self.attention.config.degree:
            last.append(self.attention.moments_out)
        for linear in last:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)


class Crystalformer(Encoder):
    """Infinitely connected attention in its flat-edge form."""

    citation = CITATION

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.rule = Radius(config.cutoff)
        self.claims = Claims()
        if config.mode == "paper":
            self.claims = Claims(
                smooth=Broken(because="the lattice sum ends abruptly, and ReLU has kinks")
            )
        self.embedding = nn.Embedding(config.elements, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.radial = GaussianBasis(config.basis, config.basis_radius)
        self.last_norm = nn.LayerNorm(config.width) if config.norm else nn.Identity()
        self._initialise()

    def _initialise(self) -> None:
        """T-Fixup (Huang et al., ICML 2020), so that no warm-up or norm is needed."""
        config = self.config
        depth = 1.0 if config.norm else 0.67 * config.blocks**-0.25
        spread = 1.0 if config.norm else config.width**-0.5 * (9 * config.blocks) ** -0.25
        nn.init.normal_(self.embedding.weight, std=spread)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for block in self.modules():
            if isinstance(block, Block):
                attention = block.attention
                for linear in (block.expand, block.shrink, attention.out, attention.value):
                    linear.weight.data.mul_(depth)

    def deepen(self, blocks: int) -> None:
        """Add blocks until there are ``blocks``; features stay what they are, until these learn.

        Source: T. Chen, I. Goodfellow, J. Shlens, "Net2Net", ICLR 2016, arXiv:1511.05641.
        """
        self.config = replace(self.config, blocks=blocks)
        while len(self.blocks) < blocks:
            block = Block(self.config)
            block.silence()
            self.blocks.append(block)

    def forward(self, graph: CrystalGraph) -> AtomFeatures:
        near = self._surroundings(graph)
        x = self.embedding(graph.species - 1)
        own = self.radial.at_zero(x)
        for block in self.blocks:
            x = block(x, near, own)
        return AtomFeatures(self.last_norm(x))

    def _surroundings(self, graph: CrystalGraph) -> Surroundings:
        config = self.config
        blocks = EdgeBlocks.build(graph.receiver, graph.atoms)
        new = torch.ones_like(graph.receiver, dtype=torch.bool)
        same = (graph.receiver[1:] == graph.receiver[:-1]) & (graph.sender[1:] == graph.sender[:-1])
        new[1:] = ~same
        distance = norm(graph.vector)
        spread = blocks.spread(distance, config.cutoff)
        fade = blocks.spread(torch.ones_like(distance), 0.0)
        directions = None
        if config.degree:
            unit = blocks.spread(graph.vector / distance[:, None], 0.0)
            directions = harmonics(unit, config.degree)
        return Surroundings(
            blocks=blocks,
            pair=blocks.spread_index(new.cumsum(0) - 1),
            receiver=graph.receiver[new],
            sender=graph.sender[new],
            envelope=fade if config.mode == "paper" else envelope(spread, config.cutoff),
            decay=spread * spread / (2 * config.decay**2),
            basis=self.radial(spread),
            harmonics=directions,
        )
