"""From atom features to quantities: pooling, energies, forces, stress, repulsion."""

import math
from dataclasses import replace

import ase.data
import numpy as np
import pytest
import torch
from ase import units
from ase.calculators.lj import LennardJones

from ase_crystalformer.encoders.base import AtomFeatures
from ase_crystalformer.graph import collate
from ase_crystalformer.heads import (
    EnergyHead,
    PropertyHead,
    attention_over_atoms,
    forces_and_stress,
    mean_over_atoms,
    sum_over_atoms,
)
from ase_crystalformer.neighbours import Radius, build
from ase_crystalformer.repulsion import COVALENT_RADII, repulsion
from ase_crystalformer.targets import Target
from ase_crystalformer.testing import crystals

REACH = Radius(5.0)


@pytest.fixture
def batch(rocksalt, perovskite):
    return collate([build(rocksalt, REACH), build(perovskite, REACH)])


def differentiable(graph):
    return graph.with_vector(graph.vector.requires_grad_())


# ----------------------------------------------------------------------------------- pooling


def test_atoms_are_pooled_by_crystal(batch):
    values = torch.arange(7, dtype=torch.float64)
    assert sum_over_atoms(values, batch).tolist() == [1, 20]
    assert mean_over_atoms(values, batch).tolist() == [0.5, 4]
    square = values[:, None, None].expand(-1, 2, 3)
    assert mean_over_atoms(square, batch)[1].tolist() == [[4, 4, 4]] * 2


def test_pooling_answers_in_the_type_of_the_values(batch):
    assert sum_over_atoms(torch.ones(7), batch).dtype == torch.float32


def test_a_property_head_has_a_tower_per_target(batch):
    targets = [Target(name="bulk_modulus", unit="GPa"), Target(name="gap", unit="eV", kind="gap")]
    head = PropertyHead(4, targets).double()
    features = AtomFeatures(torch.randn(7, 4, dtype=torch.float64))
    raw = head(features, batch)
    assert {name: tuple(value.shape) for name, value in raw.items()} == {
        "bulk_modulus": (2, 1),
        "gap": (2, 2),
    }
    mean = features.invariant[:2].mean(0, keepdim=True)
    torch.testing.assert_close(raw["gap"][:1], head.towers["gap"](mean))


def test_attention_counts_atoms_by_a_softmax_within_each_crystal(batch):
    values = torch.randn(7, 3, dtype=torch.float64)
    score = torch.randn(7, 1, dtype=torch.float64) + 900 * batch.crystal[:, None]
    found = attention_over_atoms(values, score, batch)
    for crystal, atoms in enumerate((slice(0, 2), slice(2, 7))):
        weight = torch.softmax(score[atoms], 0)
        torch.testing.assert_close(found[crystal], (weight * values[atoms]).sum(0))


def test_attention_sees_an_atom_as_often_as_it_stands_for(batch):
    values = torch.randn(7, 3, dtype=torch.float64)
    score = torch.randn(7, 1, dtype=torch.float64)
    twice = replace(batch, multiplicity=batch.multiplicity * 2)
    torch.testing.assert_close(
        attention_over_atoms(values, score, twice), attention_over_atoms(values, score, batch)
    )
    first = replace(batch, multiplicity=torch.tensor([3.0, 1, 1, 1, 1, 1, 1]))
    weight = torch.softmax(score[[0, 0, 0, 1]], 0)
    expected = (weight * values[[0, 0, 0, 1]]).sum(0)
    torch.testing.assert_close(attention_over_atoms(values, score, first)[0], expected)


def test_a_head_with_attention_begins_as_one_without_and_learns_which_atoms_count(batch):
    target = Target(name="last_phonon_peak", unit="1/cm")
    plain = PropertyHead(4, [target]).double()
    head = PropertyHead(4, [replace(target, pooling="attention")]).double()
    missing = head.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["scores.last_phonon_peak.weight"]
    features = AtomFeatures(torch.randn(7, 4, dtype=torch.float64))
    raw = head(features, batch)["last_phonon_peak"]
    torch.testing.assert_close(raw, plain(features, batch)["last_phonon_peak"])
    raw.sum().backward()
    assert (head.scores["last_phonon_peak"].weight.grad != 0).all()


# ------------------------------------------------------------------------------------ energy


def test_references_follow_the_elements(batch):
    head = EnergyHead(4)
    head.reference[[8, 11, 17]] = torch.tensor([-7.0, -1.5, -2.5], dtype=torch.float64)
    assert head.references(batch).tolist() == [-1.5, -2.5, 0, 0, -7, -7, -7]


def test_references_stay_exact_in_single_precision(batch):
    # Their sum is a thousand times the energies that matter.
    head = EnergyHead(4)
    head.reference.fill_(-1234.5678901)
    assert head.references(batch)[0].item() == -1234.5678901


def test_an_energy_is_what_is_learned_and_the_repulsion(batch):
    head = EnergyHead(4).double()
    head.scale.fill_(3.0)
    features = AtomFeatures(torch.randn(7, 4, dtype=torch.float64))
    squeezed = batch.with_vector(batch.vector / 2)
    nuclei = repulsion(squeezed.vector, batch.species, batch.receiver, batch.sender)
    learned = head.interaction(features, squeezed) - nuclei
    assert (nuclei > 0).any()
    torch.testing.assert_close(learned, 3 * head.tower(features.invariant)[:, 0])


