r"""TorchMD-NET's equivariant transformer: attention without a softmax, on scalars and vectors.

P. Thölke, G. De Fabritiis, "Equivariant Transformers for Neural Network based Molecular
Potentials", ICLR 2022, arXiv:2202.02541.

Every atom has scalars x and vectors V. In a layer, neighbours j of atom i, and the atom itself at
distance zero and without direction, send

.. math::
    \Delta x_i \leftarrow \sum_j f\, a_{ij}\, s_{ij}, \quad
    \Delta V_i \leftarrow \sum_j f' (t_{ij} \odot V_j + u_{ij} \otimes \hat r_{ij}), \quad
    a_{ij} = \mathrm{SiLU}\Big(\sum_c q_i k_j d_{ij}\Big),

with s, t, u the sender's values times functions of the distance, and f, f' cutoff functions. The
publication knows the nearest image of an atom; here every image within the cutoff is a neighbour,
those of the atom itself included. Functions of the distance are computed once per bond.

``paper`` mode is that with a cosine for f and :math:`f' = 1`: vectors of a neighbour do not fade,
so that energies step where it leaves. ``smooth`` mode is for potentials: one envelope with
continuous curvature is f and f', sums are divided by the root of a typical number of neighbours,
and centres of the basis fit any cutoff. The readout is the published head but its last linear map;
lengths of vectors are rounded off at zero, where vectors of symmetric sites are.
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
from ase_crystalformer.nn.bonds import bonds, mean_of_bonds
from ase_crystalformer.nn.elements import ElementEmbedding
from ase_crystalformer.nn.radial import ExponentialBasis, cosine_cutoff, envelope, norm
from ase_crystalformer.nn.starts import keep_scale

CITATION = (
    "@inproceedings{tholke2022equivariant, title={Equivariant Transformers for Neural Network "
    'based Molecular Potentials}, author={Th{\\"o}lke, Philipp and De Fabritiis, Gianni}, '
    "booktitle={ICLR}, year={2022}}"
)

TURNED = Broken(because="vectors of a sender would have to be turned along with it")

PAPER_CLAIMS = Claims(
    orbits=TURNED, smooth=Broken(because="vectors do not fade, and the cosine's curvature jumps")
)

ROUNDING = {"smooth": 0.1, "paper": 1e-15}
"""Length below which vectors count as short, to round the kink of a length at zero."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Size and flavour of an equivariant transformer; the defaults are those published for MD17.

    Attributes:
        mode: ``smooth`` for potentials, ``paper`` for the published formulation.
        cutoff: Radius of the graph, Å.
        neighbours: Typical number of near neighbours; divides sums by its root (``smooth`` only).
        width: Channels of scalars, and of vectors, per atom; features have half as many.
        heads: Attention heads; must divide ``width``.
        layers: Updates of the atoms.
        basis: Functions a distance is expanded in.
        elements: Largest atomic number.
    """

    mode: Literal["smooth", "paper"] = "smooth"
    cutoff: float = 5.0
    neighbours: float = 16.0
    width: int = 128
    heads: int = 8
    layers: int = 6
    basis: int = 32
    elements: int = 98

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise ValueError(
                f"heads must divide width, and width be even; heads is {self.heads}, "
                f"width {self.width}."
            )


PUBLISHED = {
    "md17": Config(mode="paper", elements=100),
    "qm9": Config(mode="paper", width=256, layers=8, basis=64, elements=100),
}
"""Settings of the publication: 1.34 and 6.87 million parameters."""


@dataclass(frozen=True, eq=False)
class Terms:
    """What every layer sums over: all edges, then every atom as a neighbour of itself.

    Attributes:
        receiver: Who is told.
        sender: Of whom.
        bond: Row of ``basis``; an edge and its reverse share one.
        basis: Functions of the length of every bond, and of the distance zero.
        fade: Weight of what scalars are told.
        vector_fade: Weight of what vectors are told.
        direction: Unit vector times that weight; zero from an atom to itself.
    """

    receiver: Int[Tensor, " terms"]
    sender: Int[Tensor, " terms"]
    bond: Int[Tensor, " terms"]
    basis: Float[Tensor, "bonds basis"]
    fade: Float[Tensor, "terms 1"]
    vector_fade: Float[Tensor, "terms 1"]
    direction: Float[Tensor, "terms 3 1"]

    def sum(self, sent: Float[Tensor, "terms width"], atoms: int) -> Float[Tensor, "atoms width"]:
        """Sum at the receivers."""
        return sent.new_zeros(atoms, sent.shape[1]).index_add(0, self.receiver, sent)


class Surroundings(nn.Module):
    """Mix into every atom's features those of the elements around it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.atoms = ElementEmbedding(config.elements, config.width)
        self.radial = nn.Linear(config.basis, config.width)
        self.out = nn.Linear(2 * config.width, config.width)

    def forward(
        self, x: Float[Tensor, "atoms width"], graph: CrystalGraph, near: Terms
    ) -> Float[Tensor, "atoms width"]:
        weight = self.radial(near.basis).index_select(0, near.bond) * near.fade
        sent = self.atoms(graph.species).index_select(0, graph.sender) * weight[: graph.edges]
        around = sent.new_zeros(x.shape).index_add(0, graph.receiver, sent)
        return self.out(torch.cat([x, around], dim=1))


