"""Attention whose sums over atoms come first, against the same attention written over pairs."""

from itertools import product

import numpy as np
import pytest
import torch

from ase_crystalformer.graph import collate
from ase_crystalformer.neighbours import Radius, build
from ase_crystalformer.nn.linear_attention import HashAttention, bits_of
from ase_crystalformer.nn.plane_waves import PlaneWaveAttention, PlaneWaves
from ase_crystalformer.nn.slots import CrystalSlots
from ase_crystalformer.testing import crystals as shapes
from ase_crystalformer.testing import randomised

RULE = Radius(4.0)
WIDTH = 1.5


@pytest.fixture
def batch():
    return collate([build(crystal, RULE) for crystal in shapes.general(RULE).values()])


@pytest.fixture
def hashes():
    return randomised(HashAttention(12, heads=2, bits=5, anchors=7)).double()


@pytest.fixture
def attention():
    return randomised(PlaneWaveAttention(12, channels=8, heads=2, features=3)).double()


def waves_of(graph, width=WIDTH, **changes):
    read = {name: getattr(graph, name) for name in ("positions", "cell", "periodic", "crystal")}
    return PlaneWaves.build(**read | changes, width=width)


def features(graph, width=12):
    return torch.randn(graph.atoms, width, dtype=torch.float64)


def lattice_sum(crystal, width):
    """Sum the Gaussian over all images closer than nine widths."""
    cell = crystal.cell[crystal.periodic]
    reach = 9 * width + 2 * np.abs(crystal.positions).sum(1).max()
    most = np.ceil(reach * np.linalg.norm(np.linalg.pinv(cell), axis=0)).astype(int)
    shifts = np.array(list(product(*[range(-n, n + 1) for n in most]))) @ cell
    apart = crystal.positions[None] - crystal.positions[:, None]
    square = ((apart[:, :, None] + shifts) ** 2).sum(-1)
    return torch.from_numpy(np.exp(-square / (2 * width**2)).sum(-1))


# ------------------------------------------------------------------------------------ hashes


def test_bits_are_signs_with_the_slope_of_what_is_near_zero(dtype):
    score = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0], dtype=dtype, requires_grad=True)
    bits = bits_of(score)
    assert bits.tolist() == [-1, -1, 1, 1, 1]
    bits.sum().backward()
    assert score.grad.tolist() == [0, 1, 1, 1, 0]


def test_a_hash_compares_with_anchors(hashes, batch):
    x = features(batch)
    bits = hashes.hash(x)
    for atom, head in product((0, 3, 7), range(2)):
        query = hashes.query(x)[atom].reshape(2, 6)[head]
        query = query / query.norm()
        near = torch.stack([(-0.5 * (query - a).square().sum()).exp() for a in hashes.anchor[head]])
        score = hashes.projection[head] @ (near - hashes.mean[head])
        assert bits[atom, head].tolist() == torch.sign(score).tolist()


def test_hashed_attention_is_the_mean_under_shared_bits(hashes, batch):
    x, weight = features(batch), torch.rand(batch.atoms, dtype=torch.float64)
    given = hashes(x, weight, CrystalSlots.build(batch.crystal, batch.crystals))
    bits, value = hashes.hash(x), hashes.value(x).unflatten(1, (2, -1))
    similarity = torch.einsum("ihb,jhb->hij", bits, bits) + hashes.bits + 1
    assert similarity.min() >= 1
    share = similarity * (batch.crystal[:, None] == batch.crystal) * weight
    share = share / share.sum(-1, keepdim=True)
    expected = hashes.out(torch.einsum("hij,jhd->ihd", share, value).flatten(1))
    torch.testing.assert_close(given, expected)


def test_fitted_bits_tell_similar_from_dissimilar():
    hashes = HashAttention(16, heads=2, bits=16, anchors=25).double()
    x = torch.randn(120, 16, dtype=torch.float64) * torch.linspace(2, 0.1, 16)
    query = torch.nn.functional.normalize(hashes.query(x).unflatten(1, (2, -1)), dim=-1)
    likeness = torch.einsum("ihd,jhd->hij", query, query)
    most, least = likeness.topk(10).indices, likeness.topk(10, largest=False).indices

    def error():
        """Mean square of how far the most similar are from 1, and the least from -1."""
        bits = hashes.hash(x)
        shared = torch.einsum("ihb,jhb->hij", bits, bits) / hashes.bits
        misses = torch.cat([1 - shared.gather(2, most), 1 + shared.gather(2, least)])
        return misses.square().mean().item()

    before = error()
    hashes.fit(x)
    assert error() < 0.8 * before


def test_few_atoms_are_enough_to_fit(hashes):
    hashes.fit(torch.randn(3, 12, dtype=torch.float64))
    assert hashes.projection.isfinite().all()


@pytest.mark.parametrize("atoms", [1, 4])
def test_atoms_that_are_all_the_same_cannot_be_told_apart(hashes, atoms):
    """As they are in most crystals of one element: bits would be made of rounding."""
    before = {name: value.clone() for name, value in hashes.state_dict().items()}
    with pytest.raises(ValueError, match="the same features"):
        hashes.fit(torch.randn(1, 12, dtype=torch.float64).expand(atoms, 12))
    assert all(torch.equal(value, before[name]) for name, value in hashes.state_dict().items())


def test_every_weight_of_hashed_attention_learns(hashes, batch):
    x = features(batch).requires_grad_()
    hashes(
        x, batch.multiplicity, CrystalSlots.build(batch.crystal, batch.crystals)
    ).sum().backward()
    assert all(weight.grad.any() for weight in [x, *hashes.parameters()])


