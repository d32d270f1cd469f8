"""Equiformer, computed in the frames of edges, is the Clebsch-Gordan sums it stands for."""

from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation
from slow_equiformer import Slow

from ase_crystalformer.encoders.equiformer import PUBLISHED, Config, Equiformer
from ase_crystalformer.graph import collate
from ase_crystalformer.heads import forces_and_stress
from ase_crystalformer.neighbours import Radius, build
from ase_crystalformer.nn.radial import envelope
from ase_crystalformer.testing import LAWS, check, randomised

SMALL = Config(width=8, degrees=(4, 6, 2), heads=2, blocks=2, basis=8, radial=8, cutoff=3.0)
PAPER = replace(SMALL, mode="paper", handed=True, merged=False)
KINDS = {
    "smooth": SMALL,
    "smooth-L3": replace(SMALL, degrees=(4, 2, 4, 2)),
    "smooth-L1-handed": replace(SMALL, degrees=(4, 2), handed=True),
    "paper-gaussian": PAPER,
    "paper-exponential-L3": replace(PAPER, functions="exponential", degrees=(4, 2, 4, 2)),
}
EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture
def graph(wurtzite):
    return build(wurtzite, Radius(3.0))


@pytest.fixture(params=KINDS)
def encoder(request, dtype):
    return randomised(Equiformer(KINDS[request.param]).to(dtype))


def test_encoder_is_its_equations(encoder, graph):
    expected = Slow(encoder, graph).features()
    torch.testing.assert_close(encoder(graph).invariant, expected, **EXACT)


def components_turn(degree, turn):
    """How components change when space turns: as e3nn's harmonics of any points do."""
    from e3nn.o3 import spherical_harmonics

    points = torch.randn(20, 3, dtype=turn.dtype)
    here = spherical_harmonics(degree, points, normalize=True)
    there = spherical_harmonics(degree, points @ turn.T, normalize=True)
    return torch.linalg.lstsq(here, there).solution.T


def test_directions_turn_with_the_crystal(encoder, graph, dtype, seed):
    turn = torch.from_numpy(Rotation.random(rng=seed).as_matrix())
    turns = [components_turn(degree, turn) for degree in range(len(encoder.config.degrees))]
    x = [
        torch.randn(graph.atoms, 2 * degree + 1, channels, dtype=dtype)
        for degree, channels in enumerate(encoder.config.degrees)
    ]

    def turned(x):
        return tuple(turn @ part for turn, part in zip(turns, x, strict=True))

    def directed(x, vector):
        return encoder.blocks[0](tuple(x), encoder._surroundings(graph.with_vector(vector)))

    after = directed(turned(x), graph.vector @ turn.T)
    for part, expected in zip(after, turned(directed(x, graph.vector)), strict=True):
        torch.testing.assert_close(part, expected, **EXACT)


def idle(config):
    """Weights of the publication that no output depends on, or that shift what is free anyway."""
    channels, width = config.degrees, config.radial
    encoder = Equiformer(replace(config, blocks=2))
    message, value = encoder.blocks[0].attention.message, encoder.blocks[0].attention.value
    mixed = message.paths.outputs
    # Directions of the constant that edges are multiplied with: it has none.
    constant = (sum(mixed) - len(channels) * channels[0]) * (width + 1)
    constant += sum((n - channels[0]) * c for n, c in zip(mixed, channels, strict=True))
    # Directions behind the last block's first coupling: only scalars leave.
    last = sum(weight.numel() for weight in value.path_weights[1:])
    last += sum(weight.numel() for weight in value.weights[1:])
    last += sum(c * c + c for c in channels[1:])
    last += sum(c * 3 * c + (channels[0] + 1) * 3 * c for c in channels[1:])
    # A shift of all elements' features, and of the constant.
    return constant + last + 2 * channels[0]


