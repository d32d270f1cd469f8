r"""eComFormer: gated attention over neighbours, and one layer that sees directions.

K. Yan, C. Fu, X. Qian, X. Qian, S. Ji, "Complete and Efficient Graph Transformers for Crystal
Material Property Prediction", ICLR 2024, arXiv:2403.11857.

Atoms are updated by gated messages along edges (``nn.gated``). After the first update, two tensor
products with spherical harmonics of the edges follow: the first makes vectors and rank-two tensors
of the atoms' scalars, the second turns them to scalars again. The weights of both are functions of
the distance, one matrix per edge in the publication. They are linear in a hidden layer, so that we
need them on atoms only; see ``Lift`` and ``Lower``. Reflection leaves the scalars as they are.

``paper`` mode follows the publication: nearest neighbours and lattice steps, means over neighbours,
batch norms, CGCNN's table of the elements. ``smooth`` mode is for potentials: all neighbours within
a cutoff, an envelope on every message, a constant in place of the number of neighbours, no batch
norms, elements embedded freely.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ase_crystalformer.encoders.base import AtomFeatures, Broken, Claims, Encoder
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import Nearest, Radius
from ase_crystalformer.nn.blocks import EdgeBlocks
from ase_crystalformer.nn.bonds import bonds, mean_of_bonds
from ase_crystalformer.nn.elements import ElementEmbedding, ElementProperties
from ase_crystalformer.nn.expansion import Expansion
from ase_crystalformer.nn.gated import GatedNodes, RowNorm
from ase_crystalformer.nn.harmonics import harmonics
from ase_crystalformer.nn.radial import envelope, norm
from ase_crystalformer.nn.starts import keep_scale

CITATION = (
    "@inproceedings{yan2024comformer, title={Complete and Efficient Graph Transformers for Crystal "
    "Material Property Prediction}, author={Yan, Keqiang and Fu, Cong and Qian, Xiaofeng and Qian, "
    "Xiaoning and Ji, Shuiwang}, booktitle={ICLR}, year={2024}}"
)

TURNED = Broken(because="vectors of a sender would have to be turned along with it")

BLOCK = 32
"""Edges per matrix product; about as many as an atom has."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Size and flavour of an eComFormer; the defaults are the published ones (5.6 M parameters).

    Attributes:
        mode: ``smooth`` for potentials, ``paper`` for the published formulation.
        cutoff: Radius of the graph, Å (``smooth`` only).
        neighbours: Typical number of neighbours, in place of the number (``smooth`` only).
        elements: Largest atomic number (``smooth`` only).
        nearest: Neighbours each atom has at least (``paper`` only).
        width: Channels per atom and per edge.
        layers: Updates of the atoms by gated messages.
        basis: Gaussians that distances are expanded in.
        scalars: Channels the tensor products read and write.
        vectors: Vectors, and rank-two tensors, between the two.
    """

    mode: Literal["smooth", "paper"] = "smooth"
    cutoff: float = 5.0
    neighbours: float = 40.0
    elements: int = 98
    nearest: int = 25
    width: int = 256
    layers: int = 3
    basis: int = 256
    scalars: int = 64
    vectors: int = 8

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(
                f"layers is {self.layers}; at least one update of the atoms is needed."
            )


@dataclass(frozen=True, eq=False)
class Directed:
    """Features of atoms that rotate with the crystal: scalars, vectors and rank-two tensors.

    Tensors are given by their five components along ``nn.harmonics``.
    """

    scalar: Float[Tensor, "atoms scalars"]
    vector: Float[Tensor, "atoms vectors 3"]
    tensor: Float[Tensor, "atoms vectors 5"]


@dataclass(frozen=True, eq=False)
class Directions:
    """What both tensor products need to know of the edges; computed once.

    ``weight`` is that of each edge in the sum over neighbours; an edge and its reverse are a bond.
    """

    edge: Float[Tensor, "bonds width"]
    bond: Int[Tensor, " edges"]
    angular: Float[Tensor, "edges 8"]
    weight: Float[Tensor, " edges"]
    graph: CrystalGraph


class RadialWeights(nn.Module):
    """Weights of a tensor product, ``rows`` times ``columns``, as a function of the distance.

    They are linear in ``hidden(edge)``; whoever uses them contracts ``matrix`` with atoms first.
    """

    def __init__(self, width: int, rows: int, columns: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(width, width), nn.Softplus())
        self.last = nn.Linear(width, rows * columns)
        self.shape = (rows, columns)

    def matrix(self) -> Float[Tensor, "rows columns width"]:
        """Return the part of the weights per hidden channel."""
        return self.last.weight.unflatten(0, self.shape)

    def shift(self) -> Float[Tensor, "rows columns"]:
        """Return the part of the weights that is the same for every edge."""
        return self.last.bias.unflatten(0, self.shape)


class Lift(nn.Module):
    r"""Make scalars, vectors and tensors of scalars: the first tensor product.

    .. math::
        y_{i,d,m} = \tfrac{1}{\sqrt C} \sum_e w_e Y_{lm}(\hat r_e) \sum_c W_{cd}(e) x_{jc}, \quad
        W_{cd}(e) = \sum_k A_{cdk} h_k(e) + b_{cd}

    :math:`\sum_c A_{cdk} x_{jc}` lives on atoms. Edges of one sender share it, so that the sum over
    :math:`k` is one matrix product per sender.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.sizes = (config.scalars, config.vectors, config.vectors)
        self.weights = RadialWeights(config.width, config.scalars, sum(self.sizes))

    def forward(self, x: Float[Tensor, "atoms scalars"], near: Directions) -> Directed:
        graph = near.graph
        sender, order = torch.sort(graph.sender, stable=True)
        blocks = EdgeBlocks.build(sender, graph.atoms, _block(sender, graph.atoms))
        slot = blocks.spread_index(order)  # empty slots repeat an edge, with no weight
        taken = (blocks.edge < graph.edges).view_as(slot)
        weight = near.weight[slot].masked_fill(~taken, 0.0) * x.shape[1] ** -0.5
        hidden = self.weights.hidden(near.edge).index_select(0, near.bond[slot].flatten())
        message = self._messages(x, hidden.unflatten(0, slot.shape), blocks)
        message = (message * weight[..., None]).flatten(0, 1)
        angular = near.angular.index_select(0, slot.flatten())
        receiver = graph.receiver[slot].flatten()

        def total(parts: Float[Tensor, "slots *rest"]) -> Float[Tensor, "atoms *rest"]:
            return parts.new_zeros(graph.atoms, *parts.shape[1:]).index_add(0, receiver, parts)

        scalar, vector, tensor = message.split(self.sizes, dim=-1)
        vector = vector[:, :, None] * angular[:, None, :3]
        tensor = tensor[:, :, None] * angular[:, None, 3:]
        return Directed(total(scalar), total(vector), total(tensor))

    def _messages(
        self,
        x: Float[Tensor, "atoms scalars"],
        hidden: Float[Tensor, "blocks size width"],
        blocks: EdgeBlocks,
    ) -> Float[Tensor, "blocks size channels"]:
        """Act with the weights of every edge on its sender; a block is of one sender."""
        own = torch.einsum("ac,cdk->adk", x, self.weights.matrix())
        plain = x @ self.weights.shift()
        if blocks.size == BLOCK or blocks.receiver.shape[0] != x.shape[0]:
            own, plain = (part.index_select(0, blocks.receiver) for part in (own, plain))
        return torch.baddbmm(plain[:, None], hidden, own.mT)


