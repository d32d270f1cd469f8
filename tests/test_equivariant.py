"""Layers of directed features turn with them, alone and in the frames of edges."""

import pytest
import torch
from scipy.spatial.transform import Rotation

from ase_crystalformer.nn.aligned import (
    FixedCoupling,
    Paths,
    RadialCoupling,
    align,
    alignments,
    frames,
    restore,
)
from ase_crystalformer.nn.coupling import coupling
from ase_crystalformer.nn.equivariant import (
    DirectedLinear,
    DirectedNorm,
    FeedForward,
    Gate,
    components,
)
from ase_crystalformer.nn.harmonics import harmonics
from ase_crystalformer.testing import randomised

CHANNELS = (5, 4, 3, 2)
EXACT = {"rtol": 1e-10, "atol": 1e-10}

LAYERS = {
    "linear": lambda: DirectedLinear(CHANNELS, (3, 2, 4, 1)),
    "linear-to-fewer-degrees": lambda: DirectedLinear(CHANNELS, (3, 2)),
    "norm": lambda: DirectedNorm(CHANNELS),
    "merged-norm": lambda: DirectedNorm(CHANNELS, merged=True),
    "gate": lambda: Gate((2, 1, 1, 1)),
    "feed-forward": lambda: FeedForward(CHANNELS, (6, 4, 3, 2), (3, 2, 4, 1)),
}


def directed(rows, channels, dtype):
    return tuple(
        torch.randn(rows, 2 * degree + 1, size, dtype=dtype) for degree, size in enumerate(channels)
    )


@pytest.fixture
def turn(seed):
    return torch.from_numpy(Rotation.random(rng=seed).as_matrix())


@pytest.fixture
def turns(turn):
    """How components of each degree change: as e3nn's harmonics of any points do."""
    from e3nn.o3 import spherical_harmonics

    points = torch.randn(20, 3, dtype=turn.dtype)
    found = []
    for degree in range(len(CHANNELS)):
        here = spherical_harmonics(degree, points, normalize=True)
        there = spherical_harmonics(degree, points @ turn.T, normalize=True)
        found.append(torch.linalg.lstsq(here, there).solution.T)
    return found


def turned(x, turns):
    return tuple(turn @ part for part, turn in zip(x, turns, strict=False))


def assert_same(left, right):
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_turns_with_its_input(name, turns, dtype):
    layer = randomised(LAYERS[name]()).to(dtype)
    x = directed(6, getattr(layer, "inputs", CHANNELS), dtype)
    assert_same(layer(turned(x, turns)), turned(layer(x), turns))


def test_linear_keeps_the_scale():
    x = directed(2000, (40, 30), torch.float64)
    y = DirectedLinear((40, 30), (50, 20)).double()(x)
    for part in y:
        assert part.square().mean().item() == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("merged", [False, True])
def test_norm_leaves_a_mean_square_of_one(merged, dtype):
    x = tuple(3 * part for part in directed(2, (50, 40, 30), dtype))
    norm = DirectedNorm((50, 40, 30), merged=merged).to(dtype)
    squares = torch.stack([part.square().mean((1, 2)) for part in norm(x)])
    ones = squares.mean(0) if merged else squares
    torch.testing.assert_close(ones, torch.ones_like(ones), rtol=1e-5, atol=0.0)


def test_merged_norm_does_not_blow_up_what_nearly_vanishes(dtype):
    scalar = torch.randn(1, 1, 8, dtype=dtype)
    vector = 1e-6 * torch.randn(1, 3, 8, dtype=dtype)
    alone, merged = (DirectedNorm((8, 8), merged=merged).to(dtype) for merged in (False, True))
    assert alone((scalar, vector))[1].abs().max() > 100 * vector.abs().max()
    assert merged((scalar, vector))[1].abs().max() < 10 * vector.abs().max()


@pytest.mark.parametrize("merged", [False, True])
def test_norm_has_derivatives_at_zero(merged, dtype):
    norm = DirectedNorm((4, 3), merged=merged).to(dtype)
    x = (torch.randn(1, 1, 4, dtype=dtype), torch.zeros(1, 3, 3, dtype=dtype, requires_grad=True))
    (slope,) = torch.autograd.grad(norm(x)[1].sum(), x[1], create_graph=True)
    (twice,) = torch.autograd.grad(slope.square().sum(), x[1])
    assert slope.isfinite().all()
    assert slope.any()
    assert twice.isfinite().all()


def test_gate_keeps_the_scale_of_scalars():
    x = (torch.randn(40_000, 1, 2, dtype=torch.float64), torch.ones(40_000, 3, 1))
    scalar, vector = Gate((1, 1))(x)
    assert scalar.square().mean().item() == pytest.approx(1, rel=0.05)
    assert vector.square().mean().item() == pytest.approx(1, rel=0.05)


def test_components_are_cut_by_degree(dtype):
    parts = components(torch.randn(2, 9, 3, dtype=dtype), 2)
    assert [part.shape[1] for part in parts] == [1, 3, 5]


