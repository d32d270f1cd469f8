r"""Sums over neighbours of tensor products with the directions of edges, on edges or on atoms.

.. math:: y_i = \sum_e w^l_e \, [h_{j(e)} \otimes Y_l(\hat r_e)]_o, \quad l = 0 \dots L

for every coupling of degrees; weights are per edge, order l and head, a group of channels. As often
written, it couples on every edge. Both ways here couple on atoms only, and give the same numbers.

``EdgeSums`` sums the plain products :math:`w^l_e h_j Y_l`, one matrix product per atom, and couples
the sums. ``NodeSums`` couples neighbours to solid harmonics of their places first
(``nn.recoupling``), so that an edge is one number in a matrix of all atoms times all images: best
where nearly all pairs are neighbours. Its rounding errors grow as the square of the size of the
system over the shortest edges.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ase_crystalformer.nn.blocks import EdgeBlocks
from ase_crystalformer.nn.equivariant import Directed
from ase_crystalformer.nn.recoupling import Couplings, part, solid_harmonics, tables
from ase_crystalformer.nn.unfolding import Places

BLOCK = 16
"""Edges per matrix product."""

EDGES_PER_IMAGE = 24
"""From here on ``NodeSums`` may be faster; measured by ``benchmarks.recoupling``."""

SLOTS_PER_EDGE = 3
"""Entries of its matrices, most of them zero, up to which it still is."""

Maps = Float[Tensor, "_ _ _"]
"""Places, rows, columns: a matrix for every place."""


@dataclass(frozen=True, eq=False)
class EdgeSums:
    """Sums of plain products over edges, coupled on atoms.

    Attributes:
        blocks: Edges of every receiver.
        harmonics: Of the direction of every edge; zero in empty slots.
        sender: Which head of which atom is in each slot.
    """

    blocks: EdgeBlocks
    harmonics: Float[Tensor, "blocks harmonics size"]
    sender: Int[Tensor, " entries"]

    @staticmethod
    def build(
        receiver: Int[Tensor, " edges"],
        sender: Int[Tensor, " edges"],
        vector: Float[Tensor, "edges 3"],
        atoms: int,
        order: int,
        heads: int,
    ) -> "EdgeSums":
        """Lay out edges that are sorted by receiver."""
        blocks = EdgeBlocks.build(receiver, atoms, BLOCK)
        unit = vector * (vector * vector).sum(-1, keepdim=True).rsqrt()
        harmonics = blocks.spread(solid_harmonics(unit, order), 0.0).mT
        head = torch.arange(heads, device=sender.device)
        entries = blocks.spread_index(sender)[:, None] * heads + head[:, None]
        return EdgeSums(blocks, harmonics, entries.flatten())

    def __call__(
        self,
        x: Float[Tensor, "atoms components width"],
        weight: Float[Tensor, "edges orders heads"],
        couplings: Couplings,
    ) -> Directed:
        """Convolve features of all degrees, one below the other."""
        total = self._sum(x, weight)
        known = tables(couplings, total.dtype, x.device).whole
        results = [
            torch.matmul(table.flatten(1), total[:, part(order)].flatten(1, 2))
            for order, table in enumerate(known)
        ]
        return couplings.collect(results)

    def _sum(
        self,
        x: Float[Tensor, "atoms components width"],
        weight: Float[Tensor, "edges orders heads"],
    ) -> Float[Tensor, "atoms harmonics components width"]:
        """Sum harmonics times features over the neighbours of every atom."""
        atoms, components, width = x.shape
        heads, harmonics = weight.shape[2], self.harmonics.shape[1]
        owner, each = self.blocks.receiver, components * width // heads
        per_head = x.unflatten(2, (heads, -1)).transpose(1, 2).reshape(atoms * heads, each)
        sent = per_head.index_select(0, self.sender).view(-1, self.blocks.size, each)
        per_block = torch.bmm(self._factors(weight).flatten(0, 1), sent)
        per_block = per_block.view(len(owner), heads * harmonics * each)
        total = per_block.new_zeros(atoms, per_block.shape[1]).index_add(0, owner, per_block)
        total = total.view(atoms, heads, harmonics, components, -1).permute(0, 2, 3, 1, 4)
        return total.reshape(atoms, harmonics, components, width)

    def _factors(
        self, weight: Float[Tensor, "edges orders heads"]
    ) -> Float[Tensor, "blocks heads harmonics size"]:
        """Multiply harmonics by their weights."""
        spread = self.blocks.spread(weight, 0.0).permute(0, 2, 3, 1)
        return torch.cat(
            [
                spread[:, order, :, None] * self.harmonics[:, None, part(order)]
                for order in range(weight.shape[1])
            ],
            dim=2,
        )


@dataclass(frozen=True, eq=False)
class NodeSums:
    """Sums of coupled products over images, by one matrix of weights per group of atoms.

    Groups of atoms that no edge joins are padded to the same size.

    Attributes:
        shape: Groups, atoms per group, images per group.
        sender: The atom in each slot for images; any where the slot is empty.
        atom_slot: The slot of each atom.
        edge_slot: The entry of each edge in the matrices.
        decay: ``|r|^-l`` of each edge.
        there: Solid harmonics of the place of each image.
        here: Of minus the place of each atom.
        maps: What ``_maps`` found before.
    """

    shape: tuple[int, int, int]
    sender: Int[Tensor, " images"]
    atom_slot: Int[Tensor, " atoms"]
    edge_slot: Int[Tensor, " edges"]
    decay: Float[Tensor, "edges orders"]
    there: Float[Tensor, "images harmonics"]
    here: Float[Tensor, "atoms harmonics"]
    maps: dict[Couplings, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    @staticmethod
    def build(
        receiver: Int[Tensor, " edges"],
        vector: Float[Tensor, "edges 3"],
        places: Places,
        order: int,
    ) -> "NodeSums":
        """Lay out the places of atoms and images."""
        groups, of_image = places.groups, places.group[places.sender]
        atom, atoms = _ranks(places.group, groups)
        image, images = _ranks(of_image, groups)
        image_slot = of_image * images + image
        taken = image_slot.new_zeros(groups * images)
        taken = taken.scatter(0, image_slot, torch.arange(len(image), device=taken.device))
        atom_slot = places.group * atoms + atom
        inverse = (vector * vector).sum(-1).rsqrt()
        return NodeSums(
            shape=(groups, atoms, images),
            sender=places.sender[taken],
            atom_slot=atom_slot,
            edge_slot=atom_slot[receiver] * images + image[places.of_edge],
            decay=torch.stack([inverse**degree for degree in range(order + 1)], dim=1),
            there=solid_harmonics(places.image.index_select(0, taken), order),
            here=solid_harmonics(-places.atom, order),
        )

    def __call__(
        self,
        x: Float[Tensor, "atoms components width"],
        weight: Float[Tensor, "edges orders heads"],
        couplings: Couplings,
    ) -> Directed:
        """Convolve features of all degrees, one below the other."""
        # Large terms cancel: short products, where precision is mixed, would leave nothing.
        with torch.autocast(x.device.type, enabled=False):
            sent = x.to(self.here).index_select(0, self.sender)
            matrices = self._matrices(weight.to(self.here))
            results = [
                torch.bmm(after, self._sum(matrices[order], torch.bmm(before, sent)))
                for order, (before, after) in enumerate(self._maps(couplings))
            ]
        return couplings.collect(results)

    def _matrices(
        self, weight: Float[Tensor, "edges orders heads"]
    ) -> Float[Tensor, "orders groups heads atoms images"]:
        """Write weights of edges into a matrix per order, group and head."""
        groups, atoms, images = self.shape
        entries = (weight * self.decay[..., None]).flatten(1)
        dense = entries.new_zeros(groups * atoms * images, entries.shape[1])
        dense = dense.index_copy(0, self.edge_slot, entries)
        return dense.view(groups, atoms, images, *weight.shape[1:]).permute(3, 0, 4, 1, 2)

    def _sum(
        self,
        matrix: Float[Tensor, "groups heads group_atoms group_images"],
        sent: Float[Tensor, "images rows width"],
    ) -> Float[Tensor, "atoms rows width"]:
        groups, heads, atoms, images = matrix.shape
        rows, width = sent.shape[1:]
        sent = sent.view(groups, images, rows, heads, width // heads).permute(0, 3, 1, 2, 4)
        total = torch.matmul(matrix, sent.flatten(3))
        total = total.view(groups, heads, atoms, rows, width // heads).permute(0, 2, 3, 1, 4)
        return total.reshape(groups * atoms, rows, width).index_select(0, self.atom_slot)

    def _maps(self, couplings: Couplings) -> list[tuple[Maps, Maps]]:
        """Contract constants with harmonics: maps before and after the sum, per order."""
        if couplings not in self.maps:
            known = tables(couplings, self.here.dtype, self.here.device)
            self.maps[couplings] = [
                (_at(self.there, before), _at(self.here, after))
                for before, after in zip(known.before, known.after, strict=True)
            ]
        return self.maps[couplings]


def nodes_may_pay(edges: int, crystal: Int[Tensor, " atoms"]) -> bool:
    """Whether ``nodes_pay`` is worth asking.

    An image has no more edges than its crystal has atoms, nor more than atoms have on average.
    """
    most = min(int(torch.bincount(crystal).max()), edges // len(crystal))
    return most >= EDGES_PER_IMAGE


def nodes_pay(edges: int, places: Places) -> bool:
    """Whether ``NodeSums`` is the faster way."""
    groups, of_image = places.groups, places.group[places.sender]
    slots = groups * _ranks(places.group, groups)[1] * _ranks(of_image, groups)[1]
    return edges >= EDGES_PER_IMAGE * len(places.sender) and SLOTS_PER_EDGE * edges >= slots


def _at(harmonics: Float[Tensor, "places _"], table: Float[Tensor, "rows _ columns"]) -> Maps:
    """Contract a table with the harmonics of every place."""
    rows, known, columns = table.shape
    maps = harmonics[:, :known] @ table.transpose(0, 1).flatten(1)
    return maps.view(len(harmonics), rows, columns)


def _ranks(group: Int[Tensor, " items"], groups: int) -> tuple[Int[Tensor, " items"], int]:
    """Number the members of every group; return the size of the largest, too."""
    count = torch.bincount(group, minlength=groups)
    order = torch.argsort(group, stable=True)
    running = torch.arange(len(group), device=group.device)
    rank = torch.empty_like(group).scatter(0, order, running)
    return rank - (count.cumsum(0) - count)[group], int(count.max())
