"""Sums over neighbours on edges and on atoms are tensor products, written as loops over edges."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from e3nn import o3
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy.physics.wigner import wigner_6j

from ase_crystalformer.neighbours import Radius, build
from ase_crystalformer.nn.neighbour_sums import EdgeSums, NodeSums, nodes_may_pay, nodes_pay
from ase_crystalformer.nn.recoupling import (
    Couplings,
    addition,
    part,
    recoupling,
    solid_harmonics,
    tables,
)
from ase_crystalformer.nn.unfolding import unfold

HEADS, WIDTH = 2, 6


def compact(atoms, size, seed=0):
    """Atoms in a box of their own, none closer to another than 1 Å."""
    rng = np.random.default_rng(seed)
    places = np.empty((0, 3))
    while len(places) < atoms:
        place = rng.random(3) * size
        if not len(places) or np.linalg.norm(places - place, axis=1).min() > 1.0:
            places = np.vstack([places, place])
    return Atoms(f"C{atoms}", positions=places)


def draw(atoms, cutoff, dtype=torch.float64):
    return build(atoms, Radius(cutoff)).to(dtype=dtype)


def places_of(graph, vector=None):
    vector = graph.vector if vector is None else vector
    return unfold(graph.receiver, graph.sender, graph.image, vector, graph.atoms)


def on_edges(graph, x, weight, couplings, vector=None):
    vector = graph.vector if vector is None else vector
    order, heads = couplings.order, weight.shape[2]
    sums = EdgeSums.build(graph.receiver, graph.sender, vector, graph.atoms, order, heads)
    return sums(x, weight, couplings)


def on_nodes(graph, x, weight, couplings, vector=None, places=None):
    vector = graph.vector if vector is None else vector
    places = places_of(graph, vector) if places is None else places
    return NodeSums.build(graph.receiver, vector, places, couplings.order)(x, weight, couplings)


def written(graph, x, weight, couplings):
    """One product per edge, path and head, in e3nn's words; the paths in the order of ours."""
    results = [[] for _ in range(couplings.outputs + 1)]
    vector = graph.vector.double()
    for order, output in product(range(couplings.order + 1), range(couplings.outputs + 1)):
        solid = o3.spherical_harmonics(order, vector, False, "component")
        solid = solid / vector.norm(dim=1, keepdim=True) ** order
        for degree in range(couplings.degree + 1):
            if not abs(degree - order) <= output <= degree + order:
                continue
            if (degree + order + output) % 2 and not couplings.odd:
                continue
            symbols = o3.wigner_3j(degree, order, output, dtype=torch.float64)
            total = torch.zeros(graph.atoms, 2 * output + 1, x.shape[2], dtype=torch.float64)
            for edge, (i, j) in enumerate(zip(graph.receiver, graph.sender, strict=True)):
                h = x[j, degree**2 : (degree + 1) ** 2].double()
                message = torch.einsum("mc,n,mno->oc", h, solid[edge], symbols)
                shares = weight[edge, order].double().repeat_interleave(x.shape[2] // HEADS)
                total[i] += (2 * output + 1) ** 0.5 * message * shares
            results[output].append(total)
    return [torch.cat(parts, dim=-1) for parts in results]


def random_input(graph, couplings, dtype=torch.float64):
    x = torch.randn(graph.atoms, (couplings.degree + 1) ** 2, WIDTH, dtype=dtype)
    return x, torch.randn(graph.edges, couplings.order + 1, HEADS, dtype=dtype)


def relative(given, expected):
    scale = max(part.abs().max().item() for part in expected)
    pairs = zip(given, expected, strict=True)
    return max((a.double() - b).abs().max().item() for a, b in pairs) / scale


# ------------------------------------------------------------------------------- the algebra


def test_solid_harmonics_are_those_of_e3nn():
    vector = torch.randn(20, 3, dtype=torch.float64)
    theirs = o3.spherical_harmonics([0, 1, 2], vector, False, "component")
    torch.testing.assert_close(solid_harmonics(vector, 2), theirs, rtol=1e-12, atol=1e-12)
    assert solid_harmonics(torch.zeros(3), 2).tolist() == [1] + [0] * 8


def test_solid_harmonics_of_a_sum_are_a_sum_of_products():
    a, b = torch.randn(2, 3, dtype=torch.float64)
    one, other = solid_harmonics(a, 2), solid_harmonics(b, 2)
    for degree in range(3):
        total = torch.zeros(2 * degree + 1, dtype=torch.float64)
        for v in range(degree + 1):
            u = degree - v
            symbols = o3.wigner_3j(v, u, degree, dtype=torch.float64)
            both = torch.einsum("m,n,mno->o", one[part(v)], other[part(u)], symbols)
            total += addition(v, u) * both
        torch.testing.assert_close(total, solid_harmonics(a + b, 2)[part(degree)])


def test_recoupling_is_a_6j_symbol():
    found = 0
    for h, v, u, o, k in product(range(4), range(3), range(3), range(4), range(5)):
        allowed = all(
            abs(a - b) <= c <= a + b
            for a, b, c in ((h, v, k), (k, u, o), (h, v + u, o), (v, u, v + u))
        )
        if allowed and v + u <= 2:
            symbol = (2 * k + 1) * float(wigner_6j(h, v, k, u, o, v + u))
            assert abs(recoupling(h, v, u, o, k)) == pytest.approx(abs(symbol), abs=1e-12)
            found += 1
    assert found == 65


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_coupling_before_and_after_is_coupling_at_once(order, odd):
    known = tables(Couplings(3, 2, 3, odd), torch.float64, torch.device("cpu"))
    p, q = torch.randn(2, 3, dtype=torch.float64)
    h = torch.randn(16, dtype=torch.float64)
    edge, here, there = (solid_harmonics(r, order) for r in (q - p, -p, q))
    once = torch.einsum("omn,m,n->o", known.whole[order], edge[part(order)], h)
    middle = torch.einsum("omn,m,n->o", known.before[order], there, h)
    twice = torch.einsum("omn,m,n->o", known.after[order], here, middle)
    torch.testing.assert_close(twice, once, rtol=1e-12, atol=1e-12)


def test_constants_made_in_inference_mode_can_be_differentiated_through():
    tables.cache_clear()
    with torch.inference_mode():
        known = tables(Couplings(1, 1, 1), torch.float32, torch.device("cpu"))
    assert not any(table.is_inference() for table in known.whole + known.before + known.after)


# ---------------------------------------------------------------------------------- the sums


@pytest.mark.parametrize("couplings", [Couplings(2, 2, 2), Couplings(3, 2, 1, odd=True)], ids=str)
def test_both_ways_are_what_is_written(wurtzite, couplings):
    graph = draw(wurtzite, 3.5)
    x, weight = random_input(graph, couplings)
    expected = written(graph, x, weight, couplings)
    assert couplings.channels(WIDTH) == tuple(part.shape[2] for part in expected)
    assert relative(on_edges(graph, x, weight, couplings), expected) < 1e-13
    assert relative(on_nodes(graph, x, weight, couplings), expected) < 1e-12


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    atoms=st.integers(1, 6),
    order=st.integers(0, 2),
    odd=st.booleans(),
    periodic=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_both_ways_agree(seed, atoms, order, odd, periodic):
    rng = np.random.default_rng(seed)
    crystal = compact(atoms, size=4.0, seed=seed)
    crystal.set_cell(4 * np.eye(3) + rng.uniform(-1.5, 1.5, (3, 3)))
    crystal.pbc = periodic
    # Anywhere, not in the cell it is described by.
    crystal.positions += rng.integers(-3, 4, (atoms, 3)) * periodic @ crystal.cell.array
    couplings = Couplings(2, order, 2, odd)
    graph = draw(crystal, 4.5)
    x, weight = random_input(graph, couplings)
    edges = on_edges(graph, x, weight, couplings)
    nodes = on_nodes(graph, x, weight, couplings)
    scale = max(1.0, *(part.abs().max().item() for part in edges))
    for a, b in zip(nodes, edges, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", ["rocksalt", "diamond", "wurtzite", "perovskite"])
def test_single_precision_is_enough_for_a_usual_cell(request, name, order):
    couplings = Couplings(2, order, 2)
    graph = draw(request.getfixturevalue(name), 5.0)
    x, weight = random_input(graph, couplings, torch.float32)
    expected = on_edges(graph, x.double(), weight.double(), couplings)
    single = graph.to(dtype=torch.float32)
    assert relative(on_edges(single, x, weight, couplings), expected) < 1e-6
    assert relative(on_nodes(single, x, weight, couplings), expected) < 1e-6


def test_places_far_from_the_origin_would_spoil_single_precision(perovskite):
    couplings = Couplings(2, 2, 2)
    graph = draw(perovskite, 5.0, torch.float32)
    x, weight = random_input(graph, couplings, torch.float32)
    expected = [part.double() for part in on_edges(graph, x, weight, couplings)]
    places = places_of(graph)
    away = replace(places, atom=places.atom + 500, image=places.image + 500)
    assert relative(on_nodes(graph, x, weight, couplings, places=away), expected) > 1e-3


def test_derivatives_agree_too(wurtzite):
    """Of first and second order, by features, weights, positions and cell."""
    couplings = Couplings(2, 2, 2)
    graph = draw(wurtzite, 3.0)
    x, weight = (leaf.requires_grad_() for leaf in random_input(graph, couplings))
    positions = graph.positions.clone().requires_grad_()
    cell = graph.cell.clone().requires_grad_()
    leaves = (x, weight, positions, cell)
    slopes, curvatures = [], []
    for way in (on_edges, on_nodes):
        vector = graph.moved(positions, cell).vector
        made = way(graph, x, weight, couplings, vector)
        value = sum(torch.sin(part).sum() for part in made)
        slope = torch.autograd.grad(value, leaves, create_graph=True)
        slopes.append(slope)
        curvatures.append(torch.autograd.grad(sum(s.square().sum() for s in slope), leaves))
    for edges, nodes in (slopes, curvatures):
        for expected, given_ in zip(edges, nodes, strict=True):
            assert expected.abs().max() > 1e-3
            scale = expected.abs().max().item()
            torch.testing.assert_close(given_, expected, rtol=0, atol=1e-10 * scale)


def test_a_crowded_molecule_is_summed_on_nodes_and_a_small_crystal_on_edges(rocksalt):
    cluster, crystal = draw(compact(64, 8.0), 20.0), draw(rocksalt, 6.0)
    assert nodes_may_pay(cluster.edges, cluster.crystal)
    assert nodes_pay(cluster.edges, places_of(cluster))
    assert not nodes_may_pay(crystal.edges, crystal.crystal)
    assert not nodes_pay(crystal.edges, places_of(crystal))


def test_a_large_cell_is_summed_on_edges():
    large = draw(bulk("Cu", "fcc", a=3.61, cubic=True).repeat(2), 5.0)
    assert nodes_may_pay(large.edges, large.crystal)
    assert not nodes_pay(large.edges, places_of(large))


# -------------------------------------------------------------------------------- the places


@pytest.mark.parametrize("name", ["fcc", "wurtzite", "left_handed", "slab", "water"])
def test_every_edge_is_the_difference_of_two_places(request, name):
    graph = draw(request.getfixturevalue(name), 5.0)
    places = places_of(graph)
    drawn = places.image[places.of_edge] - places.atom[graph.receiver]
    torch.testing.assert_close(drawn, graph.vector, rtol=0, atol=1e-12)
    assert (places.sender[places.of_edge] == graph.sender).all()


def test_every_image_is_placed_once(perovskite):
    places = places_of(draw(perovskite, 5.0))
    apart = torch.cdist(places.image, places.image).fill_diagonal_(torch.inf)
    assert apart.min() > 1.0


def test_a_crystal_is_put_together_wherever_its_atoms_are_said_to_be(perovskite, rng):
    here = places_of(draw(perovskite, 5.0))
    perovskite.positions += rng.integers(-9, 10, (5, 3)) @ perovskite.cell.array
    there = places_of(draw(perovskite, 5.0))
    assert len(here.image) == len(there.image)
    assert there.image.norm(dim=1).max() < 10


def test_groups_that_no_edge_joins_have_frames_of_their_own():
    atoms = Atoms("H2OCO", [[0, 0, 0], [1, 0, 0], [90, 0, 0], [50, 0, 0], [50, 1, 0]])
    places = places_of(draw(atoms, 3.0))
    first, _, lone, *_ = places.group.tolist()
    assert places.groups == 3
    assert places.group.tolist().count(first) == 2
    assert places.group.tolist().count(lone) == 1
    assert places.atom.norm(dim=1).max() == pytest.approx(0.5)


def test_atoms_without_neighbours_sum_to_zero():
    couplings = Couplings(1, 2, 1)
    graph = draw(Atoms("He2", [[0, 0, 0], [50, 0, 0]]), 3.0)
    x, weight = random_input(graph, couplings)
    for way in (on_edges, on_nodes):
        assert not any(part.any() for part in way(graph, x, weight, couplings))
