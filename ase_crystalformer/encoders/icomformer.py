r"""iComFormer: gated attention over neighbours, with the angles of edges to three references.

K. Yan, C. Fu, X. Qian, X. Qian, S. Ji, "Complete and Efficient Graph Transformers for Crystal
Material Property Prediction", ICLR 2024, arXiv:2403.11857.

Atoms are updated by gated messages along edges (``nn.gated``). After the first update, edges are
themselves updated, by messages from three references: their lengths and the angles to them.

``paper`` mode follows the publication. Its graph joins nearest neighbours and lattice steps, its
references are the three shortest lattice vectors, its norms are batch norms, its atoms start from
CGCNN's table of the elements.

``smooth`` mode is for potentials. The graph is all neighbours within a cutoff, and an envelope
multiplies every message. Lattice vectors jump between equal lengths, depend on how a cell is
written and do not exist for a slab, so the references are moments of the surroundings
(``nn.reference``), which is our own construction. Without batch norms, no crystal depends on others
in its batch; elements are embedded freely, since the table cannot tell some of them apart.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ase_crystalformer.encoders.base import AtomFeatures, Broken, Claims, Encoder
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.neighbours import Nearest, Radius
from ase_crystalformer.nn.bonds import bonds, mean_of_bonds
from ase_crystalformer.nn.elements import ElementEmbedding, ElementProperties
from ase_crystalformer.nn.expansion import Expansion
from ase_crystalformer.nn.gated import GatedEdges, GatedNodes
from ase_crystalformer.nn.radial import envelope, norm
from ase_crystalformer.nn.reference import LocalReference
from ase_crystalformer.nn.starts import keep_scale

CITATION = (
    "@inproceedings{yan2024comformer, title={Complete and Efficient Graph Transformers for Crystal "
    "Material Property Prediction}, author={Yan, Keqiang and Fu, Cong and Qian, Xiaofeng and Qian, "
    "Xiaoning and Ji, Shuiwang}, booktitle={ICLR}, year={2024}}"
)

#: Features of bonds, and the bond of each edge: distances are the same there and back.
Bonded = tuple[Float[Tensor, "bonds width"], Int[Tensor, " edges"]]

PAPER_CLAIMS = Claims(
    reflection=Broken(because="lattice vectors are right-handed: it tells mirror images apart"),
    orbits=Broken(because="equivalent atoms see the lattice vectors at different angles"),
    smooth=Broken(because="nearest neighbours and shortest lattice vectors change suddenly"),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Size and flavour of an iComFormer; the defaults are the published ones.

    Attributes:
        mode: ``smooth`` for potentials, ``paper`` for the published formulation.
        cutoff: Radius of the graph, Å (``smooth`` only).
        neighbours: Typical number of neighbours; sums are divided by its root (``smooth`` only).
        moments: Moments of each degree that serve as references (``smooth`` only).
        elements: Largest atomic number (``smooth`` only).
        nearest: Neighbours each atom has at least (``paper`` only).
        width: Channels per atom and per edge.
        layers: Updates of the atoms.
        basis: Gaussians that distances and cosines are expanded in.
    """

    mode: Literal["smooth", "paper"] = "smooth"
    cutoff: float = 5.0
    neighbours: float = 40.0
    moments: int = 32
    elements: int = 98
    nearest: int = 25
    width: int = 256
    layers: int = 4
    basis: int = 256

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(
                f"layers is {self.layers}; at least one update of the atoms is needed."
            )


class IComFormer(Encoder):
    """The invariant ComFormer: distances and angles."""

    citation = CITATION

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.width = width = config.width
        paper = config.mode == "paper"
        self.rule = Nearest(config.nearest) if paper else Radius(config.cutoff)
        self.claims = PAPER_CLAIMS if paper else Claims()
        self.atoms = ElementProperties(width) if paper else ElementEmbedding(config.elements, width)
        self.lengths = Expansion(-4.0, 0.0, config.basis, width)
        self.nodes = nn.ModuleList(GatedNodes(width, paper) for _ in range(config.layers))
        self.edges = GatedEdges(width, width if paper else config.moments, paper)
        if paper:
            self.cosines = Expansion(-1.0, 1.0, config.basis, width)
        else:
            self.reference = LocalReference(width, config.moments)
            keep_scale(self)

    def forward(self, graph: CrystalGraph) -> AtomFeatures:
        distance = norm(graph.vector)
        bond = _bonds(graph)
        edge = self.lengths(-0.75 / mean_of_bonds(distance, bond))
        x = self.atoms(graph.species)
        update = self._with_lattice if self.config.mode == "paper" else self._with_surroundings
        return AtomFeatures(update(graph, x, (edge, bond), distance))

    def _with_lattice(
        self,
        graph: CrystalGraph,
        x: Float[Tensor, "atoms width"],
        edges: Bonded,
        distance: Float[Tensor, " edges"],
    ) -> Float[Tensor, "atoms width"]:
        """Update atoms and edges; references are the lattice vectors of each crystal."""
        edge, bond = edges
        first, *rest = self.nodes
        x = first(x, edge, graph.receiver, graph.sender, bond=bond)
        crystal = graph.crystal[graph.receiver]
        length = norm(graph.cell)
        unit = (graph.cell / length[..., None]).index_select(0, crystal)
        cosine = torch.einsum("ec,ekc->ek", graph.vector / distance[:, None], unit)
        reference = self.lengths(-0.75 / length)
        edge = self.edges(edge, reference, crystal, self.cosines(cosine), bond)
        for layer in rest:
            x = layer(x, edge, graph.receiver, graph.sender)
        return x

    def _with_surroundings(
        self,
        graph: CrystalGraph,
        x: Float[Tensor, "atoms width"],
        edges: Bonded,
        distance: Float[Tensor, " edges"],
    ) -> Float[Tensor, "atoms width"]:
        """Update atoms and edges; references are moments of each atom's surroundings."""
        edge, bond = edges
        config = self.config
        ends = (graph.receiver, graph.sender)
        weight = envelope(distance, config.cutoff) * config.neighbours**-0.5
        first, *rest = self.nodes
        x = first(x, edge, *ends, weight, bond)
        unit = graph.vector / distance[:, None]
        reference, angle = self.reference(x, edge.index_select(0, bond), unit, weight, ends)
        edge = self.edges(edge, reference, graph.receiver, angle, bond)
        for layer in rest:
            x = layer(x, edge, *ends, weight)
        return x


def _bonds(graph: CrystalGraph) -> Int[Tensor, " edges"]:
    """Number the bonds; where one atom stands for its orbit, edges and reverses are unlike."""
    if bool((graph.multiplicity != 1).any()):
        return torch.arange(graph.edges, device=graph.receiver.device)
    return bonds(graph.receiver, graph.sender, graph.image)
