"""Bonds: an edge and its reverse, which are equally long."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def bonds(
    receiver: Int[Tensor, " edges"], sender: Int[Tensor, " edges"], image: Int[Tensor, "edges 3"]
) -> Int[Tensor, " edges"]:
    """Number the bonds: an edge and its reverse have the same number, all others another.

    Functions of the distance are best computed once per bond. An edge without a reverse is a bond
    of its own.

    Args:
        receiver: Of every edge.
        sender: Of every edge.
        image: In which cell, relative to the receiver's, the sender sits.
    """
    if receiver.shape[0] == 0:
        return receiver
    reach = image.abs().amax() + 1
    place = image[:, 0]
    for step in image.unbind(1)[1:]:
        place = place * 2 * reach + step
    atoms = torch.maximum(receiver, sender).amax() + 1
    pair = torch.minimum(receiver, sender) * atoms + torch.maximum(receiver, sender)
    place = torch.where(receiver == sender, place.abs(), place * (sender - receiver).sign())
    farthest = 2 * (2 * reach) ** 3
    return torch.unique(pair * farthest + place, return_inverse=True)[1]


def mean_of_bonds(
    values: Float[Tensor, " edges"], bond: Int[Tensor, " edges"]
) -> Float[Tensor, " bonds"]:
    """Average over the two edges of every bond."""
    count = torch.bincount(bond)
    return values.new_zeros(count.shape[0]).index_add(0, bond, values) / count
