"""Where atoms and their images are, as sums of edge vectors.

Edges tell where a sender is seen from its receiver. A tree of edges places every atom, images of
neighbours included, in one common frame. Every place is a fixed sum of edge vectors, so that it
moves with atoms and cell as it should, and derivatives with respect to edge vectors add up to the
right forces and virial. Edge by edge those derivatives mean nothing: they sit on the tree.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Places:
    """Atoms and images of one common frame per connected group of atoms.

    Attributes:
        atom: Place of every atom, Å; an image of it, chosen to be near the others.
        group: Which group each atom belongs to.
        groups: How many there are.
        image: Place of every image some atom has as a neighbour, each once, Å.
        sender: The atom each image is of.
        of_edge: The image each edge comes from.
    """

    atom: Float[Tensor, "atoms 3"]
    group: Int[Tensor, " atoms"]
    groups: int
    image: Float[Tensor, "images 3"]
    sender: Int[Tensor, " images"]
    of_edge: Int[Tensor, " edges"]


def unfold(
    receiver: Int[Tensor, " edges"],
    sender: Int[Tensor, " edges"],
    cell: Int[Tensor, "edges 3"],
    vector: Float[Tensor, "edges 3"],
    atoms: int,
) -> Places:
    """Place atoms and images so that every edge is the difference of two places.

    Args:
        receiver: Where each edge ends.
        sender: Where it starts; every edge must come with its reverse.
        cell: In which cell, relative to the receiver's, the sender sits.
        vector: From receiver to sender.
        atoms: How many there are.
    """
    root = _roots(receiver, sender, atoms)
    atom, shift = _grow(root, receiver, sender, cell, vector)
    shift = cell + shift[receiver] - shift[sender]
    base = 2 * int(shift.abs().max()) + 1 if len(shift) else 1
    key = ((sender * base + shift[:, 0]) * base + shift[:, 1]) * base + shift[:, 2]
    found, of_edge = torch.unique(key, return_inverse=True)
    edge = torch.arange(len(key), device=key.device)
    first = torch.full_like(found, len(key)).scatter_reduce(0, of_edge, edge, "amin")
    names, group = torch.unique(root, return_inverse=True)
    atom = atom - _centres(atom.detach(), group)
    image = atom.index_select(0, receiver[first]) + vector.index_select(0, first)
    return Places(atom, group, len(names), image, sender[first], of_edge)


def _roots(
    receiver: Int[Tensor, " edges"], sender: Int[Tensor, " edges"], atoms: int
) -> Int[Tensor, " atoms"]:
    """Name every group of connected atoms by its first atom."""
    root = torch.arange(atoms, device=receiver.device)
    while True:
        lower = root.scatter_reduce(0, receiver, root[sender], "amin")
        lower = lower[lower]
        if torch.equal(lower, root):
            return root
        root = lower


def _grow(
    root: Int[Tensor, " atoms"],
    receiver: Int[Tensor, " edges"],
    sender: Int[Tensor, " edges"],
    cell: Int[Tensor, "edges 3"],
    vector: Float[Tensor, "edges 3"],
) -> tuple[Float[Tensor, "atoms 3"], Int[Tensor, "atoms 3"]]:
    """Grow trees from the roots, ring by ring: places, and in which cell they are."""
    atoms, edges = len(root), len(receiver)
    place = vector.new_zeros(atoms, 3)
    shift = cell.new_zeros(atoms, 3)
    reached = root == torch.arange(atoms, device=root.device)
    while True:
        edge = _outward(reached, receiver, sender)
        if not len(edge):
            return place, shift
        parent = root.new_full((atoms,), edges).scatter_reduce(0, sender[edge], edge, "amin")
        fresh = (parent < edges).nonzero()[:, 0]
        parent = parent[fresh]
        step = place.index_select(0, receiver[parent]) + vector.index_select(0, parent)
        place = place.index_add(0, fresh, step)
        shift = shift.index_add(0, fresh, shift[receiver[parent]] + cell[parent])
        reached = reached.index_fill(0, fresh, True)


def _outward(
    reached: Bool[Tensor, " atoms"], receiver: Int[Tensor, " edges"], sender: Int[Tensor, " edges"]
) -> Int[Tensor, " fresh"]:
    """Edges from an atom that has a place to one that has none."""
    return (reached[receiver] & ~reached[sender]).nonzero()[:, 0]


def _centres(
    place: Float[Tensor, "atoms 3"], group: Int[Tensor, " atoms"]
) -> Float[Tensor, "atoms 3"]:
    """Mean place of each atom's group: solid harmonics cancel badly far from the origin."""
    total = torch.zeros_like(place).index_add(0, group, place)
    count = torch.bincount(group, minlength=len(group)).clamp(min=1)
    return (total / count[:, None])[group]
