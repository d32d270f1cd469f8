r"""Equiformer: graph attention of features that turn with the crystal.

Y.-L. Liao, T. Smidt, "Equiformer: Equivariant Graph Attention Transformer for 3D Atomistic
Graphs", ICLR 2023, arXiv:2206.11990.

Atoms carry channels of degree l = 0 to L. A message joins those of receiver and sender, couples
them to the spherical harmonics of the edge with weights that depend on its length, and makes
scores and, after a gate and a second coupling, values,

.. math::
    m_{ij} = (S x_j + T x_i) \otimes_{w(r_{ij})} Y(\hat r_{ij}), \quad
    a_{ij} = \mathrm{softmax}_j(u \cdot \mathrm{leaky}(A m_{ij})), \quad
    v_{ij} = V (\mathrm{gate}(B m_{ij}) \otimes_w Y(\hat r_{ij}))

We compute them in a frame that turns with each edge, where couplings are sparse (``nn.aligned``):
the same numbers, several times faster. Weights no output depends on are left out: directions no
scalar is made of in the last block, directions of a constant, shifts of what is free anyway.
Dropout is left out too.

``paper`` mode follows the publication. ``smooth`` mode is for potentials: as in EquiformerV3, an
envelope multiplies every weight inside the softmax, and the values once more, so that neighbours
leave smoothly, the last one too. Two choices of the publication are made in ``PUBLISHED`` but not
by default. ``handed`` couplings need not conserve parity: mirror images differ. Without ``merged``,
each degree has a norm of its own: it blows up directions that nearly vanish by symmetry, again in
every block. For small random networks, rounding in float32 then made up to 8 % of the change under
a strain of one per cent.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ase_crystalformer.encoders.base import AtomFeatures, Broken, Claims, Encoder
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import Radius
from ase_crystalformer.nn import aligned, radial_weights
from ase_crystalformer.nn.attention import fading_softmax
from ase_crystalformer.nn.elements import ElementEmbedding
from ase_crystalformer.nn.equivariant import (
    Directed,
    DirectedLinear,
    DirectedNorm,
    FeedForward,
    Gate,
    smooth_leaky_relu,
)
from ase_crystalformer.nn.harmonics import harmonics
from ase_crystalformer.nn.radial import ExponentialBasis, GaussianBasis, envelope, norm

CITATION = """@inproceedings{liao2023equiformer,
  title = {Equiformer: Equivariant Graph Attention Transformer for 3D Atomistic Graphs},
  author = {Liao, Yi-Lun and Smidt, Tess},
  booktitle = {International Conference on Learning Representations}, year = {2023}
}"""

TURNED = Broken(because="directions of a sender would have to be turned along with it")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Size and flavour of an Equiformer.

    Attributes:
        mode: ``smooth`` for potentials, ``paper`` for the published formulation.
        cutoff: Radius of the graph, Å.
        neighbours: Typical number of neighbours that sums over them are scaled by; QM9's.
        elements: Largest atomic number.
        width: Invariant channels that leave.
        degrees: Channels of every degree from 0 to L; L is 1, 2 or 3.
        heads: Attention heads; must divide every one of ``degrees``.
        blocks: Attention blocks.
        expansion: Channels within feed-forward layers, in multiples of ``degrees``.
        basis: Functions distances are expanded in.
        functions: Gaussians of the distance (learned ones in ``paper`` mode), or of its
            exponential (fading at the cutoff in ``paper`` mode).
        radial: Hidden channels of the networks that make weights of distances.
        handed: Tell mirror images apart, as published.
        merged: Take one norm of all degrees; as published, each has its own (``paper`` only).
    """

    mode: Literal["smooth", "paper"] = "smooth"
    cutoff: float = 5.0
    neighbours: float = 15.57930850982666
    elements: int = 98
    width: int = 128
    degrees: tuple[int, ...] = (128, 64, 32)
    heads: int = 4
    blocks: int = 4
    expansion: int = 3
    basis: int = 32
    functions: Literal["gaussian", "exponential"] = "gaussian"
    radial: int = 64
    handed: bool = False
    merged: bool = True

    def __post_init__(self) -> None:
        if not 2 <= len(self.degrees) <= 4:
            raise ValueError(
                f"degrees has channels of l = 0 up to 1, 2 or 3; given is {self.degrees}."
            )
        if any(channels % self.heads for channels in self.degrees):
            raise ValueError(
                f"heads must divide all of degrees; given: {self.heads}, {self.degrees}."
            )
        if self.blocks < 1:
            raise ValueError(f"blocks is {self.blocks}; at least one is needed.")
        if self.mode == "smooth" and not self.merged:
            raise ValueError("Norms of single degrees are for paper mode; leave merged as it is.")

    @property
    def degree(self) -> int:
        """Largest degree L."""
        return len(self.degrees) - 1


