"""The algebra in Pauli matrices and two parts is that of sorted basis vectors."""

import blades
import pytest
import torch

from ase_crystalformer.nn import multivectors
from ase_crystalformer.nn.multivectors import (
    MultivectorLinear,
    MultivectorNorm,
    MultivectorProducts,
    distance_key,
    distance_query,
    edge_actions,
    points,
    shifted,
)
from ase_crystalformer.testing import randomised

EXACT = {"rtol": 1e-12, "atol": 1e-12}
PARTS = pytest.mark.parametrize("parts", [1, 2])


@pytest.fixture
def draw(dtype):
    """Random multivectors of three rows and four channels."""
    return lambda parts, rows=3, channels=4: torch.randn(8, rows, parts, channels, dtype=dtype)


def direction():
    return torch.nn.functional.normalize(torch.randn(3, dtype=torch.float64), dim=0).tolist()


def mirrors(number, offset):
    return [blades.plane(direction(), offset * (k + 1)) for k in range(number)]


@PARTS
def test_products_of_all_blades(parts):
    for row, part in [(row, part) for row in range(8) for part in range(parts)]:
        x = torch.zeros(8, 1, parts, 8 * parts, dtype=torch.float64)
        x[row, 0, part] = 1
        y = torch.eye(8 * parts, dtype=torch.float64).view(8, parts, -1)[:, None]
        found = multivectors.geometric_product(x, y)
        assert torch.equal(found, blades.each(blades.times, x, y))


def test_joins_are_duals_of_wedged_duals(draw):
    x, y = draw(2), draw(2)
    torch.testing.assert_close(multivectors.join(x, y), blades.each(blades.join, x, y), **EXACT)


def test_two_points_join_to_the_line_both_lie_on(draw):
    x, y = draw(2, channels=1), draw(2, channels=1)
    for point in (x, y):
        point[:, :, 0] = point[:, :, 1] = 0
        point[7, :, 0] = 1
        point[4:7, :, 1, 0] = torch.randn(3, 3, dtype=x.dtype)
    line = multivectors.join(x, y)
    along = (y - x)[4:7, :, 1]
    torch.testing.assert_close(line[4:7, :, 0].abs(), along.abs(), **EXACT)
    torch.testing.assert_close(multivectors.join(line, x), torch.zeros_like(line), **EXACT)


def test_the_euclidean_join_is_the_projective_one_without_e0(draw):
    x, y = draw(1), draw(1)
    ideal = [torch.cat([torch.zeros_like(part), part], dim=2) for part in (x, y)]
    both = multivectors.join(*ideal)
    torch.testing.assert_close(both[:, :, 1:], multivectors.join(x, y), **EXACT)


def test_an_edge_translates_projective_multivectors(draw, dtype):
    x, by = draw(2), torch.randn(3, dtype=dtype)
    length = by.norm().item()
    pair = [blades.plane((by / length).tolist(), offset) for offset in (0.0, length / 2)]
    found = torch.einsum("cpxdq,ndqk,x->cnpk", *_with_ones(edge_actions(2), x, by))
    point = blades.moved({14: 1.0}, pair)
    assert blades.written(point, 2)[4:7, 1].tolist() == pytest.approx(by.tolist())
    expected = blades.each(lambda m: blades.moved(m, pair), x)
    torch.testing.assert_close(found, expected, **EXACT)


def test_an_edge_multiplies_euclidean_multivectors_from_the_right(draw, dtype):
    x, by = draw(1), torch.randn(3, dtype=dtype)
    vector = dict(zip((0, 2, 4, 8), [1.0, *by.tolist()], strict=True))
    found = torch.einsum("cpxdq,ndqk,x->cnpk", *_with_ones(edge_actions(1), x, by))
    expected = blades.each(lambda m: blades.times(m, vector), x)
    torch.testing.assert_close(found, expected, **EXACT)


def _with_ones(table, x, by):
    return table.to(x), x.transpose(0, 1), torch.cat([by.new_ones(1), by])


@PARTS
def test_scores_of_points_are_squared_distances(draw, dtype, parts):
    query, key, by = draw(parts, channels=6), draw(parts, channels=3), torch.randn(3, 3).to(dtype)
    scale = torch.rand(2, 3, dtype=dtype)
    asked = distance_query(points(query, 0.1).unflatten(2, (2, 3)), scale)
    found = torch.einsum("nhf,nf->nh", asked, distance_key(shifted(points(key, 0.1), by)))
    expected = torch.zeros(3, 2, dtype=dtype)
    for n in range(3):
        for h, c in [(h, c) for h in range(2) for c in range(3)]:
            (p, w), (q, v) = (_point(x[:, n, :, k]) for x, k in ((query, 3 * h + c), (key, c)))
            square = (v * p - w * (q + v * by[n])).square().sum()
            expected[n, h] -= scale[h, c] * square
    if parts == 1:
        # What every key has in common falls out of a softmax and is left out.
        expected += (scale * points(query, 0.1).square().sum(1).unflatten(1, (2, 3))).sum(2)
    torch.testing.assert_close(found, expected, **EXACT)


