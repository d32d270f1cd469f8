"""Crystalformer against the paper's formulas, written out one atom, image and head at a time."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from ase_crystalformer.encoders.crystalformer import Config, Crystalformer
from ase_crystalformer.heads import PropertyHead
from ase_crystalformer.neighbours import build
from ase_crystalformer.nn.harmonics import harmonics
from ase_crystalformer.nn.radial import envelope
from ase_crystalformer.structures import as_crystal
from ase_crystalformer.targets import Target
from ase_crystalformer.testing import crystals, randomised

SIZE = {"cutoff": 4.0, "width": 12, "heads": 3, "blocks": 2, "feedforward": 10, "basis": 9}
CRYSTALS = {
    "wurtzite": crystals.rattled(crystals.wurtzite()),
    "cell smaller than the cutoff": crystals.carbon(),
    "molecule": crystals.molecule(),
    "lone atom": crystals.alone(),
}


@pytest.fixture(params=CRYSTALS)
def crystal(request):
    return CRYSTALS[request.param]


def encoder(**options):
    """A small encoder with weights that hide nothing, the frozen shift and scale included."""
    made = randomised(Crystalformer(Config(**SIZE | options)).double())
    for block in made.blocks:
        block.attention.decay_shift.normal_()
        block.attention.decay_scale.uniform_(0.5, 3)
        block.attention.out.weight.data.mul_(5)
    return made


def images(crystal, i, j, cutoff):
    """Vectors from atom i to all images of atom j within the cutoff; to itself too, if i is j."""
    reach = range(-5, 6) if crystal.periodic.any() else [0]
    steps = np.array(list(product(reach, repeat=3))) @ crystal.cell
    vectors = torch.tensor(crystal.positions[j] + steps - crystal.positions[i])
    return vectors[vectors.norm(dim=1) < cutoff]


def projections(attention, x):
    """Queries, keys and values by atom and head, and the decay rate that follows from the query."""
    parts = [f(x).unflatten(1, (attention.heads, -1)) for f in (attention.query, attention.key)]
    q, k = parts
    v = attention.value(x).unflatten(1, (attention.heads, -1))
    asked = (q * attention.decay_weight).sum(-1)
    return q, k, v, (asked + attention.decay_shift) * attention.decay_scale


def gaussians(distance, config):
    spacing = config.basis_radius / config.basis
    centres = spacing * torch.arange(1, config.basis + 1, dtype=torch.float64)
    return torch.exp(-0.5 * ((distance[:, None] - centres) / spacing) ** 2)


def elu(value):
    return torch.where(value > 0, value, value.exp() - 1)


def published_attention(attention, x, crystal, config):
    """Attention between atoms of the cell with lattice sums alpha and beta per pair."""
    q, k, v, asked = projections(attention, x)
    rho = 0.5 * elu(0.1 * asked / 0.5) + 1
    y = torch.zeros_like(v)
    for i, h in product(range(len(x)), range(config.heads)):
        scores, values = [], []
        for j in range(len(x)):
            distance = images(crystal, i, j, config.cutoff).norm(dim=1)
            exponent = -rho[i, h] * distance**2 / (2 * config.decay**2)
            alpha = torch.logsumexp(exponent, 0)
            share = torch.softmax(exponent, 0)
            beta = share @ gaussians(distance, config) @ attention.position[h]
            scores.append(q[i, h] @ k[j, h] / math.sqrt(q.shape[2]) + alpha)
            values.append(v[j, h] + beta)
        y[i, h] = torch.softmax(torch.stack(scores), 0) @ torch.stack(values)
    return attention.out(y.flatten(1))


def smooth_attention(attention, x, crystal, config):
    """Attention over images: an envelope in the softmax, and the atom itself with weight one."""
    q, k, v, asked = projections(attention, x)
    rho = 0.5 + 0.5 / math.log(2) * torch.log(1 + torch.exp(0.2 * asked))
    y = torch.zeros_like(v)
    moments = []
    for i in range(len(x)):
        vectors = [images(crystal, i, j, config.cutoff) for j in range(len(x))]
        sender = torch.tensor([j for j, found in enumerate(vectors) for _ in found])
        vector = torch.cat(vectors)
        distance = vector.norm(dim=1)
        fade = envelope(distance, config.cutoff)
        weights = []
        for h in range(config.heads):
            score = k[sender, h] @ q[i, h] / math.sqrt(q.shape[2])
            decay = rho[i, h] * distance**2 / (2 * config.decay**2)
            weight = fade * torch.exp(score - decay)
            weights.append(weight / weight.sum())
            carried = v[sender, h] + gaussians(distance, config) @ attention.position[h]
            y[i, h] = weights[-1] @ carried
        if config.degree:
            others = distance > 0
            moments.append(angular(attention, x, sender, vector, weights, others, config))
    out = attention.out(y.flatten(1))
    return out + torch.stack(moments) if config.degree else out


def angular(attention, x, sender, vector, weights, others, config):
    """Moments of the neighbours of one atom, two colours per head."""
    sender, vector = sender[others], vector[others]
    colour = attention.sender_weight(x)[sender]
    share = torch.stack([weight[others] for weight in weights], dim=1)
    weight = colour * torch.cat([share, share], dim=1)
    distance = vector.norm(dim=1, keepdim=True)
    radial = weight.T @ gaussians(distance[:, 0], config)
    directed = weight.T @ harmonics(vector / distance, config.degree)
    invariants = attention.invariants(directed[None])[0]
    return attention.moments_out(torch.cat([radial.flatten(), invariants]))


def by_hand(encoder, crystal, attention):
    """All blocks, with the given attention."""
    x = encoder.embedding(torch.tensor(crystal.species) - 1)
    for block in encoder.blocks:
        x = x + attention(block.attention, block.first_norm(x), crystal, encoder.config)
        x = x + block.shrink(block.activation(block.expand(block.second_norm(x))))
    return encoder.last_norm(x)


def agree(encoder, crystal, attention):
    with torch.no_grad():
        given = encoder(build(crystal, encoder.rule)).invariant
        expected = by_hand(encoder, crystal, attention)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-12)


def test_published_size():
    target = Target(name="formation_energy_per_atom", unit="eV/atom")
    parts = [Crystalformer(Config(mode="paper")), PropertyHead(128, [target])]
    assert sum(weight.numel() for part in parts for weight in part.parameters()) == 853_505


def test_paper_mode_is_the_published_lattice_sum(crystal):
    agree(encoder(mode="paper"), crystal, published_attention)


def test_smooth_mode_is_a_softmax_over_images(crystal):
    agree(encoder(), crystal, smooth_attention)


def test_norms_and_moments_are_added_to_it(crystal):
    agree(encoder(norm=True, degree=2), crystal, smooth_attention)


def test_the_reference_would_notice_a_wrong_frozen_scale():
    made = encoder(mode="paper")
    with torch.no_grad():
        expected = by_hand(made, CRYSTALS["wurtzite"], published_attention)
        made.blocks[0].attention.decay_scale.mul_(1 + 1e-6)
        given = by_hand(made, CRYSTALS["wurtzite"], published_attention)
    assert (given - expected).abs().max() > 1e-10


def test_the_published_sum_has_converged_at_seven_angstrom(wurtzite):
    # Gaussians at most 1.98 Å wide, at 3.5 of their widths.
    config = {**SIZE, "mode": "paper"}
    near, far = (encoder(**config | {"cutoff": cutoff}) for cutoff in (7.0, 12.0))
    far.load_state_dict(near.state_dict())
    with torch.no_grad():
        here, there = (made(build(wurtzite, made.rule)).invariant for made in (near, far))
    assert 0 < (here - there).abs().max() < 3e-3 * here.std()


@pytest.mark.parametrize("mode", ["smooth", "paper"])
def test_large_scores_are_safe(mode):
    made = encoder(mode=mode)
    for block in made.blocks:
        block.attention.key.weight.data.mul_(1e5)
    graph = build(CRYSTALS["wurtzite"], made.rule)
    features = made(graph.with_vector(graph.vector.requires_grad_())).invariant
    features.sum().backward()
    assert features.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in made.parameters())


def test_neighbours_matter(wurtzite):
    made = encoder()
    moved = wurtzite.copy()
    moved.positions[0] += 0.1
    with torch.no_grad():
        here, there = (
            made(build(as_crystal(atoms), made.rule)).invariant for atoms in (wurtzite, moved)
        )
    assert ((here - there).abs().amax(dim=1) > 1e-4).all()


def test_heads_must_divide_width():
    with pytest.raises(ValueError, match="4 do not divide 10"):
        Config(width=10, heads=4)


@pytest.mark.parametrize("extension", [{"norm": True}, {"degree": 1}])
def test_paper_mode_refuses_extensions(extension):
    with pytest.raises(ValueError, match="extensions of smooth mode"):
        Config(mode="paper", **extension)
