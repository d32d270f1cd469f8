"""Expected errors are fitted to true ones, and nothing is learned of chance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from scipy.stats import maxwell, spearmanr

from ase_crystalformer.training.expected_errors import (
    SHRINKAGE,
    fit_distribution,
    fit_energies,
    fit_forces,
    fit_limit,
)
from ase_crystalformer.training.held_out import Judged, Seen
from ase_crystalformer.uncertainty import UncertaintyHead

WIDTH, CRYSTALS, EACH = 6, 400, 5


@pytest.fixture(scope="module")
def made_up():
    """Features, and errors whose size they tell; the means they are drawn from."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(CRYSTALS * EACH, WIDTH, generator=generator)
    crystal = torch.arange(CRYSTALS).repeat_interleave(EACH)
    sigma = (0.7 * features[:, 0] - 1).exp()
    vectors = torch.randn(len(features), 3, generator=generator)
    of_energy = torch.zeros(CRYSTALS).index_add(0, crystal, 0.3 * features[:, 1] + 0.1).abs()
    draws = torch.randn(CRYSTALS, generator=generator).abs() * (np.pi / 2) ** 0.5
    judged = Judged(
        features=features,
        species=torch.ones_like(crystal),
        crystal=crystal,
        forces=torch.zeros(len(features), 3),
        force_error=vectors.norm(dim=1) / maxwell.mean() * sigma,
        energy_error=(of_energy * draws).double(),
        source=torch.zeros(CRYSTALS, dtype=torch.long),
        part=torch.rand(CRYSTALS, generator=generator),
    )
    return judged, sigma, of_energy


def fitted(judged, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = UncertaintyHead(WIDTH)
    fit_distribution(head, judged)
    fit_limit(head, judged)
    head.limit.fill_(1e3)  # nothing is new here
    fit_forces(head, judged, judged.part < 0.5, seed)
    fit_energies(head, judged, judged.part < 0.5, seed)
    return head.requires_grad_(False)


def expected_by(head, judged):
    def total(values):
        return values.new_zeros(CRYSTALS, *values.shape[1:]).index_add(0, judged.crystal, values)

    standard, still = head.standard(judged.features), torch.zeros(len(judged.features))
    forces = head.expected_force(standard, still, judged.forces)
    return forces, head.expected_energy(standard, still, total)


def test_expected_errors_become_those_that_are(made_up):
    judged, sigma, of_energy = made_up
    forces, energy = expected_by(fitted(judged), judged)
    unseen = judged.part > 0.5
    atoms = unseen[judged.crystal]
    assert spearmanr(forces[atoms], sigma[atoms]).statistic > 0.95
    assert float((forces / sigma)[atoms].median()) == pytest.approx(1, abs=0.15)
    assert spearmanr(energy[unseen], of_energy[unseen]).statistic > 0.8


def test_nothing_is_learned_of_errors_that_are_chance(made_up):
    judged, sigma, _ = made_up
    shuffled = judged.force_error[torch.randperm(len(sigma))]
    forces, _ = expected_by(fitted(replace(judged, force_error=shuffled)), judged)
    assert abs(spearmanr(forces, sigma).statistic) < 0.6
    assert float(forces.std() / forces.mean()) < 0.4 * float(sigma.std() / sigma.mean())


def test_the_limit_leaves_out_one_crystal_in_a_hundred(made_up):
    judged, *_ = made_up
    head = UncertaintyHead(WIDTH)
    fit_distribution(head, judged)
    fit_limit(head, judged)
    novelty = head.novelty(judged.features, judged.species)
    assert len(judged.crystal[novelty > 1].unique()) == CRYSTALS // 100
    moved = judged.features + 10 * torch.eye(WIDTH)[0]
    assert (head.novelty(moved, judged.species) > 1).all()


def test_distances_are_those_of_mahalanobis():
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(WIDTH, WIDTH, generator=generator)
    species = torch.arange(2).repeat(5000)
    features = torch.randn(10_000, WIDTH, generator=generator) @ mix + 7 * species[:, None]
    head = UncertaintyHead(WIDTH)
    seen = Seen(features=features, species=species, crystal=species)
    fit_distribution(head, seen)
    left = torch.cat([features[species == z] - features[species == z].mean(0) for z in (0, 1)])
    covariance = np.cov(left.T.numpy(), ddof=0)
    covariance += SHRINKAGE * covariance.trace() / WIDTH * np.eye(WIDTH)
    inverse = np.linalg.inv(covariance)
    found = head.novelty(features, species) * WIDTH**0.5
    for row, mean in ((0, features[::2].mean(0)), (1, features[1::2].mean(0))):
        assert float(found[row]) == pytest.approx(
            mahalanobis(features[row], mean, inverse), rel=1e-2
        )
    # Squared distances of Gaussian features follow chi squared; shrinkage makes them smaller.
    assert 0.9 < float(found.square().mean()) / WIDTH < 1.0