#: The last are as close to where the choice of the x axis changes as numbers allow.
DIRECTIONS = torch.tensor(
    [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [0, 0, -1],
        [0, -1, 0],
        [1, 1, 1],
        [1, 1, 1 + 1e-15],
        [3, 2, 1],
    ]
).double()


def units():
    return DIRECTIONS / DIRECTIONS.norm(dim=1, keepdim=True)


def test_frames_are_rotations_that_lay_edges_on_the_y_axis():
    found = frames(units())
    eye = torch.eye(3, dtype=torch.float64).expand_as(found)
    torch.testing.assert_close(found @ found.mT, eye, **EXACT)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(len(found)).double(), **EXACT)
    torch.testing.assert_close((found @ units()[:, :, None])[:, :, 0], eye[:, 1], **EXACT)


def test_harmonics_of_an_edge_have_one_component_in_its_frame():
    whole = harmonics(units(), 3)[..., None].split([3, 5, 7], dim=1)
    ones = torch.ones(len(whole[0]), 1, 1).double()
    for degree, orders in enumerate(align((ones, *whole), alignments(units(), 3))):
        expected = torch.full_like(ones, (2 * degree + 1) ** 0.5)
        assert_same(orders, (expected, *(torch.zeros_like(order) for order in orders[1:])))


def test_there_and_back(dtype):
    x, turns = directed(len(DIRECTIONS), CHANNELS, dtype), alignments(units(), 3)
    assert_same(restore(align(x, turns), turns), x)


@pytest.fixture(params=[True, False], ids=["handed", "even"])
def paths(request):
    return Paths(CHANNELS, 3, 3, request.param)


@pytest.fixture
def fixed(paths, dtype):
    return randomised(FixedCoupling(paths, (3, 2, 4, 2))).to(dtype)


def coupled(layer, x, unit):
    turns = alignments(unit, 3)
    return restore(layer(align(x, turns)), turns)


def test_coupling_is_a_sum_of_coefficients(fixed, paths, dtype):
    """All directions at once, components as they are, no frame."""
    x, unit = directed(len(DIRECTIONS), CHANNELS, dtype), units()
    angular = (
        torch.ones(len(unit), 1, 1).double(),
        *harmonics(unit, 3)[..., None].split([3, 5, 7], 1),
    )
    expected = []
    for third in range(4):
        parts = []
        for first, odd in paths.kinds:
            for second in paths.seconds(first, third, odd):
                c = (2 * third + 1) ** 0.5 * coupling(first, second, third)
                parts.append(torch.einsum("eac,eb,abm->emc", x[first], angular[second][..., 0], c))
        part = torch.cat(parts, dim=2) * fixed.path_weights[third]
        expected.append(part @ fixed.weights[third] / part.shape[2] ** 0.5)
    expected[0] = expected[0] + fixed.bias
    assert_same(coupled(fixed, x, unit), expected)


def test_radial_coupling_with_constant_weights_is_a_fixed_one(fixed, paths, dtype):
    radial = RadialCoupling(paths, (3, 2, 4, 2), features=3).to(dtype)
    radial.load_state_dict({**fixed.state_dict(), "radial": radial.radial}, strict=False)
    with torch.no_grad():
        radial.radial.zero_()
        radial.radial[-1] = torch.cat(list(fixed.path_weights))
    x, turns = directed(len(DIRECTIONS), CHANNELS, dtype), alignments(units(), 3)
    aligned, features = align(x, turns), torch.ones(len(DIRECTIONS), 3, dtype=dtype)
    for one, other in zip(radial(aligned, features), fixed(aligned), strict=True):
        assert_same(one, other)


def test_even_couplings_conserve_parity_and_odd_ones_do_not(fixed, paths, dtype):
    x, unit = directed(len(DIRECTIONS), CHANNELS, dtype), units()
    inverted = tuple((-1) ** degree * part for degree, part in enumerate(x))
    after = coupled(fixed, inverted, -unit)
    expected = [(-1) ** degree * part for degree, part in enumerate(coupled(fixed, x, unit))]
    if paths.parities == 1:
        assert_same(after, expected)
    else:
        # Degree 0 has no odd couplings.
        assert all((a - b).abs().max() > 0.1 for a, b in zip(after[1:], expected[1:], strict=True))


def test_no_direction_is_special(fixed, dtype):
    """First and second derivatives along the axes and where the choice of frame changes."""
    x = directed(len(DIRECTIONS), CHANNELS, dtype)

    def scalars(vector):
        return coupled(fixed, x, vector / vector.norm(dim=1, keepdim=True))[1].sin().sum()

    vector = DIRECTIONS.clone().requires_grad_(True)
    assert torch.autograd.gradcheck(scalars, vector)
    assert torch.autograd.gradgradcheck(scalars, vector)


@pytest.mark.parametrize("handed", [True, False])
def test_numbers_of_paths(handed):
    """Triples of degrees up to three that couple."""
    paths = Paths((1, 1, 1, 1), 3, 3, handed)
    triples = [
        (i, j, k)
        for i in range(4)
        for j in range(4)
        for k in range(4)
        if abs(i - j) <= k <= i + j and (handed or (i + j + k) % 2 == 0)
    ]
    assert sum(paths.outputs) == len(triples)
