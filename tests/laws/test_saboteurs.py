"""Every law has a saboteur: an encoder that breaks it by a little, and must be caught."""

from dataclasses import replace

import pytest
import torch

from ase_crystalformer.encoders import AtomFeatures, Encoder, crystalformer
from ase_crystalformer.encoders.base import Approximate, Broken, Claims
from ase_crystalformer.neighbours import Nearest
from ase_crystalformer.testing import LAWS, LawBroken, check, check_all, laws, laws_for

LITTLE = 1e-5


class Saboteur(Encoder):
    """An honest encoder, and something done to its features."""

    def __init__(self, honest, spoil):
        super().__init__()
        self.honest, self.spoil = honest, spoil
        self.width, self.rule, self.claims = honest.width, honest.rule, honest.claims

    def forward(self, graph):
        return AtomFeatures(self.spoil(graph, self.honest(graph).invariant))


class Forgetful(crystalformer.Crystalformer):
    """Keeps a weight where saving does not see it."""

    def __init__(self, config):
        super().__init__(config)
        self.hidden = LITTLE * torch.rand(config.width)

    def forward(self, graph):
        return AtomFeatures(super().forward(graph).invariant + self.hidden)


def at_atoms(graph, values):
    """Sum a value of every edge at its receiver."""
    return values.new_zeros(graph.atoms, *values.shape[1:]).index_add(0, graph.receiver, values)


def fading(graph, power=3):
    """A weight of every edge that ends at the cutoff of the small encoders."""
    return (1 - graph.vector.norm(dim=1) / 4.0).clamp(min=0) ** power


def vertical(graph, x):
    return x + LITTLE * at_atoms(graph, fading(graph) * graph.vector[:, 2] ** 2)[:, None]


def handed(graph, x):
    weights = [fading(graph, power)[:, None] for power in (3, 4, 5)]
    arms = [at_atoms(graph, weight * graph.vector) for weight in weights]
    turn = torch.linalg.det(torch.stack(arms, dim=1))
    return x + 1000 * LITTLE * turn[:, None]


def placed(graph, x):
    return x + LITTLE * graph.positions[:, :1]


def wrapped(graph, x):
    return x + LITTLE * at_atoms(graph, graph.image.to(x).square().sum(1))[:, None]


def numbered(graph, x):
    return x + LITTLE * torch.arange(graph.atoms)[:, None]


def counting_atoms(graph, x):
    return x + LITTLE * torch.bincount(graph.crystal)[graph.crystal][:, None]


def measuring_cell(graph, x):
    return x + LITTLE * graph.cell[graph.crystal, 0].norm(dim=1)[:, None]


def forgetting_multiplicity(graph, x):
    total = x.new_zeros(graph.crystals, x.shape[1]).index_add(0, graph.crystal, x)
    mean = total / torch.bincount(graph.crystal)[:, None]
    return x + LITTLE * mean[graph.crystal]


def counting_neighbours(graph, x):
    return x + LITTLE * at_atoms(graph, torch.ones_like(graph.vector[:, :1]))


def kinked(graph, x):
    return x + LITTLE * at_atoms(graph, fading(graph, power=1))[:, None]


def never_silent(graph, x):
    """A mean over neighbours that fades, but not before the last one."""
    weight = fading(graph)
    total = at_atoms(graph, weight)[:, None]
    mean = at_atoms(graph, (weight * graph.vector.norm(dim=1))[:, None]) / total.clamp(min=1e-300)
    return x + LITTLE * mean


def counting_nearest(graph, x):
    distance = graph.vector.norm(dim=1)
    closest = distance.new_full((graph.atoms,), torch.inf)
    closest = closest.scatter_reduce(0, graph.receiver, distance, "amin")
    return x + LITTLE * at_atoms(graph, (distance < closest[graph.receiver] + 1e-9).to(x))[:, None]


def pointed(graph, x):
    dipole = at_atoms(graph, fading(graph)[:, None] * graph.vector)
    return x + LITTLE * dipole.norm(dim=1).square().sqrt()[:, None]


def exaggerated(graph, x):
    return x + LITTLE * (x - x.detach())


def beyond_edges(graph, x):
    volume = torch.where(graph.volume > 0, graph.volume, 1.0)
    return x + LITTLE * volume.log()[graph.crystal][:, None]


def mixed(graph, x):
    return x + LITTLE * x.mean(0)


def secretly_mixed(graph, x):
    mean = x.mean(0)
    return x + LITTLE * (mean - mean.detach())


def averaging(graph, x):
    return (
        x + LITTLE * x * (at_atoms(graph, fading(graph)) / at_atoms(graph, fading(graph)))[:, None]
    )


