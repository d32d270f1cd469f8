"""Layers that know tensors: blocks of edges, radial functions, harmonics and their moments."""

import numpy as np
import pytest
import torch
from e3nn import o3
from hypothesis import given
from hypothesis import strategies as st

from ase_crystalformer.nn.blocks import EdgeBlocks
from ase_crystalformer.nn.harmonics import COMPONENTS, harmonics
from ase_crystalformer.nn.moments import MomentInvariants
from ase_crystalformer.nn.radial import GaussianBasis, envelope, norm

ATOMS = 6

receivers = st.lists(st.integers(0, ATOMS - 1), max_size=40).map(sorted)
sizes = st.sampled_from([1, 3, 16])


@pytest.fixture
def directions():
    return torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=1)


# ------------------------------------------------------------------------------------ blocks


@given(receivers, sizes)
def test_sum_over_blocks_is_the_sum_over_edges(receiver, size):
    receiver = torch.tensor(receiver, dtype=torch.int64)
    weight = torch.randn(len(receiver), 2, dtype=torch.float64)
    basis = torch.randn(len(receiver), 5, dtype=torch.float64)
    blocks = EdgeBlocks.build(receiver, ATOMS, size)
    total = blocks.sum_outer(blocks.spread(weight, 0.0), blocks.spread(basis, 7.0), ATOMS)
    expected = torch.zeros(ATOMS, 2, 5, dtype=torch.float64)
    for edge, atom in enumerate(receiver):
        expected[atom] += torch.outer(weight[edge], basis[edge])
    torch.testing.assert_close(total, expected)


@given(receivers, sizes)
def test_every_edge_has_one_slot_in_a_block_of_its_receiver(receiver, size):
    receiver = torch.tensor(receiver, dtype=torch.int64)
    blocks = EdgeBlocks.build(receiver, ATOMS, size)
    slots = blocks.edge.unflatten(0, (-1, size)) if len(receiver) else blocks.edge[None]
    filled = slots < len(receiver)
    assert torch.equal(slots[filled].sort().values, torch.arange(len(receiver)))
    for block, atom in enumerate(blocks.receiver):
        assert (receiver[slots[block][filled[block]]] == atom).all()
        assert filled[block].any()


def test_padding_is_put_where_no_edge_is():
    blocks = EdgeBlocks.build(torch.tensor([0, 0, 2]), atoms=3, size=2)
    assert blocks.receiver.tolist() == [0, 2]
    assert blocks.spread(torch.tensor([1.0, 2.0, 3.0]), -1.0).tolist() == [[1, 2], [3, -1]]
    assert blocks.spread_index(torch.tensor([4, 5, 6])).tolist() == [[4, 5], [6, 0]]


def test_gradients_flow_through_blocks():
    blocks = EdgeBlocks.build(torch.tensor([0, 1, 1, 1]), atoms=2, size=2)
    weight = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    basis = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def total(weight, basis):
        return blocks.sum_outer(blocks.spread(weight, 0.0), blocks.spread(basis, 0.0), 2)

    assert torch.autograd.gradcheck(total, (weight, basis))
    assert torch.autograd.gradgradcheck(total, (weight, basis))


# ------------------------------------------------------------------------------------ radial


def derivatives(function, at, count):
    """Value and ``count`` derivatives of a function of one variable."""
    point = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    found = [function(point)]
    for _ in range(count):
        (slope,) = torch.autograd.grad(found[-1], point, create_graph=True)
        found.append(slope)
    return [value.item() for value in found]


def test_the_envelope_ends_with_two_derivatives():
    cutoff, just_inside = 5.0, 5.0 * (1 - 1e-9)
    assert derivatives(lambda r: envelope(r, cutoff), just_inside, 2) == pytest.approx(
        [0, 0, 0], abs=1e-6
    )
    third = derivatives(lambda r: envelope(r, cutoff), just_inside, 3)[3]
    assert third == pytest.approx(-336 / cutoff**3, rel=1e-6)


def test_the_envelope_by_hand():
    # 1 - 28/64 + 48/128 - 21/256 at half the cutoff
    assert envelope(torch.tensor([0.0, 2.0, 4.0, 9.0]), 4.0).tolist() == [1, 219 / 256, 0, 0]


