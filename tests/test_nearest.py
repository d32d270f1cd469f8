"""The graph of nearest neighbours is a matter of the crystal, not of how the crystal is written."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ase_crystalformer.errors import BadStructure
from ase_crystalformer.neighbours import build
from ase_crystalformer.neighbours.nearest import Nearest

RULE = Nearest()
SUPERCELLS = {
    "conventional": [[-1, 1, 1], [1, -1, 1], [1, 1, -1]],
    "doubled": [[2, 0, 0], [0, 1, 0], [0, 0, 1]],
    "sheared": [[1, 1, 0], [0, 1, 2], [1, 0, 0]],
    "other handedness": [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
}


def zincblende():
    """Cubic, but without inversion: equally long lattice vectors see different surroundings."""
    return bulk("ZnS", "zincblende", a=5.41)


def carbon_in_a_box(lengths, seed):
    """Four carbon atoms anywhere: the box has symmetries that the crystal has not."""
    places = np.random.default_rng(seed).random((4, 3))
    return Atoms("C4", scaled_positions=places, cell=lengths, pbc=True)


CRYSTALS = {
    "copper": bulk("Cu", "fcc", a=3.61),
    "iron": bulk("Fe", "bcc", a=2.87),
    "silicon": bulk("Si", "diamond", a=5.43),
    "sphalerite": zincblende(),
    "wurtzite": bulk("ZnS", "wurtzite", a=3.82, c=6.26),
    "carbon in a cube": carbon_in_a_box([4, 4, 4], seed=0),
    "carbon in a prism": carbon_in_a_box([4, 4, 6, 90, 90, 120], seed=1),
    "carbon in a long box": carbon_in_a_box([3, 3, 20], seed=2),
}


def description(graph):
    """All a model may see of the graph, in no particular order of atoms and edges: how long the
    lattice vectors are, and for each edge the elements, the length, and its angles to them."""
    lengths = np.linalg.norm(graph.cell[0].numpy(), axis=1)
    vector = graph.vector.numpy()
    distance = np.linalg.norm(vector, axis=1)
    cosines = vector @ graph.cell[0].numpy().T / lengths / distance[:, None]
    ends = graph.species[graph.receiver].numpy(), graph.species[graph.sender].numpy()
    rows = np.column_stack([*ends, distance, cosines]).round(5) + 0.0
    return np.vstack([[0, 0, 0, *lengths], rows[np.lexsort(rows.T[::-1])]])


def rewritten(crystal, supercell, seed):
    """The same crystal: larger cell, turned, shifted, its atoms in another order and place."""
    rng = np.random.default_rng(seed)
    other = make_supercell(crystal, supercell)
    turn = Rotation.random(rng=rng).as_matrix()
    other.set_cell(other.cell.array @ turn.T, scale_atoms=True)
    other.positions += rng.normal(scale=20, size=3)
    other.positions += rng.integers(-3, 3, size=(len(other), 3)) @ other.cell.array
    return other[rng.permutation(len(other))]


@pytest.mark.parametrize("supercell", SUPERCELLS.values(), ids=SUPERCELLS)
@pytest.mark.parametrize("crystal", CRYSTALS.values(), ids=CRYSTALS)
def test_the_graph_does_not_depend_on_how_the_crystal_is_written(crystal, supercell):
    expected = description(build(crystal, RULE))
    for seed, backend in enumerate(["pymatgen", "vesin"]):
        graph = build(rewritten(crystal, supercell, seed), RULE, backend=backend)
        found = description(graph)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_noise_changes_no_edge():
    rattled = CRYSTALS["wurtzite"].copy()
    rattled.rattle(1e-7, seed=0)
    expected, found = (build(crystal, RULE) for crystal in (CRYSTALS["wurtzite"], rattled))
    assert found.edges == expected.edges
    np.testing.assert_allclose(description(found), description(expected), atol=1e-4)


def test_mirror_images_differ():
    crystal = CRYSTALS["carbon in a cube"]
    mirrored = crystal.copy()
    mirrored.set_cell(crystal.cell.array * [1, 1, -1], scale_atoms=True)
    here, there = (description(build(each, RULE)) for each in (crystal, mirrored))
    assert here.shape != there.shape or np.abs(here - there).max() > 0.01


@pytest.mark.parametrize("crystal", CRYSTALS.values(), ids=CRYSTALS)
def test_every_atom_has_its_nearest_neighbours_and_every_edge_its_reverse(crystal):
    graph = build(crystal, RULE)
    assert (graph.receiver.bincount(minlength=graph.atoms) >= RULE.count).all()
    assert (graph.receiver.diff() >= 0).all()
    images = graph.image.tolist()
    edges = list(zip(graph.receiver.tolist(), graph.sender.tolist(), images, strict=True))
    for receiver, sender, image in edges:
        assert (sender, receiver, [-step for step in image]) in edges
    assert len({str(edge) for edge in edges}) == len(edges)


@pytest.mark.parametrize(
    ("crystal", "count", "expected"),
    [("copper", 12, 12), ("copper", 13, 12 + 6), ("iron", 8, 8), ("iron", 9, 8 + 6)],
)
def test_shells_are_whole(crystal, count, expected):
    graph = build(CRYSTALS[crystal], Nearest(count))
    assert graph.edges == expected


def test_a_shell_split_by_less_than_the_tolerance_is_whole():
    stretched = bulk("Cu", "fcc", a=3.61)
    stretched.set_cell(stretched.cell.array * [1, 1, 1.0002], scale_atoms=True)
    lengths = np.unique(build(stretched, Nearest(12)).vector.norm(dim=1).numpy().round(6))
    assert len(lengths) == 2
    assert build(stretched, Nearest(4, cutoff=lengths.mean())).edges == 12


def test_atoms_see_their_images_along_each_lattice_vector_once():
    graph = build(carbon_in_a_box([3, 3, 20], seed=2), Nearest(4))
    itself = graph.receiver == graph.sender
    lone_steps = graph.image[itself].abs().sum(dim=1) == 1
    assert lone_steps.sum() == graph.atoms * 6


def test_the_lattice_vectors_are_those_of_the_paper():
    cell = np.array([[4.0, 0, 0], [-1.0, 5.0, 0], [0.5, -0.7, 6.0]])
    longer = [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    crystal = Atoms("H", cell=longer @ cell, pbc=True)
    e1, e2, e3 = build(crystal, RULE).cell[0].numpy()
    found = [np.linalg.norm(vector) for vector in (e1, e2, e3)]
    np.testing.assert_allclose(found, np.linalg.norm(cell, axis=1))
    assert e1 @ e2 >= 0
    assert e1 @ e3 >= 0
    assert np.linalg.det([e1, e2, e3]) > 0


@settings(max_examples=20)
@given(st.floats(0.5, 12))
def test_the_starting_radius_does_not_matter(cutoff):
    graph = build(CRYSTALS["wurtzite"], Nearest(12, cutoff=cutoff))
    assert graph.edges == build(CRYSTALS["wurtzite"], Nearest(12)).edges


def test_a_structure_without_three_repeats_has_no_such_graph(slab, water):
    for structure in (slab, water):
        with pytest.raises(BadStructure, match="use a model with a radius graph"):
            build(structure, RULE)


def test_two_atoms_in_one_place_are_named(rocksalt):
    rocksalt.append("Na")
    with pytest.raises(BadStructure, match=r"Atoms 0 and 2 are 0\.0000 Å apart"):
        build(rocksalt, RULE)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"cutoff": 0.0}, {"tolerance": -1e-3}])
def test_a_rule_out_of_range(wrong):
    with pytest.raises(ValueError, match="are needed"):
        Nearest(**wrong)