# ------------------------------------------------------------------------- forces and stress


def lennard_jones(graph, cutoff):
    """Energy of all crystals, shifted to zero at the cutoff; eV."""
    inverse = (graph.vector.square().sum(1) / 1.9**2) ** -3
    shift = (cutoff / 1.9) ** -6
    return 0.5 * (4 * 0.3 * (inverse**2 - inverse - shift**2 + shift)).sum()


@pytest.mark.parametrize("name", ["wurtzite", "left_handed", "slab", "water"])
def test_forces_and_stress_are_those_of_ase(name, request):
    atoms = request.getfixturevalue(name)
    graph = differentiable(build(atoms, REACH))
    energy = lennard_jones(graph, REACH.cutoff)
    atoms.calc = LennardJones(sigma=1.9, epsilon=0.3, rc=REACH.cutoff)
    forces, stress = forces_and_stress(energy, graph)
    assert energy.item() == pytest.approx(atoms.get_potential_energy(), rel=1e-9)
    np.testing.assert_allclose(forces.detach(), atoms.get_forces(), rtol=0, atol=1e-9)
    if atoms.cell.rank == 3:
        expected = atoms.get_stress(voigt=False)
        np.testing.assert_allclose(stress[0].detach(), expected, rtol=0, atol=1e-9)
    else:
        assert not stress.isfinite().any()


def test_a_batch_has_the_forces_and_stress_of_its_crystals(wurtzite, left_handed):
    graphs = [differentiable(build(atoms, REACH)) for atoms in (wurtzite, left_handed)]
    singly = [forces_and_stress(lennard_jones(graph, 5.0), graph) for graph in graphs]
    together = collate([build(atoms, REACH) for atoms in (wurtzite, left_handed)])
    together = differentiable(together)
    forces, stress = forces_and_stress(lennard_jones(together, 5.0), together)
    torch.testing.assert_close(forces, torch.cat([single for single, _ in singly]))
    torch.testing.assert_close(stress, torch.cat([single for _, single in singly]))


def test_forces_can_be_trained_on(wurtzite):
    graph = differentiable(build(wurtzite, REACH))
    strength = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    forces, stress = forces_and_stress(strength * lennard_jones(graph, 5.0), graph, True)
    for derived in (forces, stress):
        total = derived.square().sum()
        (slope,) = torch.autograd.grad(total, strength, retain_graph=True)
        assert slope.item() == pytest.approx(total.item(), rel=1e-12)


def test_a_lone_atom_feels_nothing():
    graph = build(crystals.alone(), REACH)
    forces, _ = forces_and_stress(graph.vector.sum(), graph)
    assert forces.tolist() == [[0, 0, 0]]


# --------------------------------------------------------------------------------- repulsion


def universal(r, first, second):
    """Screened Coulomb energy of two nuclei from fundamental constants, eV."""
    bohr = 4e10 * math.pi * units._eps0 * units._hbar**2 / (units._me * units._e**2)
    coulomb = 1e10 * units._e / (4 * math.pi * units._eps0)
    x = r * (first**0.23 + second**0.23) / (0.8854 * bohr)
    weights = np.array([0.18175, 0.50986, 0.28022, 0.028171])
    rates = np.array([3.1998, 0.94229, 0.4029, 0.20162])
    return coulomb * first * second / r * (weights @ np.exp(-rates * x))


def energies(crystal):
    graph = build(crystal, Radius(4.0))
    return repulsion(graph.vector, graph.species, graph.receiver, graph.sender)


def test_close_nuclei_repel_by_the_universal_potential():
    # oxygen and silicon: radii of 0.66 and 1.11 Å; far inside them the envelope is 1 - 28 x⁶ + …
    r = 0.3
    x = r / 1.77
    faded = universal(r, 8, 14) * (1 - 28 * x**6 + 48 * x**7 - 21 * x**8)
    halves = energies(crystals.pair(r))
    assert halves[0] == halves[1]
    assert halves.sum().item() == pytest.approx(faded, rel=1e-4)


def test_the_potential_by_hand():
    # two copper nuclei 0.1 Å apart: x = 0.1 * 2 * 29**0.23 / 0.4685 = 0.926, φ = 0.4388
    assert universal(0.1, 29, 29) == pytest.approx(14.4 * 29**2 / 0.1 * 0.4388, rel=2e-3)


def test_bonds_are_left_alone():
    assert energies(crystals.pair(1.7701)).tolist() == [0, 0]
    assert 0 < energies(crystals.pair(1.70)).sum() < 0.05


def test_the_repulsion_is_smooth_where_it_ends():
    near = torch.tensor([[1.77 - 1e-4, 0, 0]], dtype=torch.float64, requires_grad=True)
    species, ends = torch.tensor([8, 14]), (torch.tensor([0]), torch.tensor([1]))
    (slope,) = torch.autograd.grad(repulsion(near, species, *ends).sum(), near)
    assert 0 < -slope[0, 0] < 1e-5


def test_radii_are_those_ase_knows():
    known = COVALENT_RADII[1:97].numpy()
    np.testing.assert_allclose(known, ase.data.covalent_radii[1:97])
    assert len(COVALENT_RADII) == 119