def double(graph, x):
    return x.double()


def meddling(graph, x):
    graph.positions.mul_(1 + 1e-15)
    return x


def moody(graph, x):
    return x + LITTLE * torch.rand(())


#: Who breaks which law.
SABOTEURS = [
    ("rotation", vertical),
    ("reflection", handed),
    ("translation", placed),
    ("lattice vector", wrapped),
    ("permutation", numbered),
    ("supercell", counting_atoms),
    ("choice of cell", measuring_cell),
    ("orbits", forgetting_multiplicity),
    ("cutoff", counting_neighbours),
    ("cutoff", kinked),
    ("cutoff", never_silent),
    ("tremor", counting_nearest),
    ("symmetric sites", pointed),
    ("forces", exaggerated),
    ("stress", exaggerated),
    ("stress", beyond_edges),
    ("batch", mixed),
    ("separation", mixed),
    ("separation", secretly_mixed),
    ("isolation", averaging),
    ("precision", double),
    ("innocence", meddling),
    ("innocence", moody),
]

#: Who would get away with it under another law: the laws are not one and the same.
INNOCENT = [
    ("rotation", handed),
    ("reflection", lambda graph, x: x),
    ("translation", wrapped),
    ("lattice vector", numbered),
    ("permutation", counting_atoms),
    ("supercell", handed),
    ("choice of cell", counting_atoms),
    ("forces", beyond_edges),
    ("batch", secretly_mixed),
    ("isolation", mixed),
]


@pytest.mark.parametrize(("law", "spoil"), SABOTEURS)
def test_saboteur_is_caught(honest, law, spoil):
    with pytest.raises(LawBroken, match=law):
        check(Saboteur(honest, spoil), law)


@pytest.mark.parametrize(("law", "spoil"), INNOCENT)
def test_saboteur_of_another_law_is_not(honest, law, spoil):
    check(Saboteur(honest, spoil), law)


def test_a_weight_that_is_not_saved_is_caught(honest):
    with pytest.raises(LawBroken, match="storage"):
        check(Forgetful(honest.config), "storage")


def test_every_law_has_a_saboteur():
    assert {law for law, _ in SABOTEURS} | {"storage"} == set(LAWS)


def test_a_forgotten_envelope_is_caught(honest, monkeypatch):
    monkeypatch.setattr(
        crystalformer, "envelope", lambda distance, cutoff: (distance < cutoff) * 1.0
    )
    with pytest.raises(LawBroken, match="cutoff"):
        check(honest, "cutoff")


def test_a_false_claim_is_caught(build_small):
    encoder = build_small("crystalformer-paper")
    encoder.claims = Claims()
    with pytest.raises(LawBroken, match="Claimed is that it holds"):
        check(encoder, "cutoff")


@pytest.mark.parametrize(
    ("claim", "spoil", "complaint"),
    [
        (Broken(because="of modesty"), lambda graph, x: x, "holds after all"),
        (Approximate(below=1e-3, because="of modesty"), lambda graph, x: x, "would be exact"),
        (Approximate(below=1e-6, because="of pride"), placed, "less than 1.0e-06"),
        (Broken(because="it is nowhere"), lambda graph, x: x * torch.nan, "nan"),
        (True, lambda graph, x: x * torch.nan, "nan"),
    ],
)
def test_a_claim_is_tested_both_ways(honest, claim, spoil, complaint):
    spoiled = Saboteur(honest, spoil)
    spoiled.claims = replace(honest.claims, translation=claim)
    with pytest.raises(LawBroken, match=complaint):
        check(spoiled, "translation")


@pytest.mark.parametrize("claim", [Broken(because="so"), Approximate(below=10.0, because="so")])
def test_a_true_confession_is_accepted(honest, claim):
    spoiled = Saboteur(honest, placed)
    spoiled.claims = replace(honest.claims, translation=claim)
    assert 1e-6 < check(spoiled, "translation") < 10


def test_an_encoder_that_answers_nothing_cannot_be_tested(honest):
    with pytest.raises(ValueError, match="answers nothing"):
        check(Saboteur(honest, lambda graph, x: torch.ones_like(x)), "rotation")


def test_every_law_is_asked(honest, monkeypatch):
    monkeypatch.setattr(laws, "check", lambda encoder, name: float(len(name)))
    assert check_all(honest) == {name: len(name) for name in LAWS}


def test_forces_are_not_asked_of_the_unsmooth_nor_lone_atoms_of_nearest(honest):
    honest.claims = Claims(smooth=Broken(because="so"))
    honest.rule = Nearest(12)
    assert set(LAWS) - set(laws_for(honest)) == {"forces", "stress", "isolation"}
