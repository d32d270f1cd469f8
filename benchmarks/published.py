r"""Crystalformer as its paper writes it: attention between atoms of a cell, with lattice sums.

.. math::
    y_i = \sum_j \mathrm{softmax}_j(q_i k_j / \sqrt d + \alpha_{ij}) (v_j + \beta_{ij}), \quad
    \alpha_{ij} = \log \sum_n e^{-\rho_i r_{ijn}^2 / 2 r_0^2}, \quad
    \beta_{ij} = \sum_n p_{ijn} W b(r_{ijn})

Source: arXiv:2403.11686. Sums run over a fixed number of cells to each side, as in the published
program where it has no CUDA kernels. Images beyond the model's cutoff are put out of reach, so that
the numbers are those of the flat-edge form.
"""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ase_crystalformer.encoders.crystalformer import Attention, Block, Config, Crystalformer
from ase_crystalformer.heads import PropertyHead
from ase_crystalformer.model import CrystalModel

OUT_OF_REACH = 1e3
"""Å, a distance at which every Gaussian is zero, and so is its slope."""


def lattice_distances(
    crystals: Sequence[Atoms], cells: int, cutoff: float
) -> Float[Tensor, "crystals atoms atoms images"]:
    """Distances from every atom to every atom in all cells from -``cells`` to ``cells``, Å."""
    steps = np.array(list(product(range(-cells, cells + 1), repeat=3)))
    tables = []
    for atoms in crystals:
        images = atoms.positions[:, None] + steps @ np.asarray(atoms.cell)
        tables.append(np.linalg.norm(images[None] - atoms.positions[:, None, None], axis=-1))
    distance = torch.tensor(np.stack(tables))
    return distance.masked_fill(distance >= cutoff, OUT_OF_REACH)


def cells_within(crystals: Sequence[Atoms], cutoff: float) -> int:
    """Count the cells to each side that hold every image within ``cutoff`` Å."""
    most = 0
    for atoms in crystals:
        height = 1 / np.linalg.norm(np.linalg.inv(atoms.cell), axis=0)
        spread = np.ptp(atoms.get_scaled_positions(wrap=False), axis=0)
        most = max(most, math.ceil((cutoff / height + spread).max()) - 1)
    return most


class Published(nn.Module):
    """A property model whose attention is computed by lattice sums.

    Args:
        model: The model, in ``paper`` mode; its weights are shared.
        sums_first: Sum the Gaussians over images before W acts on them, not after: the same
            numbers for less.
    """

    def __init__(self, model: CrystalModel, *, sums_first: bool = False) -> None:
        super().__init__()
        self.model = model
        self.sums_first = sums_first

    def forward(
        self,
        species: Int[Tensor, "crystals atoms"],
        distance: Float[Tensor, "crystals atoms atoms images"],
    ) -> Float[Tensor, "crystals outputs"]:
        """Predict the one target of the model, scaled."""
        encoder, head = self.model.encoder, self.model.head
        assert isinstance(encoder, Crystalformer)
        assert isinstance(head, PropertyHead)
        config = encoder.config
        fall = distance * distance / (2 * config.decay**2)
        basis = gaussians(distance, config)
        x = encoder.embedding(species - 1)
        for block in encoder.blocks:
            assert isinstance(block, Block)
            x = x + self._attend(block.attention, x, fall, basis)
            x = x + block.shrink(functional.relu(block.expand(x)))
        (tower,) = head.towers.values()
        return tower(x.mean(1))

    def _attend(
        self,
        attention: Attention,
        x: Float[Tensor, "crystals atoms width"],
        fall: Float[Tensor, "crystals atoms atoms images"],
        basis: Float[Tensor, "crystals atoms atoms images basis"],
    ) -> Float[Tensor, "crystals atoms width"]:
        q, k, v = (
            f(x).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for f in (attention.query, attention.key, attention.value)
        )
        asked = (q * attention.decay_weight[:, None]).sum(-1)
        asked = (asked + attention.decay_shift[:, None]) * attention.decay_scale[:, None]
        rho = 0.5 * functional.elu(0.2 * asked) + 1
        exponent = -rho[..., None, None] * fall[:, None]
        alpha = exponent.logsumexp(-1)
        share = torch.exp(exponent - alpha[..., None])
        beta = self._carried(share, basis, attention.position)
        weight = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]) + alpha, dim=-1)
        y = weight @ v + (weight[..., None] * beta).sum(-2)
        return attention.out(y.transpose(1, 2).flatten(2))

    def _carried(
        self,
        share: Float[Tensor, "crystals heads atoms atoms images"],
        basis: Float[Tensor, "crystals atoms atoms images basis"],
        position: Float[Tensor, "heads basis depth"],
    ) -> Float[Tensor, "crystals heads atoms atoms depth"]:
        """The lattice sum of encoded distances, beta."""
        if self.sums_first:
            return torch.einsum("chijn,cijnk->chijk", share, basis) @ position[:, None]
        field = torch.einsum("cijnk,hkd->chijnd", basis, position)
        return torch.einsum("chijn,chijnd->chijd", share, field)


def gaussians(distance: Float[Tensor, "*pairs"], config: Config) -> Float[Tensor, "*pairs basis"]:
    """Expand distances in Gaussians as wide as they are apart."""
    spacing = config.basis_radius / config.basis
    centre = spacing * torch.arange(1, config.basis + 1, dtype=distance.dtype)
    return torch.exp(-0.5 * ((distance[..., None] - centre) / spacing) ** 2)
