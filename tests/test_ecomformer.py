"""eComFormer's tensor products, contracted per atom, are Clebsch-Gordan sums over edges."""

from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation

from ase_crystalformer.encoders.ecomformer import Config, Directions, EComFormer, Lift, Lower
from ase_crystalformer.heads import PropertyHead
from ase_crystalformer.neighbours import Radius, build
from ase_crystalformer.nn.harmonics import harmonics
from ase_crystalformer.targets import Target
from ase_crystalformer.testing import randomised

SMALL = Config(width=12, scalars=6, vectors=3, basis=8)
EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture
def graph(perovskite, seed):
    perovskite.rattle(0.1, seed=seed)
    return build(perovskite, Radius(4.0))


@pytest.fixture
def features(graph, dtype):
    """Random features of distances, the same for an edge and its reverse."""
    table = torch.randn(SMALL.basis, SMALL.width, dtype=dtype)
    length = graph.vector.norm(dim=1, keepdim=True)
    return torch.sin(length * torch.arange(1, SMALL.basis + 1)) @ table


@pytest.fixture
def products(dtype):
    return randomised(Lift(SMALL)).to(dtype), randomised(Lower(SMALL)).to(dtype)


def directions(graph, features):
    unit = torch.nn.functional.normalize(graph.vector, dim=1)
    weight = 1 / (1 + graph.vector.norm(dim=1))
    bond = torch.arange(graph.edges)
    return Directions(features, bond, harmonics(unit, 2), weight, graph)


def clebsch_gordan(left, right, out, like):
    """Coefficients in e3nn's normalisation: of unit variance per component of the result."""
    from e3nn.o3 import wigner_3j

    return (2 * out + 1) ** 0.5 * wigner_3j(left, right, out, dtype=like.dtype)


def edge_weights(product, features):
    """One matrix per edge, as the paper has it."""
    weights = product.weights
    return weights.last(weights.hidden(features)).unflatten(1, weights.shape)


def published(products, x, graph, features):
    """Both products edge by edge in e3nn's basis; the first adds its input, padded with zeros."""
    from e3nn.o3 import spherical_harmonics

    lift, lower = products
    ylm = [
        spherical_harmonics(degree, graph.vector, normalize=True, normalization="component")
        for degree in range(3)
    ]
    weight = 1 / (1 + graph.vector.norm(dim=1))

    def gather(messages):
        return torch.stack([messages[graph.receiver == i].sum(0) for i in range(graph.atoms)])

    matrices = edge_weights(lift, features).split(lift.sizes, dim=2)
    between = []
    for degree, matrix in enumerate(matrices):
        cg = clebsch_gordan(0, degree, degree, x) / SMALL.scalars**0.5
        sent = torch.einsum(
            "e,ec,em,imn,ecd->edn", weight, x[graph.sender], ylm[degree], cg, matrix
        )
        between.append(gather(sent))
    between[0] = between[0] + x[..., None]
    matrices = edge_weights(lower, features).split(lift.sizes, dim=1)
    total = torch.zeros_like(x)
    for degree, matrix in enumerate(matrices):
        cg = clebsch_gordan(degree, degree, 0, x) / sum(lift.sizes) ** 0.5
        sent = torch.einsum(
            "e,ecm,en,mnk,ecd->ed", weight, between[degree][graph.sender], ylm[degree], cg, matrix
        )
        total = total + gather(sent)
    return total, between


def ours(products, x, graph, features):
    lift, lower = products
    near = directions(graph, features)
    between = lift(x, near)
    between = type(between)(between.scalar + x, between.vector, between.tensor)
    return lower(between, near), between


def test_products_are_clebsch_gordan_sums(products, graph, features, dtype):
    x = torch.randn(graph.atoms, SMALL.scalars, dtype=dtype)
    scalars, between = ours(products, x, graph, features)
    expected, middle = published(products, x, graph, features)
    torch.testing.assert_close(scalars, expected, **EXACT)
    torch.testing.assert_close(between.scalar, middle[0][..., 0], **EXACT)
    torch.testing.assert_close(between.vector, middle[1], **EXACT)
    torch.testing.assert_close(between.tensor, middle[2], **EXACT)


def test_vectors_and_tensors_turn_with_the_crystal(products, graph, features, dtype, seed):
    x = torch.randn(graph.atoms, SMALL.scalars, dtype=dtype)
    turn = torch.from_numpy(Rotation.random(rng=seed).as_matrix())
    _, before = ours(products, x, graph, features)
    scalars, after = ours(products, x, graph.with_vector(graph.vector @ turn.T), features)
    torch.testing.assert_close(after.vector, before.vector @ turn.T, **EXACT)
    # A rank-two tensor turns as the harmonics of degree two of any points do.
    points = torch.nn.functional.normalize(torch.randn(20, 3, dtype=dtype), dim=1)
    here, there = harmonics(points, 2)[:, 3:], harmonics(points @ turn.T, 2)[:, 3:]
    of_tensors = torch.linalg.lstsq(here, there).solution
    torch.testing.assert_close(after.tensor, before.tensor @ of_tensors, **EXACT)
    torch.testing.assert_close(after.scalar, before.scalar, **EXACT)
    torch.testing.assert_close(scalars, ours(products, x, graph, features)[0], **EXACT)


def test_published_number_of_parameters():
    encoder = EComFormer(Config(mode="paper"))
    head = PropertyHead(encoder.width, [Target(name="formation_energy", unit="eV/atom")])
    ours = sum(weight.numel() for module in (encoder, head) for weight in module.parameters())
    assert ours == 5_583_809


@pytest.mark.parametrize("mode", ["paper", "smooth"])
def test_every_weight_acts(wurtzite, mode):
    encoder = randomised(EComFormer(replace(SMALL, mode=mode)))
    graph = build(wurtzite, encoder.rule).to(dtype=torch.float32)
    encoder(graph).invariant.square().sum().backward()
    still = [name for name, w in encoder.named_parameters() if w.grad is None or not w.grad.any()]
    assert not still


def test_paper_mode_takes_means_over_neighbours(wurtzite, dtype):
    encoder = EComFormer(Config(mode="paper", width=12)).to(dtype)
    graph = build(wurtzite, encoder.rule)
    weight, share = encoder._weights(graph, graph.vector.norm(dim=1))
    assert weight is None
    total = torch.zeros(graph.atoms, dtype=dtype).index_add(0, graph.receiver, share)
    torch.testing.assert_close(total, torch.ones(graph.atoms, dtype=dtype))