def test_gaussians_stand_at_equal_distances():
    basis = GaussianBasis(4, radius=2.0)
    distance = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    values = basis(distance)
    assert torch.equal(values.argmax(dim=1), torch.tensor([0, 1, 3]))
    assert values.amax(dim=1).tolist() == [1, 1, 1]
    torch.testing.assert_close(values[0, 1], torch.tensor(-0.5, dtype=torch.float64).exp())


def test_gaussians_at_zero_take_type_and_value():
    basis = GaussianBasis(3, radius=2.0)
    like = torch.zeros(2, dtype=torch.float64)
    assert torch.equal(basis.at_zero(like), basis(torch.zeros(1, dtype=torch.float64))[0])


def test_norm_is_twice_differentiable(directions):
    assert torch.autograd.gradgradcheck(norm, directions[:3].clone().requires_grad_())


# --------------------------------------------------------------------------------- harmonics


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_harmonics_are_those_of_e3nn(directions, degree):
    ours = harmonics(directions, 3)[:, COMPONENTS[degree - 1] : COMPONENTS[degree]]
    theirs = o3.spherical_harmonics(degree, directions, normalize=True, normalization="component")
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("degree", "polynomial"),
    [(1, lambda c: c), (2, lambda c: (3 * c**2 - 1) / 2), (3, lambda c: (5 * c**3 - 3 * c) / 2)],
)
def test_addition_theorem(directions, degree, polynomial):
    values = harmonics(directions, degree)[:, COMPONENTS[degree - 1] :]
    legendre = polynomial(directions @ directions.T)
    torch.testing.assert_close(values @ values.T, (2 * degree + 1) * legendre)


def test_harmonics_are_orthogonal_over_the_sphere():
    # A product rule exact for polynomials of degree six: Gauss-Legendre in z, equal steps around.
    z, weight = (torch.from_numpy(numbers) for numbers in np.polynomial.legendre.leggauss(4))
    angle = torch.arange(8, dtype=torch.float64) * torch.pi / 4
    ring = torch.stack([angle.cos(), angle.sin()], dim=1)
    flat = (1 - z**2).sqrt()[:, None, None] * ring
    unit = torch.cat([flat, z[:, None, None].expand(-1, 8, 1)], dim=2).flatten(0, 1)
    values = harmonics(unit, 3)
    overlap = torch.einsum("p,pi,pj->ij", weight.repeat_interleave(8) / 16, values, values)
    torch.testing.assert_close(overlap, torch.eye(15, dtype=torch.float64))


def test_degree_zero_has_no_components(directions):
    assert harmonics(directions, 1).shape == (50, 3)
    assert COMPONENTS[0] == 0


# ----------------------------------------------------------------------------------- moments


def moments_of(weight, directions, degree=3):
    """Moments of one neighbourhood, (1, channels, components)."""
    return (weight.T @ harmonics(directions, degree))[None]


def test_moment_invariants_do_not_see_rotations_and_mirrors(directions):
    layer = MomentInvariants(channels=4, size=5, degree=3).double()
    weight = torch.randn(50, 4, dtype=torch.float64)
    turn = o3.rand_matrix(dtype=torch.float64)
    here = layer(moments_of(weight, directions))
    for operation in (turn, -turn):
        torch.testing.assert_close(layer(moments_of(weight, directions @ operation)), here)


def test_moment_invariants_see_angles(directions):
    layer = MomentInvariants(channels=4, size=5, degree=3).double()
    weight = torch.randn(50, 4, dtype=torch.float64)
    bent = directions.clone()
    bent[0] = -bent[0]
    change = layer(moments_of(weight, bent)) - layer(moments_of(weight, directions))
    assert (change.abs() > 1e-6).any()


def test_moment_invariants_are_the_power_spectrum_of_low_rank():
    # With one channel and unit weights: the mean over m of the squared moment, each degree.
    layer = MomentInvariants(channels=1, size=1, degree=2).double()
    layer.left.data.fill_(1)
    layer.right.data.fill_(1)
    two = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    found = layer(moments_of(torch.ones(2, 1, dtype=torch.float64), two, degree=2))
    # sum over pairs of Legendre polynomials: 2 P_l(1) + 2 P_l(0), times (2l+1) / (2l+1)
    torch.testing.assert_close(found, torch.tensor([[2.0, 1.0]], dtype=torch.float64))