@pytest.mark.parametrize(
    ("name", "published", "unseen"),
    [("qm9-l2", 3_531_715, 4), ("md17-l2", 3_496_001, 0), ("md17-l3", 5_500_865, 0)],
)
def test_published_number_of_parameters(name, published, unseen):
    config = PUBLISHED[name]
    ours = sum(weight.numel() for weight in Equiformer(config).parameters())
    head = 512 * 512 + 512 + 512 + 1
    # QM9 has no helium, lithium, beryllium and boron.
    ours -= unseen * config.degrees[0]
    assert ours + head + idle(config) == published


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_acts(wurtzite, kind):
    encoder = randomised(Equiformer(KINDS[kind]))
    graph = build(wurtzite, encoder.rule).to(dtype=torch.float32)
    encoder(graph).invariant.square().sum().backward()
    still = [name for name, w in encoder.named_parameters() if w.grad is None or not w.grad.any()]
    assert not still


@pytest.mark.parametrize("kind", ["smooth-L1-handed", "smooth-L3", "paper-gaussian"])
def test_mirror_images_differ_only_if_handed(kind):
    check(randomised(Equiformer(KINDS[kind])), "reflection")


def test_published_norms_blow_up_directions_that_symmetry_makes_vanish(dtype):
    """Why one norm of all degrees is the default: a crystal rattled by 1e-7 Å is another one."""
    changes = []
    for merged in (True, False):
        encoder = randomised(Equiformer(replace(PAPER, merged=merged, handed=False)).to(dtype))
        changes.append(LAWS["tremor"].difference(encoder.eval()))
    assert changes[0] < 1e-9
    assert changes[1] > 1e-3


def test_smooth_mode_refuses_the_published_norms():
    with pytest.raises(ValueError, match="paper mode"):
        replace(SMALL, merged=False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"degrees": (8,)}, "l = 0 up to"),
        ({"degrees": (8, 8, 8, 8, 8)}, "l = 0 up to"),
        ({"degrees": (8, 6), "heads": 4}, "heads must divide"),
        ({"blocks": 0}, "at least one"),
    ],
)
def test_wrong_sizes_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Config(**wrong)


def test_a_few_steps_of_training_help(wurtzite, left_handed):
    """Energies of atoms and forces, learned from scratch at one plain rate."""
    graph = collate([build(crystal, Radius(3.0)) for crystal in (wurtzite, left_handed)])
    graph = graph.to(dtype=torch.float32)
    graph = graph.with_vector(graph.vector.requires_grad_(True))

    def derived(energies):
        return energies, forces_and_stress(energies.sum(), graph, create_graph=True)[0]

    distance = graph.vector.norm(dim=1)
    pairs = torch.exp(2 - distance) * envelope(distance, 3.0)
    wanted = derived(torch.zeros(graph.atoms).index_add(0, graph.receiver, pairs))
    encoder, head = Equiformer(SMALL), torch.nn.Linear(SMALL.width, 1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-2)
    losses = []
    for _ in range(20):
        found = derived(head(encoder(graph).invariant)[:, 0])
        loss = sum((a - b.detach()).square().mean() for a, b in zip(found, wanted, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("kind", ["smooth", "paper-exponential-L3"])
def test_mixed_precision_is_close(wurtzite, kind):
    """Within what bfloat16, of eight bits, leaves of derivatives of so small a network."""
    encoder = Equiformer(replace(KINDS[kind], merged=True))
    graph = build(wurtzite, encoder.rule).to(dtype=torch.float32)
    graph = graph.with_vector(graph.vector.requires_grad_(True))
    found = []
    for mixed in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            invariant = encoder(graph).invariant.float()
        found.append((invariant, forces_and_stress(invariant[:, 0].sum(), graph)[0]))
    for full, mixed in zip(*found, strict=True):
        assert (full - mixed).abs().max() < 0.2 * full.abs().max()


@pytest.mark.parametrize("mode", ["smooth", "paper"])
def test_one_block_cannot_tell_left_from_right(mode):
    encoder = Equiformer(replace(SMALL, mode=mode, handed=True, blocks=1))
    check(randomised(encoder.double()), "reflection")
