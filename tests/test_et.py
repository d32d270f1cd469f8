"""The equivariant transformer is a dense sum over atoms and images, and fades where it should."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from ase import Atoms
from torch.nn import functional

from ase_crystalformer.encoders.et import PUBLISHED, ROUNDING, Config, EquivariantTransformer
from ase_crystalformer.neighbours import build
from ase_crystalformer.testing import randomised

SMALL = Config(width=12, heads=3, layers=3, basis=8, cutoff=4.2, neighbours=7.0)
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def parameters(*modules):
    return sum(weight.numel() for module in modules for weight in module.parameters())


class Dense:
    """Every atom, every atom, every image in reach; those beyond the cutoff are masked."""

    def __init__(self, encoder, atoms):
        self.encoder, self.config = encoder, encoder.config
        self.species = torch.tensor(atoms.numbers) - 1
        cells = range(-5, 6)
        steps = torch.tensor(list(product(cells, cells, cells)), dtype=torch.float64)
        steps = steps[(steps == 0).all(1) | torch.tensor(atoms.pbc).all()]
        shift = steps @ torch.tensor(atoms.cell.array)
        place = torch.tensor(atoms.positions)
        self.apart = place[None, :, None] + shift - place[:, None, None]
        self.distance = self.apart.norm(dim=-1)
        self.own = self.distance == 0
        self.edge = (self.distance < self.config.cutoff) & ~self.own

    def fades(self):
        """Weights of edges for scalars and for vectors; an atom tells itself everything."""
        x, f = self.distance / self.config.cutoff, self.config
        if f.mode == "paper":
            weight = torch.where(self.edge, 0.5 * (torch.cos(torch.pi * x) + 1), 0.0)
            return weight, self.edge.double()
        weight = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
        weight = torch.where(self.edge, weight, 0.0) / f.neighbours**0.5
        return weight, weight

    def basis(self):
        f = self.config
        low = math.exp(-5 if f.mode == "smooth" else -f.cutoff)
        centre = torch.linspace(low, 1, f.basis, dtype=torch.float64)
        torch.testing.assert_close(self.encoder.radial.centre, centre, rtol=0, atol=1e-7)
        centre = self.encoder.radial.centre  # rounded to single precision
        offset = torch.exp(-5 * self.distance / f.cutoff)[..., None] - centre
        basis = torch.exp(-(offset**2) / (2 * (1 - low) / f.basis) ** 2)
        if f.mode == "paper":
            basis = basis * (0.5 * (torch.cos(torch.pi * self.distance / f.cutoff) + 1))[..., None]
        return basis

    def layer(self, layer, x, v):
        scalar_fade, vector_fade = (fade + self.own for fade in self.fades())
        unit = torch.where(self.own[..., None], 0.0, self.apart / self.distance[..., None])
        q, k, s, u, t = layer.atom(layer.norm(x)).chunk(5, dim=-1)
        dk, ds, du, dt = functional.silu(layer.radial(self.basis())).chunk(4, dim=-1)
        score = (q[:, None, None] * k[None, :, None] * dk).unflatten(-1, (self.config.heads, -1))
        attention = functional.silu(score.sum(-1)) * scalar_fade[..., None]
        attention = attention.repeat_interleave(self.config.width // self.config.heads, dim=-1)
        told = (attention * s[None, :, None] * ds).sum((1, 2))
        carried = torch.einsum("ijn,ijnc,jc,jxc->ixc", vector_fade, dt, t, v)
        drawn = torch.einsum("ijn,ijnc,jc,ijnx->ixc", vector_fade, du, u, unit)
        o1, o2, o3 = layer.out(told).chunk(3, dim=-1)
        mixed = layer.vector(v) if v.any() else v.repeat(1, 1, 3)
        v1, v2, v3 = mixed.chunk(3, dim=-1)
        x = x + torch.einsum("ixc,ixc->ic", v1, v2) * o2 + o3
        return x, v + torch.einsum("ixc,ic->ixc", v3, o1) + carried + drawn

    def length(self, v):
        if self.config.mode == "paper":
            return v.norm(dim=1)
        return (v.square().sum(1) + 0.01).sqrt() - 0.1

    def features(self):
        """All layers, and the published gated block with half of the second."""
        encoder = self.encoder
        around, read = encoder.around, encoder.readout
        x = encoder.atoms.features(self.species)
        filters = around.radial(self.basis()) * self.fades()[0][..., None]
        near = torch.einsum("ijnc,jc->ic", filters, around.atoms.features(self.species))
        x, v = around.out(torch.cat([x, near], dim=1)), torch.zeros(*x.shape, 3).mT.double()
        for layer in encoder.layers:
            x, v = self.layer(layer, x, v)
        x = torch.cat([encoder.norm(x), self.length(read.first_length(v))], dim=1)
        x, gate = read.first_out(functional.silu(read.first_hidden(x))).chunk(2, dim=-1)
        v = read.first_vector(v) * gate[:, None]
        x = torch.cat([functional.silu(x), self.length(read.second_length(v))], dim=1)
        return functional.silu(read.second_hidden(x))


@pytest.fixture(params=["smooth", "paper"])
def encoder(request, dtype):
    return randomised(EquivariantTransformer(replace(SMALL, mode=request.param))).to(dtype)


@pytest.mark.parametrize("kind", ["wurtzite", "fcc", "water"])
def test_features_are_dense_sums_over_atoms_and_images(encoder, kind, request):
    atoms = request.getfixturevalue(kind)
    given = encoder(build(atoms, encoder.rule)).invariant
    expected = Dense(encoder, atoms).features()
    torch.testing.assert_close(given, expected, **EXACT)
    assert expected.std() > 1e-3


def test_published_number_of_parameters():
    """Full models end in a linear map. They mix vectors before there are any, and make a last one.

    Nothing depends on either.
    """
    model = EquivariantTransformer(PUBLISHED["md17"])
    energy = torch.nn.Linear(64, 1)
    unused_vector, unused_gate = torch.nn.Linear(64, 1, bias=False), torch.nn.Linear(64, 1)
    unused = parameters(unused_vector, unused_gate) + 128 * 3 * 128
    assert parameters(model, energy) + unused == 1_339_906
    model = EquivariantTransformer(PUBLISHED["qm9"])
    assert parameters(model) - parameters(model.readout) + 256 * 3 * 256 == 6_519_808


@torch.no_grad()
def step_at_the_cutoff(mode, dtype):
    """How much features change when a pair comes into reach, relative to their size."""
    encoder = randomised(EquivariantTransformer(replace(PUBLISHED["md17"], mode=mode))).to(dtype)
    found = []
    for distance in (5.0 - 1e-9, 5.0 + 1e-9):
        pair = Atoms("CO", positions=[[0, 0, 0], [0, 0.6 * distance, 0.8 * distance]])
        graph = build(pair, encoder.rule)
        found.append(encoder(graph).invariant)
    return float((found[0] - found[1]).norm() / found[1].norm())


def test_the_published_step_at_the_cutoff_is_there_in_paper_mode_and_gone_in_smooth(dtype):
    assert step_at_the_cutoff("paper", dtype) > 1e-2
    assert step_at_the_cutoff("smooth", dtype) < 1e-12


@pytest.mark.parametrize("mode", ["paper", "smooth"])
def test_every_weight_acts(mode, wurtzite):
    encoder = randomised(EquivariantTransformer(replace(SMALL, mode=mode)))
    graph = build(wurtzite, encoder.rule).to(dtype=torch.float32)
    encoder(graph).invariant.square().sum().backward()
    still = [name for name, w in encoder.named_parameters() if w.grad is None or not w.grad.any()]
    assert still == []


def test_lengths_of_vanishing_vectors_are_smooth(encoder):
    v = torch.zeros(1, 3, 2, dtype=torch.float64, requires_grad=True)
    length = encoder.readout._length(v)
    (slope,) = torch.autograd.grad(length.sum(), v, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), v)
    assert not length.any()
    assert not slope.any()
    expected = torch.full_like(v, 1 / ROUNDING[encoder.config.mode])
    torch.testing.assert_close(curvature, expected)


def test_sums_are_not_short_where_products_are(wurtzite):
    encoder = randomised(EquivariantTransformer(SMALL))
    graph = build(wurtzite, encoder.rule).to(dtype=torch.float32)
    expected = encoder(graph).invariant
    with torch.autocast("cpu", torch.bfloat16):
        given = encoder(graph).invariant
    difference = (given.float() - expected).norm() / expected.norm()
    assert 0 < difference < 0.03


@pytest.mark.parametrize("wrong", [{"width": 12, "heads": 5}, {"width": 9, "heads": 3}])
def test_channels_that_cannot_be_shared_out_are_refused(wrong):
    with pytest.raises(ValueError, match="heads must divide width, and width be even"):
        Config(**wrong)
