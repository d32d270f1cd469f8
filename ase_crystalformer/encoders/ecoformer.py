r"""EcoFormer: every atom attends to every other of its crystal, at a cost linear in their number.

J. Liu, Z. Pan, H. He, J. Cai, B. Zhuang, "EcoFormer: Energy-Saving Attention with Linear
Complexity", NeurIPS 2022, arXiv:2209.09004.

The publication is about images: queries and keys are hashed to a few bits, so that attention needs
no pairs. ``paper`` mode takes this attention as published (``nn.linear_attention``, which also says
what the released code does otherwise; ``fit_hashes`` chooses hashes by features, on request). It
knows nothing of places; what atoms know of their surroundings comes from a sum over neighbours
before it, which is ours: plain continuous filters. A bit is a step, so that features jump as atoms
move: this mode has no forces, and is for properties.

``smooth`` mode is for potentials. It keeps the idea, positive features whose sums over all atoms
come first, and replaces the bits by softplus. A Gaussian of the distance joins them, as a sum over
plane waves, smooth and with every image (``nn.plane_waves``).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ase_crystalformer.encoders.base import AtomFeatures, Broken, Claims, Encoder
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import Radius
from ase_crystalformer.nn.elements import ElementEmbedding
from ase_crystalformer.nn.linear_attention import HashAttention
from ase_crystalformer.nn.plane_waves import PlaneWaveAttention, PlaneWaves
from ase_crystalformer.nn.radial import ExponentialBasis, envelope, norm
from ase_crystalformer.nn.slots import CrystalSlots
from ase_crystalformer.nn.starts import keep_scale

CITATION = (
    "@inproceedings{liu2022ecoformer, title={EcoFormer: Energy-Saving Attention with Linear "
    "Complexity}, author={Liu, Jing and Pan, Zizheng and He, Haoyu and Cai, Jianfei and Zhuang, "
    "Bohan}, booktitle={Advances in Neural Information Processing Systems}, year={2022}}"
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Size and flavour of an EcoFormer for crystals; the publication fixes ``bits`` alone.

    Attributes:
        mode: ``smooth`` for potentials, ``paper`` for hashed attention.
        cutoff: Radius of the graph, Å.
        neighbours: Typical number of neighbours, whose sum shall have the scale of one.
        width: Channels per atom.
        heads: Attention heads; must divide ``width``.
        blocks: Blocks of neighbours, attention and a feed-forward layer.
        feedforward: Hidden channels of the feed-forward layers.
        basis: Functions a distance is expanded in.
        elements: Largest atomic number.
        reach: Width of the Gaussian of the distance, Å (``smooth`` only).
        channels: Of the values of attention, all heads together (``smooth`` only).
        features: Positive features of queries and keys per head (``smooth`` only).
        bits: Of a hash (``paper`` only).
        anchors: Points that hashed features are compared with (``paper`` only).
    """

    mode: Literal["smooth", "paper"] = "smooth"
    cutoff: float = 5.0
    neighbours: float = 40.0
    width: int = 128
    heads: int = 8
    blocks: int = 4
    feedforward: int = 256
    basis: int = 32
    elements: int = 98
    reach: float = 8.0
    channels: int = 32
    features: int = 4
    bits: int = 16
    anchors: int = 25


PUBLISHED: dict[str, Config] = {}
"""No setting was published for crystals."""


class Neighbours(nn.Module):
    """Sum of the senders' channels, each filtered by the distance."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.scale = config.neighbours**-0.5
        self.filter = nn.Linear(config.basis, config.width, bias=False)
        self.value = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(
        self,
        x: Float[Tensor, "atoms width"],
        radial: Float[Tensor, "edges basis"],
        receiver: Int[Tensor, " edges"],
        sender: Int[Tensor, " edges"],
    ) -> Float[Tensor, "atoms width"]:
        value = self.value(x) * self.scale
        message = self.filter(radial) * value.index_select(0, sender)
        return self.out(torch.zeros_like(value).index_add(0, receiver, message))


class Block(nn.Module):
    """Neighbours, all atoms, and a feed-forward layer, each added to what came before."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.neighbours = Neighbours(config)
        self.attention: HashAttention | PlaneWaveAttention
        if config.mode == "paper":
            self.attention = HashAttention(width, heads, config.bits, config.anchors)
        else:
            self.attention = PlaneWaveAttention(width, config.channels, heads, config.features)
        self.feedforward = nn.Sequential(
            nn.Linear(width, config.feedforward),
            nn.GELU() if config.mode == "paper" else nn.SiLU(),
            nn.Linear(config.feedforward, width),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))


class EcoFormer(Encoder):
    """Neighbours within a cutoff, and all atoms by linear attention."""

    citation = CITATION

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.rule = Radius(config.cutoff)
        self.reads_positions = config.mode == "smooth"
        if config.mode == "paper":
            self.claims = Claims(
                smooth=Broken(because="a bit is a step, and sums over neighbours end abruptly")
            )
        else:
            self.claims = Claims(
                orbits=Broken(because="waves pass through every atom, not through one per orbit")
            )
        self.embedding = ElementEmbedding(config.elements, config.width)
        self.radial = ExponentialBasis(config.basis, config.cutoff)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.last_norm = nn.LayerNorm(config.width)
        keep_scale(self)
        for module in self.modules():
            if isinstance(module, Neighbours):
                nn.init.normal_(module.filter.weight, std=0.6)

    def forward(self, graph: CrystalGraph) -> AtomFeatures:
        return AtomFeatures(self._describe(graph, fit=False))

    @torch.no_grad()
    def fit_hashes(self, graph: CrystalGraph) -> None:
        """Choose anchors and bits of every block by the features of a batch that reach it.

        Raises:
            ValueError: The mode is ``smooth``, which has no hashes.
        """
        if self.config.mode == "smooth":
            raise ValueError("mode is 'smooth', which hashes nothing; use mode 'paper'.")
        self._describe(graph, fit=True)

    def _describe(self, graph: CrystalGraph, *, fit: bool) -> Float[Tensor, "atoms width"]:
        x = self.embedding(graph.species)
        radial, ends = self._radial(graph), (graph.receiver, graph.sender)
        world = self._world(graph)
        for block in self.blocks:
            assert isinstance(block, Block)
            first, second, third = block.norms
            x = x + block.neighbours(first(x), radial, *ends)
            y = second(x)
            if fit and isinstance(block.attention, HashAttention):
                block.attention.fit(y)
            x = x + block.attention(y, *world)
            x = x + block.feedforward(third(x))
        return self.last_norm(x)

    def _radial(self, graph: CrystalGraph) -> Float[Tensor, "edges basis"]:
        distance = norm(graph.vector)
        radial = self.radial(distance)
        if self.config.mode == "paper":
            return radial
        return radial * envelope(distance, self.config.cutoff)[:, None]

    def _world(self, graph: CrystalGraph) -> tuple[PlaneWaves] | tuple[Tensor, CrystalSlots]:
        """What attention needs to know of all atoms; computed once."""
        if self.config.mode == "paper":
            return graph.multiplicity, CrystalSlots.build(graph.crystal, graph.crystals)
        places = (graph.positions, graph.cell, graph.periodic, graph.crystal)
        return (PlaneWaves.build(*places, self.config.reach),)