class Layer(nn.Module):
    """One update of scalars and vectors by attention over neighbours; the first has no vectors."""

    def __init__(self, config: Config, first: bool) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm = nn.LayerNorm(width)
        self.atom = nn.Linear(width, 5 * width)
        self.radial = nn.Linear(config.basis, 4 * width)
        self.vector = nn.Identity() if first else nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, 3 * width)

    def forward(
        self,
        x: Float[Tensor, "atoms width"],
        v: Float[Tensor, "atoms 3 width"] | None,
        near: Terms,
    ) -> tuple[Float[Tensor, "atoms width"], Float[Tensor, "atoms 3 width"]]:
        """Update scalars x and vectors v; the first layer makes the vectors."""
        query, key, scalar, along, carried = self.atom(self.norm(x)).chunk(5, dim=-1)
        told = self._told(query, key, scalar, near)
        sent = None if v is None else v * carried[:, None]
        turned = self._turned(along, sent, near)
        first, second, third = self.out(told).chunk(3, dim=-1)
        if v is None:
            return x + third, turned
        left, right, same = self.vector(v).chunk(3, dim=-1)
        x = x + (left * right).sum(1) * second + third
        return x, v + same * first[:, None] + turned

    def _told(
        self,
        query: Float[Tensor, "atoms width"],
        key: Float[Tensor, "atoms width"],
        scalar: Float[Tensor, "atoms width"],
        near: Terms,
    ) -> Float[Tensor, "atoms width"]:
        """Sum what neighbours send as scalars."""
        score = query.index_select(0, near.receiver) * key.index_select(0, near.sender)
        score = (score * self._of_distance(0, near)).unflatten(1, (self.heads, -1)).sum(-1)
        weight = functional.silu(score) * near.fade
        sent = scalar.index_select(0, near.sender) * self._of_distance(1, near)
        sent = sent.unflatten(1, (self.heads, -1)) * weight[..., None]
        return near.sum(sent.flatten(1), scalar.shape[0])

    def _turned(
        self,
        along: Float[Tensor, "atoms width"],
        carried: Float[Tensor, "atoms 3 width"] | None,
        near: Terms,
    ) -> Float[Tensor, "atoms 3 width"]:
        """Sum what neighbours send as vectors, axis by axis: small tensors stay in the cache."""
        along_edge = along.index_select(0, near.sender) * self._of_distance(2, near)
        sent = [along_edge * direction for direction in near.direction.unbind(1)]
        if carried is not None:
            weight = self._of_distance(3, near) * near.vector_fade
            sent = [
                part + other.index_select(0, near.sender) * weight
                for part, other in zip(sent, carried.unbind(1), strict=True)
            ]
        return torch.stack([near.sum(part, along.shape[0]) for part in sent], dim=1)

    def _of_distance(self, which: int, near: Terms) -> Float[Tensor, "terms width"]:
        """Evaluate one function of the distance, once per bond."""
        weight, shift = self.radial.weight.chunk(4)[which], self.radial.bias.chunk(4)[which]
        values = functional.silu(functional.linear(near.basis, weight, shift))
        return values.index_select(0, near.bond)


