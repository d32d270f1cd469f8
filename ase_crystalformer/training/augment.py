"""Turn and mirror crystals at random, labels along: data teach what an encoder does not know."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ase_crystalformer.data.loader import Batch


def orthogonal(number: int, seed: Sequence[int]) -> Float[Tensor, "number 3 3"]:
    """Draw rotations uniformly, and mirror every other one on average; in float64.

    Rotations are those of unit quaternions of random direction.

    Args:
        number: How many.
        seed: Any non-negative numbers; the same numbers give the same matrices on every machine.
    """
    random = np.random.default_rng(seed)
    w, x, y, z = random.standard_normal((4, number))
    sign = random.choice([-1.0, 1.0], number)
    rows = [
        [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
    ]
    matrix = sign / (w * w + x * x + y * y + z * z) * np.array(rows)
    return torch.from_numpy(np.ascontiguousarray(matrix.transpose(2, 0, 1)))


def turned(batch: Batch, turn: Float[Tensor, "crystals 3 3"]) -> Batch:
    """Apply one orthogonal matrix to each crystal, and to the vectors and the stress it has."""
    graph, labels = batch
    turn = turn.to(graph.vector)
    by_atom = turn[graph.crystal]

    def vectors(values: Tensor, matrix: Tensor) -> Tensor:
        return torch.einsum("...ij,...j->...i", matrix.to(values), values)

    moved = replace(
        graph,
        positions=vectors(graph.positions, by_atom),
        cell=vectors(graph.cell, turn[:, None]),
        vector=vectors(graph.vector, by_atom[graph.receiver]),
    )
    labels = dict(labels)
    for name in {"forces", "noise"} & labels.keys():
        labels[name] = vectors(labels[name], by_atom)
    if "stress" in labels:
        stress = labels["stress"]
        matrix = turn.to(stress)
        labels["stress"] = matrix @ stress @ matrix.mT
    return moved, labels
