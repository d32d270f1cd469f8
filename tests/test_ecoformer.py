"""EcoFormer for crystals: its two attentions in place, and what each of them costs and gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from torch.nn.functional import layer_norm

from ase_crystalformer.calculator import CrystalformerCalculator
from ase_crystalformer.encoders.ecoformer import Config, EcoFormer
from ase_crystalformer.errors import NoForces
from ase_crystalformer.graph import collate
from ase_crystalformer.heads import with_leaves
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.neighbours import build
from ase_crystalformer.testing import crystals as shapes
from ase_crystalformer.testing import randomised

SMALL = Config(
    cutoff=4.0, width=8, heads=2, blocks=2, feedforward=12, basis=6, reach=1.5, channels=4, bits=6
)


def small(mode):
    """A small encoder in double precision."""
    return randomised(EcoFormer(replace(SMALL, mode=mode))).double().eval()


@pytest.fixture(params=["paper", "smooth"])
def encoder(request):
    return small(request.param)


def normed(norm, x):
    return layer_norm(x, x.shape[-1:], norm.weight, norm.bias)


def gaussian(graph, width):
    """Lattice sum of the Gaussian between all atoms of one crystal, image by image."""
    shifts = torch.cartesian_prod(*[torch.arange(-9.0, 10.0)] * 3).double() @ graph.cell[0]
    apart = graph.positions[None] - graph.positions[:, None]
    square = (apart[:, :, None] + shifts).square().sum(-1)
    return torch.exp(-square / (2 * width**2)).sum(-1)


def written(encoder, graph):
    """The network edge by edge and pair by pair."""
    config = encoder.config
    x = encoder.embedding(graph.species)
    for block in encoder.blocks:
        first, second, third = block.norms
        layer = block.neighbours
        value = layer.value(normed(first, x))
        total = torch.zeros_like(x)
        for i, j, vector in zip(graph.receiver, graph.sender, graph.vector, strict=True):
            r = vector.norm() / config.cutoff
            fade = 1 - 28 * r**6 + 48 * r**7 - 21 * r**8 if config.mode == "smooth" else 1.0
            filtered = layer.filter(encoder.radial(vector.norm())) * value[j]
            total[i] = total[i] + fade * filtered / config.neighbours**0.5
        x = x + layer.out(total)
        x = x + over_pairs(block.attention, normed(second, x), graph, config)
        x = x + block.feedforward(normed(third, x))
    return normed(encoder.last_norm, x)


def over_pairs(layer, x, graph, config):
    """Attention with one weight per pair of atoms and head."""
    if config.mode == "paper":
        bits = layer.hash(x)
        weight = torch.einsum("ihb,jhb->ijh", bits, bits) + config.bits + 1
    else:
        query, key = (
            torch.log(1 + f(x).exp()).reshape(len(x), config.heads, config.features)
            for f in (layer.query, layer.key)
        )
        kernel = gaussian(graph, config.reach)
        weight = torch.einsum("ihf,jhf->ijh", query, key) * kernel[..., None]
    value = layer.value(x).reshape(len(x), config.heads, -1)
    mean = torch.einsum("ijh,jhd->ihd", weight / weight.sum(1, keepdim=True), value)
    return layer.out(mean.flatten(1))


def test_network_as_written(encoder, wurtzite):
    graph = build(wurtzite, encoder.rule)
    with torch.no_grad():
        given, expected = encoder(graph).invariant, written(encoder, graph)
    torch.testing.assert_close(given, expected, rtol=1e-7, atol=1e-7)


def test_atoms_beyond_every_neighbour_are_felt(encoder):
    pair = shapes.pair(0.9 * SMALL.cutoff)
    far = replace(pair, positions=np.array([[0.0, 0, 0], [SMALL.cutoff + 1, 0, 0]]))
    graph = with_leaves(build(far, encoder.rule), encoder)
    assert graph.edges == 0
    other = replace(graph, species=torch.tensor([8, 15]))
    assert not torch.allclose(encoder(graph).invariant[0], encoder(other).invariant[0])
    if encoder.config.mode == "smooth":
        (slope,) = torch.autograd.grad(encoder(graph).invariant[0].square().sum(), graph.positions)
        torch.testing.assert_close(slope[0], -slope[1])
        assert slope[0, 0].abs() > 1e-6


def test_every_weight_learns(encoder, wurtzite, perovskite):
    graph = collate([build(crystal, encoder.rule) for crystal in (wurtzite, perovskite)])
    (encoder(graph).invariant ** 3).sum().backward()
    names = [name for name, weight in encoder.named_parameters() if not weight.grad.any()]
    assert names == []


def test_features_start_of_order_one(wurtzite, perovskite):
    for mode in ("paper", "smooth"):
        encoder = EcoFormer(Config(mode=mode))
        graph = build(wurtzite, encoder.rule).to(dtype=torch.float32)
        block = encoder.blocks[0]
        with torch.no_grad():
            x = block.norms[0](encoder.embedding(graph.species))
            ends = (graph.receiver, graph.sender)
            message = block.neighbours(x, encoder._radial(graph), *ends)
            assert 0.1 < message.std() < 10
            assert 0.5 < encoder(graph).invariant.std() < 2


def largest_jump(encoder, crystal):
    """Move an atom by 0.5 Å, and enclose where features change most as tightly as numbers allow."""
    graph = build(crystal, encoder.rule)
    way = torch.zeros_like(graph.positions)
    way[0] = torch.tensor([0.3, 0.4, 0.0])

    def path(places):
        return collate([graph.moved(graph.positions + by * way, graph.cell) for by in places])

    def answers(places):
        return encoder(path(places)).invariant.detach().unflatten(0, (len(places), -1))

    if encoder.config.mode == "paper":
        encoder.fit_hashes(path(torch.linspace(0, 1, 21, dtype=torch.float64)))
    low, high = 0.0, 1.0
    for _ in range(7):
        places = torch.linspace(low, high, 101, dtype=torch.float64)
        steps = answers(places).diff(dim=0).abs().amax((1, 2))
        at = int(steps.argmax())
        low, high = float(places[at]), float(places[at + 1])
    return float(steps.max())


def test_bits_flip_at_once_and_without_any_change_of_edges(wurtzite):
    # A path of 1e-14 Å is left, on edges that are always the same.
    assert largest_jump(small("smooth"), wurtzite) < 1e-10
    assert largest_jump(small("paper"), wurtzite) > 1e-3


def test_hashes_are_fitted_block_by_block(wurtzite, perovskite):
    encoder = small("paper")
    graph = collate([build(crystal, encoder.rule) for crystal in (wurtzite, perovskite)])
    before = encoder(graph).invariant
    old = [block.attention.projection.clone() for block in encoder.blocks]
    encoder.fit_hashes(graph)
    for block, projection in zip(encoder.blocks, old, strict=True):
        assert not torch.equal(block.attention.projection, projection)
    assert encoder(graph).invariant.isfinite().all()
    assert not torch.allclose(encoder(graph).invariant, before)
    with pytest.raises(ValueError, match=r"smooth.*hashes nothing"):
        small("smooth").fit_hashes(graph)


def test_hashed_attention_has_no_forces():
    model = CrystalModel("ecoformer", {"mode": "paper"}, energy_scale="none")
    with pytest.raises(NoForces, match="a bit is a step"):
        CrystalformerCalculator(model)
    with pytest.raises(NoForces, match="a bit is a step"):
        model.predict([bulk("Cu")])
    smooth = CrystalModel("ecoformer", {}, energy_scale="none")
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.positions[0, 0] += 0.1
    atoms.calc = CrystalformerCalculator(smooth)
    assert np.abs(atoms.get_forces()).max() > 0