class Lower(nn.Module):
    r"""Make scalars of scalars, vectors and tensors: the second tensor product.

    .. math::
        y_{id} = \tfrac{1}{\sqrt{C}} \sum_e w_e \sum_c W_{cd}(e) z_{ec}, \quad
        z_{ec} = \tfrac{1}{\sqrt{2l + 1}} \sum_m x_{jcm} Y_{lm}(\hat r_e)

    with C channels of all degrees together. :math:`\sum_e w_e h_k(e) z_{ec}` lives on atoms, and
    the weights act on it.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.weights = RadialWeights(
            config.width, config.scalars + 2 * config.vectors, config.scalars
        )

    def forward(self, x: Directed, near: Directions) -> Float[Tensor, "atoms scalars"]:
        graph = near.graph
        z = self._along(x, near)
        z = z * (near.weight * z.shape[1] ** -0.5)[:, None]
        blocks = EdgeBlocks.build(graph.receiver, graph.atoms, BLOCK)
        hidden = blocks.spread(self.weights.hidden(near.edge)[near.bond], 0.0)
        total = blocks.sum_outer(blocks.spread(z, 0.0), hidden, graph.atoms)
        plain = z.new_zeros(graph.atoms, z.shape[1]).index_add(0, graph.receiver, z)
        plain = plain @ self.weights.shift()
        return torch.einsum("ack,cdk->ad", total, self.weights.matrix()) + plain

    @staticmethod
    def _along(x: Directed, near: Directions) -> Float[Tensor, "edges channels"]:
        """Project the sender's features on the directions of the edges."""
        sender = near.graph.sender
        vector = torch.einsum("ecm,em->ec", x.vector.index_select(0, sender), near.angular[:, :3])
        tensor = torch.einsum("ecm,em->ec", x.tensor.index_select(0, sender), near.angular[:, 3:])
        scalar = x.scalar.index_select(0, sender)
        return torch.cat([scalar, vector * 3**-0.5, tensor * 5**-0.5], dim=-1)