class Readout(nn.Module):
    """Two layers that read scalars and lengths of vectors: the published head but its last map."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, half = config.width, config.width // 2
        self.rounding = ROUNDING[config.mode]
        self.first_length = nn.Linear(width, width, bias=False)
        self.first_vector = nn.Linear(width, half, bias=False)
        self.first_hidden = nn.Linear(2 * width, width)
        self.first_out = nn.Linear(width, width)
        self.second_length = nn.Linear(half, half, bias=False)
        self.second_hidden = nn.Linear(width, half)

    def forward(
        self, x: Float[Tensor, "atoms width"], v: Float[Tensor, "atoms 3 width"]
    ) -> Float[Tensor, "atoms half"]:
        length = self._length(self.first_length(v))
        x = functional.silu(self.first_hidden(torch.cat([x, length], dim=1)))
        x, gate = self.first_out(x).chunk(2, dim=1)
        v = self.first_vector(v) * gate[:, None]
        hidden = torch.cat([functional.silu(x), self._length(self.second_length(v))], dim=1)
        return functional.silu(self.second_hidden(hidden))

    def _length(self, v: Float[Tensor, "atoms 3 channels"]) -> Float[Tensor, "atoms channels"]:
        v = v.to(torch.promote_types(v.dtype, torch.float32))  # short, the rounding would be zero
        return (v.square().sum(1) + self.rounding**2).sqrt() - self.rounding


class EquivariantTransformer(Encoder):
    """Scalars and vectors on atoms, updated by attention over neighbours."""

    citation = CITATION

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = config.width // 2
        self.rule = Radius(config.cutoff)
        paper = config.mode == "paper"
        self.claims = PAPER_CLAIMS if paper else Claims(orbits=TURNED)
        self.radial = ExponentialBasis(config.basis, config.cutoff, matched=not paper)
        self.atoms = ElementEmbedding(config.elements, config.width)
        self.around = Surroundings(config)
        self.layers = nn.ModuleList(Layer(config, i == 0) for i in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.readout = Readout(config)
        self._initialise()

    def _initialise(self) -> None:
        """Keep the scale of features; squares of the basis sum to two."""
        keep_scale(self)
        if self.config.mode == "smooth":
            for part in (self.around, *self.layers):
                nn.init.normal_(part.radial.weight, std=0.7)

    def forward(self, graph: CrystalGraph) -> AtomFeatures:
        near = self._terms(graph)
        x = self.around(self.atoms(graph.species), graph, near)
        v = None
        for layer in self.layers:
            x, v = layer(x, v, near)
        return AtomFeatures(self.readout(self.norm(x), v))

    def _terms(self, graph: CrystalGraph) -> Terms:
        """Describe edges, and put the atoms themselves behind them."""
        paper, length = self.config.mode == "paper", norm(graph.vector)
        fade = torch.cat([self._fade(length), length.new_ones(graph.atoms)])[:, None]
        vector_fade = torch.ones_like(fade) if paper else fade
        unit = torch.cat([graph.vector / length[:, None], length.new_zeros(graph.atoms, 3)])
        bond = bonds(graph.receiver, graph.sender, graph.image)
        of_bond = torch.cat([mean_of_bonds(length, bond), length.new_zeros(1)])
        basis = self.radial(of_bond)
        if paper:
            basis = basis * cosine_cutoff(of_bond, self.config.cutoff)[:, None]
        own = torch.arange(graph.atoms, device=bond.device)
        return Terms(
            receiver=torch.cat([graph.receiver, own]),
            sender=torch.cat([graph.sender, own]),
            bond=torch.cat([bond, torch.full_like(own, basis.shape[0] - 1)]),
            basis=basis,
            fade=fade,
            vector_fade=vector_fade,
            direction=(unit * vector_fade)[..., None],
        )

    def _fade(self, length: Float[Tensor, " edges"]) -> Float[Tensor, " edges"]:
        """Weight of what scalars are told by neighbours."""
        if self.config.mode == "paper":
            return cosine_cutoff(length, self.config.cutoff)
        return envelope(length, self.config.cutoff) * self.config.neighbours**-0.5
