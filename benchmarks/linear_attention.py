"""Attention over all atoms, sums first, from 64 to 10,648 atoms; and over pairs, while they fit."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ase_crystalformer.mixer import MixerConfig
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.nn.linear_attention import HashAttention
from ase_crystalformer.nn.plane_waves import PlaneWaveAttention, PlaneWaves
from ase_crystalformer.nn.slots import CrystalSlots
from benchmarks.timing import Effort, Row, Way, compare

#: Cubic cells of MgO along each side of the crystal: 8 atoms times the third power.
SIDES = (2, 3, 5, 8, 11)

#: No more atoms than this in pairs, and in the whole potential.
MOST_PAIRS, MOST_WHOLE = 1000, 1000

#: Å, widths of the Gaussian of the distance: that of a new mixer, and twice as much. The number of
#: waves is three volumes over the third power of it.
REACHES = (MixerConfig().reach, 2 * MixerConfig().reach)

WIDTH = 128

Attend = Callable[[], tuple[Tensor, Tensor]]


def run(effort: Effort) -> list[Row]:
    """Attend and differentiate, in growing crystals; then ask what a mixer costs a potential."""
    rows: list[Row] = []
    sides = SIDES[:1] if effort.small else SIDES
    usual, wide = (partial(_smooth, reach=reach) for reach in REACHES)
    for compared in (usual, wide, _hashed, _whole):
        for side in sides:
            rows += compared(side, effort)
    return rows


def _smooth(side: int, effort: Effort, *, reach: float) -> list[Row]:
    """Smooth attention of a mixer of usual size, and its slopes."""
    config = MixerConfig(reach=reach)
    x, positions, cell = _crystal(side)
    layer = PlaneWaveAttention(WIDTH, config.channels, config.heads, config.features)
    periodic, crystal = torch.ones(1, 3, dtype=torch.bool), torch.zeros(len(x), dtype=torch.int64)

    def waves() -> tuple[Tensor, Tensor]:
        places = positions.clone().requires_grad_()
        drawn = PlaneWaves.build(places, cell, periodic, crystal, config.reach)
        return _with_slopes(layer(x, drawn), places)

    def pairs() -> tuple[Tensor, Tensor]:
        places = positions.clone().requires_grad_()
        query, key = (
            functional.softplus(linear(x)).unflatten(1, (config.heads, -1)).transpose(0, 1)
            for linear in (layer.query, layer.key)
        )
        weight = query @ key.mT * _gaussian(places, cell, config.reach)
        return _with_slopes(_mean(layer, weight, x), places)

    case = f"smooth attention, {reach:g} Å wide, over {len(x):,} atoms, with its slopes"
    return _compare(case, {"plane waves": waves, "pairs": pairs}, len(x), effort)


def _hashed(side: int, effort: Effort) -> list[Row]:
    """Hashed attention of published size, and its slopes by features."""
    x, _, _ = _crystal(side)
    layer = HashAttention(WIDTH, heads=8, bits=16, anchors=25)
    layer.fit(x)
    slots, one = CrystalSlots.build(torch.zeros(len(x), dtype=torch.int64), 1), torch.ones(len(x))

    def hashes() -> tuple[Tensor, Tensor]:
        given = x.clone().requires_grad_()
        return _with_slopes(layer(given, one, slots), given)

    def pairs() -> tuple[Tensor, Tensor]:
        given = x.clone().requires_grad_()
        bits = layer.hash(given).transpose(0, 1)
        return _with_slopes(_mean(layer, bits @ bits.mT + layer.bits + 1, given), given)

    case = f"hashed attention over {len(x):,} atoms, with its slopes"
    return _compare(case, {"hashes": hashes, "pairs": pairs}, len(x), effort)


def _whole(side: int, effort: Effort) -> list[Row]:
    """Energy, forces and stress by a potential, without and with a mixer that is new."""
    crystal = _mgo(side)
    if len(crystal) > MOST_WHOLE:
        return []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = CrystalModel("crystalformer", {}, energy_scale="none").eval()
        mixed = plain.with_mixer({})
    graph = plain.draw(crystal).to(dtype=torch.float32)

    def potential(model: CrystalModel) -> Attend:
        def attend() -> tuple[Tensor, Tensor]:
            result = model.energy(graph)
            assert result.forces is not None
            return result.energies, result.forces

        return attend

    ways = {"crystalformer": potential(plain), "crystalformer + mixer": potential(mixed)}
    case = f"energy, forces and stress of {len(crystal):,} atoms, {graph.edges:,} edges"
    return _compare(case, ways, len(crystal), effort, most=MOST_WHOLE)


def _compare(
    case: str, ways: dict[str, Attend], atoms: int, effort: Effort, most: int = MOST_PAIRS
) -> list[Row]:
    """Time the first way, and the others if there are not too many atoms for them."""
    contenders = [
        Way(name=name, run=attend, read=_numbers, items=(atoms, "atoms"))
        for name, attend in ways.items()
    ]
    return compare(case, contenders if atoms <= most else contenders[:1], effort, tolerance=1e-3)


def _mean(
    layer: HashAttention | PlaneWaveAttention,
    weight: Float[Tensor, "heads atoms atoms"],
    x: Float[Tensor, "atoms width"],
) -> Float[Tensor, "atoms width"]:
    """Mean of the values under one weight per pair of atoms and head."""
    value = layer.value(x).unflatten(1, (layer.heads, -1)).transpose(0, 1)
    mean = (weight @ value) / weight.sum(-1, keepdim=True)
    return layer.out(mean.transpose(0, 1).flatten(1))


def _gaussian(
    positions: Float[Tensor, "atoms 3"], cell: Float[Tensor, "1 3 3"], width: float
) -> Float[Tensor, "atoms atoms"]:
    """Lattice sum of the Gaussian in a rectangular cell: a product of sums along its edges."""
    product = positions.new_ones(len(positions), len(positions))
    for along, length in zip(positions.T, cell[0].diagonal().tolist(), strict=True):
        cells = int(8 * width / length) + 1
        apart = along[None] - along[:, None]
        total = torch.zeros_like(product)
        for number in range(-cells, cells + 1):
            total = total + torch.exp(-((apart + number * length) ** 2) / (2 * width**2))
        product = product * total
    return product


def _crystal(
    side: int,
) -> tuple[Float[Tensor, "atoms width"], Float[Tensor, "atoms 3"], Float[Tensor, "1 3 3"]]:
    """Arbitrary features of the atoms of a crystal, their positions, and the cell."""
    crystal = _mgo(side)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(crystal), WIDTH, generator=generator)
    return (
        x,
        torch.tensor(crystal.positions).float(),
        torch.tensor(crystal.cell.array)[None].float(),
    )


def _mgo(side: int) -> Atoms:
    crystal = bulk("MgO", "rocksalt", a=4.21, cubic=True).repeat(side)
    crystal.rattle(0.05, seed=0)
    return crystal


def _with_slopes(y: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
    (slope,) = torch.autograd.grad(y.square().mean(1).sum(), by)
    return y.detach(), slope


def _numbers(result: tuple[Tensor, Tensor]) -> NDArray[np.float64]:
    return np.concatenate([part.detach().double().numpy().ravel() for part in result])
