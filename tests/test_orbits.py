"""Equivalent atoms, computed once."""

import pytest
import torch

from ase_crystalformer.heads import attention_over_atoms, mean_over_atoms, sum_over_atoms
from ase_crystalformer.neighbours import Radius, build
from ase_crystalformer.orbits import orbits, reduce
from ase_crystalformer.testing import crystals

SYMMETRIC = crystals.symmetric()
RULE = Radius(4.5)


def reduced(crystal):
    graph = build(crystal, RULE)
    return graph, reduce(graph)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("fcc", [1]),
        ("diamond", [2]),
        ("rocksalt", [1, 1]),
        ("wurtzite", [2, 2]),
        ("perovskite", [1, 1, 3]),
        ("tellurium", [3]),
    ],
)
def test_one_atom_per_orbit_is_kept(name, sizes):
    crystal = SYMMETRIC[name]
    graph, few = reduced(crystal)
    assert few.multiplicity.tolist() == sizes
    assert set(few.species.tolist()) == set(graph.species.tolist())


def test_a_supercell_reduces_to_the_orbits_of_its_cell():
    _, few = reduced(crystals.repeated(SYMMETRIC["perovskite"], (2, 1, 2)))
    assert few.multiplicity.tolist() == [4, 4, 12]


@pytest.mark.parametrize("name", SYMMETRIC)
def test_a_representative_represents_itself(name):
    graph = build(crystals.repeated(SYMMETRIC[name], (2, 1, 1)), RULE)
    orbit = orbits(graph)
    assert torch.equal(orbit[orbit], orbit)
    assert torch.equal(graph.species[orbit], graph.species)


def test_handedness_of_the_cell_does_not_matter():
    _, few = reduced(crystals.left_handed(SYMMETRIC["perovskite"]))
    assert few.multiplicity.tolist() == [1, 1, 3]


@pytest.mark.parametrize("name", SYMMETRIC)
def test_representatives_keep_their_surroundings(name):
    graph, few = reduced(SYMMETRIC[name])
    kept = orbits(graph).unique()
    for number, atom in enumerate(kept):
        before, after = graph.receiver == atom, few.receiver == number
        seen = torch.stack([graph.species[graph.sender[before]], graph.vector[before].norm(dim=1)])
        shown = torch.stack([few.species[few.sender[after]], few.vector[after].norm(dim=1)])
        assert torch.equal(seen.T.unique(dim=0), shown.T.unique(dim=0))
        assert before.sum() == after.sum()


@pytest.mark.parametrize("name", SYMMETRIC)
def test_edges_stay_sorted_by_receiver_and_sender(name):
    _, few = reduced(SYMMETRIC[name])
    rank = few.receiver * few.atoms + few.sender
    assert (rank.diff() >= 0).all()
    assert few.sender.max() < few.atoms


def test_sums_and_means_over_atoms_count_the_orbit():
    graph, few = reduced(SYMMETRIC["perovskite"])
    for pool in (sum_over_atoms, mean_over_atoms):
        whole = pool(graph.species.double()[:, None], graph)
        torch.testing.assert_close(pool(few.species.double()[:, None], few), whole)
    score = graph.species.double()[:, None] / 20
    whole = attention_over_atoms(graph.species.double()[:, None], score, graph)
    of_few = attention_over_atoms(few.species.double()[:, None], few.species[:, None] / 20, few)
    torch.testing.assert_close(of_few.to(whole), whole)


@pytest.mark.parametrize(
    "crystal",
    [crystals.rattled(crystals.perovskite()), crystals.slab(), crystals.molecule()],
    ids=["rattled", "slab", "molecule"],
)
def test_without_symmetry_every_atom_is_its_own_orbit(crystal):
    graph, few = reduced(crystal)
    assert orbits(graph).tolist() == list(range(graph.atoms))
    for name in ("species", "multiplicity", "receiver", "sender", "image", "vector"):
        assert torch.equal(getattr(few, name), getattr(graph, name))


def test_the_tolerance_says_how_symmetric_is_symmetric():
    graph = build(crystals.rattled(crystals.perovskite(), by=0.01), RULE)
    assert orbits(graph, tolerance=1e-4).tolist() == [0, 1, 2, 3, 4]
    assert orbits(graph, tolerance=0.2).tolist() == [0, 1, 2, 2, 2]
