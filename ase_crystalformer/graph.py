"""A crystal as a graph: atoms, and directed edges to every neighbour image.

Axes have the same names in the whole package:

========== ==========================================================
atoms      atoms of all crystals in the batch
edges      ordered pairs (receiver, image of sender)
crystals   crystals in the batch
width      channels of a feature
heads      attention heads
basis      functions a distance or a direction is expanded in
3          x, y, z, or the three cell vectors
========== ==========================================================
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class CrystalGraph:
    """One crystal, or many: a batch is the same type.

    Edges are sorted by receiver, then by sender. ``vector`` is what models differentiate: forces
    and the virial follow from it. Where an encoder reads ``positions`` and ``cell`` as well, they
    follow from all three.

    Attributes:
        species: Atomic numbers.
        positions: Cartesian, Å.
        cell: Rows are the cell vectors, Å. Zero rows where the crystal has none.
        periodic: Along which cell vectors the crystal repeats.
        crystal: Which crystal each atom belongs to, ascending.
        multiplicity: How many atoms of the crystal each atom stands for; 1, but in a graph reduced
            by symmetry, which keeps one atom per orbit.
        receiver: The atom an edge informs, ascending.
        sender: The atom it tells about.
        image: In which cell, relative to the receiver's, the sender sits.
        vector: ``positions[sender] + image @ cell - positions[receiver]``, Å.
    """

    species: Int[Tensor, " atoms"]
    positions: Float[Tensor, "atoms 3"]
    cell: Float[Tensor, "crystals 3 3"]
    periodic: Bool[Tensor, "crystals 3"]
    crystal: Int[Tensor, " atoms"]
    multiplicity: Float[Tensor, " atoms"]
    receiver: Int[Tensor, " edges"]
    sender: Int[Tensor, " edges"]
    image: Int[Tensor, "edges 3"]
    vector: Float[Tensor, "edges 3"]

    @property
    def atoms(self) -> int:
        """Number of atoms."""
        return self.species.shape[0]

    @property
    def edges(self) -> int:
        """Number of directed edges."""
        return self.receiver.shape[0]

    @property
    def crystals(self) -> int:
        """Number of crystals."""
        return self.cell.shape[0]

    @property
    def volume(self) -> Float[Tensor, " crystals"]:
        """Cell volume, Å³; of either handedness, zero where the cell is not three-dimensional."""
        return torch.linalg.det(self.cell).abs()

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "CrystalGraph":
        """Move to a device and cast the real-valued tensors."""
        moved = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            cast = dtype if tensor.is_floating_point() else None
            moved[field.name] = tensor.to(device=device, dtype=cast)
        return type(self)(**moved)

    def recorded(self) -> "CrystalGraph":
        """Return a graph autograd can use, even if this one was made in inference mode."""
        if not self.vector.is_inference():
            return self
        return CrystalGraph(**{f.name: getattr(self, f.name).clone() for f in fields(self)})

    def with_vector(self, vector: Float[Tensor, "edges 3"]) -> "CrystalGraph":
        """Return the same graph around other edge vectors, e.g. a leaf to differentiate."""
        return replace(self, vector=vector)

    def moved(
        self, positions: Float[Tensor, "atoms 3"], cell: Float[Tensor, "crystals 3 3"]
    ) -> "CrystalGraph":
        """Return the same edges with atoms and cell elsewhere."""
        vector = edge_vectors(positions, cell, self)
        return replace(self, positions=positions, cell=cell, vector=vector)


def edge_vectors(
    positions: Float[Tensor, "atoms 3"], cell: Float[Tensor, "crystals 3 3"], graph: CrystalGraph
) -> Float[Tensor, "edges 3"]:
    """Draw every edge from its receiver to the image of its sender, Å."""
    image = graph.image.to(positions.dtype)
    shift = torch.einsum("ei,eij->ej", image, cell[graph.crystal[graph.receiver]])
    return positions[graph.sender] + shift - positions[graph.receiver]


def collate(graphs: Sequence[CrystalGraph]) -> CrystalGraph:
    """Put crystals side by side in one graph; no edge joins two of them."""
    offsets, counts = [0], [0]
    for graph in graphs:
        offsets.append(offsets[-1] + graph.atoms)
        counts.append(counts[-1] + graph.crystals)
    shift = {"crystal": counts, "receiver": offsets, "sender": offsets}
    joined = {}
    for field in fields(CrystalGraph):
        parts = [getattr(graph, field.name) for graph in graphs]
        if field.name in shift:
            parts = [part + by for part, by in zip(parts, shift[field.name], strict=False)]
        joined[field.name] = torch.cat(parts)
    return CrystalGraph(**joined)