# ------------------------------------------------------------------------------- plane waves


@pytest.mark.parametrize("name", shapes.general(RULE))
@pytest.mark.parametrize("width", [1.0, 1.7])
def test_waves_add_up_to_gaussians_of_all_images(name, width):
    crystal = shapes.general(RULE)[name]
    graph = build(crystal, RULE)
    given = waves_of(graph, width).spread(torch.eye(graph.atoms, dtype=torch.float64))
    expected = lattice_sum(crystal, width)
    torch.testing.assert_close(given, expected, rtol=1e-8, atol=1e-8)


def test_sums_by_waves_and_by_pairs_are_the_same(batch):
    places = batch.positions.clone().requires_grad_()
    waves, density = waves_of(batch, positions=places), features(batch, 1)
    by_waves = waves.spread(density)
    assert "kernel" not in vars(waves)
    by_pairs = waves.spread(density.expand(-1, 200))
    assert "kernel" in vars(waves)
    torch.testing.assert_close(by_pairs, by_waves.expand(-1, 200), rtol=1e-12, atol=1e-12)
    slopes = [
        torch.autograd.grad(sums[:, :1].square().sum(), places, retain_graph=True)[0]
        for sums in (by_waves, by_pairs)
    ]
    assert slopes[0].abs().max() > 0.1
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-11)


def test_smooth_attention_is_the_mean_under_the_gaussian(attention, batch):
    x = features(batch)
    given = attention(x, waves_of(batch))
    blocks = [lattice_sum(crystal, WIDTH) for crystal in shapes.general(RULE).values()]
    kernel = torch.block_diag(*blocks)
    query, key = (
        torch.nn.functional.softplus(linear(x)).unflatten(1, (2, -1))
        for linear in (attention.query, attention.key)
    )
    share = torch.einsum("ihf,jhf->hij", query, key) * kernel
    share = share / share.sum(-1, keepdim=True)
    value = attention.value(x).unflatten(1, (2, -1))
    expected = attention.out(torch.einsum("hij,jhd->ihd", share, value).flatten(1))
    torch.testing.assert_close(given, expected, rtol=1e-7, atol=1e-8)


def test_waves_of_a_larger_cell_that_the_crystal_lacks_carry_nothing():
    cell = shapes.rattled(shapes.rocksalt())
    graphs = [build(shapes.repeated(cell, times), RULE) for times in ((1, 1, 1), (2, 1, 3))]
    amplitudes = []
    for graph in graphs:
        waves = waves_of(graph)
        sums = waves.values.sum(1)[waves.weight > 0] / graph.atoms
        amplitudes.append(sums[sums.abs() > 1e-12].abs().sort().values)
    assert waves.weight.count_nonzero() > 5 * len(amplitudes[1])
    # One of each pair k and -k is kept, perhaps the other: only the sign of a sine may differ.
    torch.testing.assert_close(*amplitudes, rtol=1e-10, atol=1e-13)


def test_no_wave_comes_or_goes_abruptly(attention):
    graph = build(shapes.rattled(shapes.wurtzite()), RULE)
    x = features(graph)

    def strained(by):
        stretch = torch.eye(3, dtype=torch.float64) * (1 + by)
        stretch.requires_grad_()
        places = {"positions": graph.positions @ stretch, "cell": graph.cell @ stretch}
        waves = waves_of(graph, **places)
        (slope,) = torch.autograd.grad(attention(x, waves).square().sum(), stretch)
        return waves.weight.count_nonzero().item(), slope

    number, _ = strained(0.0)
    low, high = 0.0, next(by for by in np.linspace(0.01, 0.2, 20) if strained(by)[0] != number)
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if strained(middle)[0] == number else (low, middle)
    torch.testing.assert_close(strained(low)[1], strained(high)[1], rtol=0, atol=1e-10)


def test_the_gaussian_is_nowhere_negative():
    graph = build(shapes.repeated(shapes.fcc(), (6, 6, 6)), RULE)
    one = torch.eye(graph.atoms, dtype=torch.float64)[:, :1]
    seen = waves_of(graph, 1.0).spread(one)
    assert seen.max() > 0.99
    assert seen.min() > -1e-8


def test_where_atoms_are_counted_from_and_empty_space_do_not_matter(attention):
    slab = build(shapes.slab(), RULE)
    x = features(slab)
    expected = attention(x, waves_of(slab))
    tilted = slab.cell.clone()
    tilted[0, 2] = torch.tensor([0.3, 0.2, 9.0])
    for places in ({"positions": slab.positions + 100.0}, {"cell": tilted}):
        given = attention(x, waves_of(slab, **places))
        torch.testing.assert_close(given, expected, rtol=0, atol=1e-10)


def test_phases_stay_exact_in_single_and_mixed_precision(batch, attention):
    x = features(batch)
    expected = attention(x, waves_of(batch))
    single = batch.to(dtype=torch.float32)
    attention.float()
    with torch.no_grad():
        given = attention(x.float(), waves_of(single))
        torch.testing.assert_close(given.double(), expected, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            waves = waves_of(single)
            mixed = attention(x.float(), waves)
    assert waves.values.dtype == torch.float32
    torch.testing.assert_close(mixed.double(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("attention", [HashAttention, PlaneWaveAttention])
def test_heads_that_do_not_divide_are_named(attention):
    with pytest.raises(ValueError, match="3 do not divide 8"):
        attention(8, 3, 4, 5) if attention is HashAttention else attention(12, 8, 3, 4)
