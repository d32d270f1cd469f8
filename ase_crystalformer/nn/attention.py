"""Softmax over neighbours, each of which may fade away."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: Fade below which a term may be forgotten: its inverse is still a number in float32.
FAINTEST = 1e-30


def fading_softmax(
    score: Float[Tensor, "rows heads"],
    fade: Float[Tensor, "rows heads"],
    receiver: Int[Tensor, " rows"],
    own: Float[Tensor, "atoms heads"],
) -> tuple[Float[Tensor, "rows heads"], Float[Tensor, "atoms heads"]]:
    r"""Weights of neighbours per unit of their fade, and of the atom itself.

    .. math::
        w_{ij} = \frac{e^{s_{ij}}}{e^{o_i} + \sum_k f_{ik} e^{s_{ik}}}, \quad
        w_i = \frac{e^{o_i}}{e^{o_i} + \sum_k f_{ik} e^{s_{ik}}}

    The weight of a neighbour is :math:`f_{ij} w_{ij}`; left apart, because whoever groups rows (the
    images of one pair, say) multiplies later. The term of the atom itself keeps an atom whose last
    neighbour leaves well defined; give ``-inf`` to go without, then an atom alone has weights 0.

    Args:
        score: :math:`s`, of any size.
        fade: :math:`f \ge 0`, zero where a neighbour ends.
        receiver: The atom :math:`i` of each row, in any order.
        own: :math:`o`, of the atom itself.
    """
    index = receiver[:, None].expand_as(score)
    # The largest term, fade included: else a high score far away leaves 0 / 0.
    term = torch.where(fade > FAINTEST, score + fade.clamp(min=FAINTEST).log(), -torch.inf)
    largest = own.detach().scatter_reduce(0, index, term.detach(), "amax")
    largest = torch.where(largest.isfinite(), largest, 0)
    score = (score - largest.index_select(0, receiver)).clamp(max=-math.log(FAINTEST))
    weight, own = torch.exp(score), torch.exp(own - largest)
    # A sum is one at least, but for an atom alone.
    total = own.index_add(0, receiver, weight * fade).clamp(min=0.5)
    return weight / total.index_select(0, receiver), own / total


def fading_softmax_of_blocks(
    score: Float[Tensor, "blocks heads size"],
    fade: Float[Tensor, "blocks size"],
    receiver: Int[Tensor, " blocks"],
    own: Float[Tensor, "atoms heads"],
) -> tuple[Float[Tensor, "blocks heads size"], Float[Tensor, "atoms heads"]]:
    """Weigh neighbours, their fade included, that are laid out in blocks of one receiver each.

    The numbers are those of ``fading_softmax``; what is the same in a block is looked up once.

    Args:
        score: Of any size, and of anything where a slot is padding.
        fade: Zero where a neighbour ends or a slot is padding.
        receiver: The atom of each block.
        own: Score of the atom itself, finite.
    """
    faded = torch.where(fade > FAINTEST, fade.detach().clamp(min=FAINTEST).log(), -torch.inf)
    highest = (score.detach() + faded[:, None]).amax(2)
    index = receiver[:, None].expand_as(highest)
    largest = own.detach().scatter_reduce(0, index, highest, "amax")
    score = score - largest.index_select(0, receiver)[:, :, None]
    weight = torch.exp(score.clamp(max=-math.log(FAINTEST))) * fade[:, None]
    own = torch.exp(own - largest)
    # One term at least is one.
    share = 1 / own.index_add(0, receiver, weight.sum(2))
    return weight * share.index_select(0, receiver)[:, :, None], own * share