_MD17 = Config(
    mode="paper",
    elements=64,
    width=512,
    blocks=6,
    functions="exponential",
    handed=True,
    merged=False,
)

#: The published models by data set and L. QM9's five elements are the first nine here.
PUBLISHED = {
    "qm9-l2": replace(_MD17, elements=9, basis=128, functions="gaussian"),
    "md17-l2": _MD17,
    "md17-l3": replace(_MD17, degrees=(128, 64, 64, 32)),
}


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What every block needs to know of the edges; computed once per forward pass."""

    graph: CrystalGraph
    basis: Float[Tensor, "edges basis"]
    fade: Float[Tensor, " edges"]
    angular: Float[Tensor, "edges components"]
    turns: Directed


BASES = {
    ("smooth", "gaussian"): GaussianBasis,
    ("smooth", "exponential"): ExponentialBasis,
    ("paper", "gaussian"): radial_weights.LearnedGaussians,
    ("paper", "exponential"): radial_weights.FadingExponentials,
}


class Attention(nn.Module):
    """Attention whose scores and values are non-linear functions of receiver, sender and edge.

    Args:
        config: Of the encoder.
        outputs: Channels of each degree that leave.
    """

    def __init__(self, config: Config, outputs: tuple[int, ...]) -> None:
        super().__init__()
        channels, degree = config.degrees, config.degree
        self.heads, self.scores = config.heads, channels[0]
        self.sender = DirectedLinear(channels, channels)
        self.receiver = DirectedLinear(channels, channels, bias=False)
        self.gate = Gate(channels)
        paths = aligned.Paths(channels, degree, degree, config.handed)
        self.radial = radial_weights.RadialNetwork(config.basis, config.radial)
        scalars, *rest = self.gate.inputs
        self.message = aligned.RadialCoupling(
            paths, (self.scores + scalars, *rest), config.radial + 1
        )
        self.value = aligned.FixedCoupling(
            aligned.Paths(channels, degree, len(outputs) - 1, config.handed), outputs
        )
        self.direction = nn.Parameter(torch.empty(self.heads, self.scores // self.heads))
        nn.init.xavier_uniform_(self.direction)
        self.out = DirectedLinear(outputs, outputs)

    def forward(self, x: Directed, near: Surroundings) -> Directed:
        ends = (near.graph.sender, near.graph.receiver)
        pairs = zip(self.sender(x), self.receiver(x), strict=True)
        joined = tuple(s.index_select(0, ends[0]) + r.index_select(0, ends[1]) for s, r in pairs)
        message = self.message(aligned.align(joined, near.turns), self.radial(near.basis))
        (whole,), *rest = message
        score, scalar = whole.split([self.scores, whole.shape[2] - self.scores], dim=2)
        scalar, *gates = self.gate.open(scalar)
        opened = (
            tuple(order * gate for order in orders)
            for orders, gate in zip(rest, gates, strict=True)
        )
        value = aligned.restore(self.value(((scalar,), *opened)), near.turns)
        weight = self._weights(score[:, 0], near)[:, None, :, None]
        sums = []
        for part in value:
            channels = part.shape[2]
            wide = weight.expand(-1, -1, -1, channels // self.heads).flatten(2)
            weighted = part * wide
            total = weighted.new_zeros(near.graph.atoms, *part.shape[1:])
            sums.append(total.index_add(0, near.graph.receiver, weighted))
        return self.out(tuple(sums))

    def _weights(
        self, score: Float[Tensor, "edges scores"], near: Surroundings
    ) -> Float[Tensor, "edges heads"]:
        """Weights of values: a softmax in which, like after it, they fade."""
        bent = smooth_leaky_relu(score).unflatten(1, (self.heads, -1))
        scores = (bent * self.direction).sum(-1).to(near.fade)
        fade = near.fade[:, None].expand_as(scores)
        nobody = scores.new_full((near.graph.atoms, self.heads), -torch.inf)
        weight, _ = fading_softmax(scores, fade, near.graph.receiver, nobody)
        return weight * fade * fade


def _add(x: Directed, y: Directed) -> Directed:
    """Add degree by degree, as far as the shorter goes."""
    return tuple(a + b for a, b in zip(x, y, strict=False))


class Block(nn.Module):
    """Attention, then a feed-forward layer, each added to what came before.

    The last block makes scalars, ``width`` of them.
    """

    def __init__(self, config: Config, last: bool) -> None:
        super().__init__()
        channels, merged = config.degrees, config.merged
        kept = channels[:1] if last else channels
        outputs = (config.width,) if last else channels
        hidden = tuple(config.expansion * size for size in kept)
        self.first_norm = DirectedNorm(channels, merged=merged)
        self.attention = Attention(config, kept)
        self.second_norm = DirectedNorm(kept, merged=merged)
        self.feed_forward = FeedForward(kept, hidden, outputs)
        self.shortcut = DirectedLinear(kept, outputs) if last else nn.Identity()

    def forward(self, x: Directed, near: Surroundings) -> Directed:
        x = _add(x, self.attention(self.first_norm(x), near))
        return _add(self.shortcut(x), self.feed_forward(self.second_norm(x)))


class Equiformer(Encoder):
    """The equivariant graph attention transformer, computed in the frames of its edges."""

    citation = CITATION

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.rule = Radius(config.cutoff)
        self.claims = _claims(config)
        self.atoms = ElementEmbedding(config.elements, config.degrees[0])
        self.basis = BASES[config.mode, config.functions](config.basis, config.cutoff)
        self.radial = radial_weights.RadialNetwork(config.basis, config.radial)
        self.neighbourhood = radial_weights.Neighbourhood(config.radial + 1, config.degrees)
        count = config.blocks
        self.blocks = nn.ModuleList(Block(config, i + 1 == count) for i in range(count))
        self.last_norm = nn.LayerNorm(config.width)

    def forward(self, graph: CrystalGraph) -> AtomFeatures:
        near = self._surroundings(graph)
        around = near.angular * (self.config.neighbours**-0.5 * near.fade)[:, None]
        scalar, *rest = self.neighbourhood(
            self.radial(near.basis), around, graph.receiver, graph.atoms
        )
        x: Directed = (scalar + self.atoms(graph.species)[:, None], *rest)
        for block in self.blocks:
            x = block(x, near)
        return AtomFeatures(self.last_norm(x[0][:, 0]))

    def _surroundings(self, graph: CrystalGraph) -> Surroundings:
        config = self.config
        distance = norm(graph.vector)
        unit = graph.vector / distance[:, None]
        angular = harmonics(unit, config.degree)
        smooth = config.mode == "smooth"
        return Surroundings(
            graph=graph,
            basis=self.basis(distance),
            fade=envelope(distance, config.cutoff) if smooth else torch.ones_like(distance),
            angular=torch.cat([torch.ones_like(distance[:, None]), angular], dim=1),
            turns=aligned.alignments(unit, config.degree),
        )


def _claims(config: Config) -> Claims:
    """What holds in which mode."""
    smooth, mirror = Claims().smooth, Claims().reflection
    if config.mode == "paper":
        smooth = Broken(because="edges end abruptly at the cutoff")
    if config.handed and config.blocks > 1:
        mirror = Broken(because="odd couplings tell mirror images apart")
    return Claims(orbits=TURNED, smooth=smooth, reflection=mirror)