def _block(sender: Int[Tensor, " edges"], atoms: int) -> int:
    """Slots per block: one block for every atom, if that leaves few slots empty."""
    most = int(torch.bincount(sender, minlength=atoms).max()) if atoms else 0
    return most if most * atoms < 1.5 * sender.shape[0] else BLOCK


class DirectedNodes(nn.Module):
    """Update atoms by two tensor products with the directions of their edges."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.first = nn.Linear(config.width, config.scalars)
        self.lift = Lift(config)
        self.lower = Lower(config)
        self.norm = RowNorm(config.scalars) if config.mode == "paper" else nn.Identity()
        self.last = nn.Linear(config.scalars, config.width)
        self.skip = nn.Linear(config.width, config.width)

    def forward(
        self, x: Float[Tensor, "atoms width"], near: Directions
    ) -> Float[Tensor, "atoms width"]:
        y = self.first(x)
        lifted = self.lift(y, near)
        lifted = Directed(lifted.scalar + y, lifted.vector, lifted.tensor)
        y = functional.softplus(self.norm(self.lower(lifted, near)))
        return functional.softplus(self.last(y)) + self.skip(x)


class EComFormer(Encoder):
    """The equivariant ComFormer, in the size of the released configuration."""

    citation = CITATION

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = width = config.width
        paper = config.mode == "paper"
        self.rule = Nearest(config.nearest) if paper else Radius(config.cutoff)
        self.claims = Claims(orbits=TURNED)
        if paper:
            self.claims = Claims(
                orbits=TURNED, smooth=Broken(because="nearest neighbours change suddenly")
            )
        self.atoms = ElementProperties(width) if paper else ElementEmbedding(config.elements, width)
        self.lengths = Expansion(-4.0, 0.0, config.basis, width)
        self.nodes = nn.ModuleList(GatedNodes(width, paper) for _ in range(config.layers))
        self.directed = DirectedNodes(config)
        if not paper:
            self._initialise()

    def _initialise(self) -> None:
        """Keep the scale of features; weights of tensor products start at one, not far below."""
        keep_scale(self)
        for product in (self.directed.lift, self.directed.lower):
            nn.init.normal_(product.weights.last.weight, std=self.width**-0.5)

    def forward(self, graph: CrystalGraph) -> AtomFeatures:
        distance = norm(graph.vector)
        bond = bonds(graph.receiver, graph.sender, graph.image)
        edge = self.lengths(-0.75 / mean_of_bonds(distance, bond))
        weight, share = self._weights(graph, distance)
        angular = harmonics(graph.vector / distance[:, None], 2)
        ends = (graph.receiver, graph.sender)
        first, *rest = self.nodes
        x = first(self.atoms(graph.species), edge, *ends, weight, bond)
        x = self.directed(x, Directions(edge, bond, angular, share, graph))
        for layer in rest:
            x = layer(x, edge, *ends, weight, bond)
        return AtomFeatures(x)

    def _weights(
        self, graph: CrystalGraph, distance: Float[Tensor, " edges"]
    ) -> tuple[Float[Tensor, " edges"] | None, Float[Tensor, " edges"]]:
        """Weight of every edge in sums and in means over neighbours."""
        if self.config.mode == "paper":
            degree = torch.bincount(graph.receiver, minlength=graph.atoms)
            return None, degree.to(distance.dtype).reciprocal()[graph.receiver]
        fade = envelope(distance, self.config.cutoff)
        return fade * self.config.neighbours**-0.5, fade / self.config.neighbours