def _point(column):
    if column.shape[1] == 1:
        return column[1:4, 0], 1.0
    weight = column[7, 0]
    scale = weight / (weight**2 + 0.1)
    return column[4:7, 1] * scale, weight * scale


def by_hand(linear, x, s):
    """A sum over grade projections of every pair of channels, and their products with e0."""
    parts = x.shape[2]
    y = torch.zeros(8, x.shape[1], parts, linear.weight.shape[2], dtype=x.dtype)
    for row in range(x.shape[1]):
        for out in range(y.shape[3]):
            total = {}
            for into in range(x.shape[3]):
                one = blades.read(x[:, row, :, into])
                for k, weight in enumerate(linear.weight[:, into, out].tolist()):
                    total = blades.add(total, blades.scaled(blades.part(one, k), weight))
                for k, weight in enumerate(
                    linear.ideal[:, into, out].tolist() if parts == 2 else []
                ):
                    raised = blades.times({1: weight}, blades.part(one, k))
                    total = blades.add(total, raised)
            y[:, row, :, out] = blades.written(total, parts)
    shift = s @ linear.mixed.weight.T + linear.mixed.bias
    y[0, :, 0] += shift[:, linear.scalars :]
    return y, shift[:, : linear.scalars] + x[0, :, 0] @ linear.lower


@PARTS
def test_linear_maps_are_sums_of_grade_projections(draw, dtype, parts):
    linear = randomised(MultivectorLinear(parts, (4, 5), (3, 2))).to(dtype)
    x, s = draw(parts), torch.randn(3, 5, dtype=dtype)
    with torch.no_grad():
        for found, expected in zip(linear(x, s), by_hand(linear, x, s), strict=True):
            torch.testing.assert_close(found, expected, **EXACT)


def layers(parts):
    return {
        "linear": MultivectorLinear(parts, (4, 5), (4, 5)),
        "published norm": MultivectorNorm(parts, joint=True),
        "norm": MultivectorNorm(parts, joint=False),
        "products": MultivectorProducts(parts, (4, 5), joins=False),
        "joins": MultivectorProducts(parts, (4, 5), joins=True),
    }


def transformation_error(layer, x, s, pair):
    """How far a layer is from commuting with a sandwich."""
    there = [blades.each(lambda m: blades.moved(m, pair), x), s]
    with torch.no_grad():
        (y, t), (turned, u) = layer(x, s), layer(*there)
    expected = blades.each(lambda m: blades.moved(m, pair), y)
    return max((turned - expected).abs().max().item(), (t - u).abs().max().item())


#: Which layers commute with which transformations.
@pytest.mark.parametrize(
    ("name", "parts", "number", "offset", "holds"),
    [
        ("linear", 1, 1, 0, True),
        ("published norm", 1, 1, 0, True),
        ("norm", 1, 1, 0, True),
        ("products", 1, 1, 0, True),
        ("products", 1, 2, 0, True),
        ("joins", 1, 2, 0, True),
        ("joins", 1, 1, 0, False),
        ("linear", 2, 1, 0.7, True),
        ("linear", 2, 2, 0.7, True),
        ("published norm", 2, 2, 0.7, True),
        ("norm", 2, 1, 0, True),
        ("norm", 2, 2, 0.7, False),
        ("products", 2, 2, 0, True),
        ("products", 2, 2, 0.7, True),
        ("products", 2, 1, 0, False),
    ],
)
def test_layers_commute_with_motions(draw, dtype, name, parts, number, offset, holds):
    layer = randomised(layers(parts)[name]).to(dtype)
    x, s = draw(parts), torch.randn(3, 5, dtype=dtype)
    error = transformation_error(layer, x, s, mirrors(number, offset))
    assert error < 1e-11 if holds else error > 1e-3


def test_norms_leave_small_multivectors_and_bound_large_ones(draw):
    norm = MultivectorNorm(1, joint=False).double()
    x, s = draw(1), torch.randn(3, 5, dtype=torch.float64)
    small, large = norm(1e-6 * x, s)[0], norm(1e6 * x, s)[0]
    torch.testing.assert_close(small, 1e-6 * x, rtol=1e-9, atol=0)
    squares = large.square().mean(3)[:, :, 0]
    per_grade = torch.stack([squares[0], squares[1:4].sum(0), squares[4:7].sum(0), squares[7]])
    torch.testing.assert_close(per_grade, torch.ones_like(per_grade))
