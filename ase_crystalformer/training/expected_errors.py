"""Fit an uncertainty head to the errors of a potential; the potential itself is left alone."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ase_crystalformer.training.held_out import Judged, Seen
from ase_crystalformer.uncertainty import UncertaintyHead

#: Covariance added in all directions, in units of the mean variance.
SHRINKAGE = 0.01

#: Share of held-out crystals none of whose atoms is beyond the limit.
INSIDE = 0.99

#: Atoms that an element's mean features count as, drawn to the mean of all.
PRIOR = 1.0

#: Optimisation: passes over the data, rows per step, peak rate, weight decay, and the noise added
#: to standardised features.
FORCE_EPOCHS, ENERGY_EPOCHS = 20, 40
ATOMS_AT_ONCE, CRYSTALS_AT_ONCE = 1024, 128
RATE, DECAY, NOISE = 3e-3, 0.1, 0.3

#: Steps that small sets get, too.
LEAST_STEPS = 300


def fit_distribution(head: UncertaintyHead, seen: Seen) -> None:
    """Set the distribution of features in training: scales, means of elements, covariance."""
    features = seen.features.double()
    head.centre.copy_(features.mean(0))
    head.spread.copy_(features.std(0).clamp(min=1e-6))
    overall = features.mean(0)
    total = (PRIOR * overall).repeat(len(head.usual), 1).index_add(0, seen.species, features)
    counts = seen.species.bincount(minlength=len(head.usual)).double()[:, None]
    usual = total / (counts + PRIOR)
    left = features - usual[seen.species]
    covariance = left.T @ left / len(left)
    mean_variance = covariance.diagonal().mean()
    shrunk = covariance + SHRINKAGE * mean_variance * torch.eye(len(covariance)).double()
    # The columns of the inverse's Cholesky factor: |(x - m) W|² is the squared distance.
    whiten = torch.linalg.cholesky(torch.linalg.inv(shrunk))
    head.usual.copy_(usual)
    head.whiten.copy_(whiten / len(covariance) ** 0.5)


def fit_limit(head: UncertaintyHead, judged: Judged) -> None:
    """Set the novelty beyond which one in a hundred held-out crystals lies."""
    head.limit.fill_(1.0)
    novelty = head.novelty(judged.features, judged.species)
    farthest = torch.zeros(len(judged.part)).scatter_reduce(0, judged.crystal, novelty, "amax")
    head.limit.copy_(farthest.quantile(INSIDE))


def fit_forces(
    head: UncertaintyHead, judged: Judged, which: Bool[Tensor, " crystals"], seed: int
) -> None:
    """Fit the expected length of force errors to the atoms of some crystals."""
    rows = which[judged.crystal] & judged.force_error.isfinite()
    novelty = head.novelty(judged.features, judged.species)[rows]
    standard, forces = head.standard(judged.features)[rows], judged.forces[rows]
    error = judged.force_error[rows]

    def expected(some: Int[Tensor, " rows"], noise: Callable[[Tensor], Tensor]) -> Tensor:
        return head.expected_force(noise(standard[some]), novelty[some], forces[some])

    _minimise(head.force, expected, error, FORCE_EPOCHS, ATOMS_AT_ONCE, seed)


def fit_energies(
    head: UncertaintyHead, judged: Judged, which: Bool[Tensor, " crystals"], seed: int
) -> None:
    """Fit the expected error of energies to some crystals."""
    crystals = torch.nonzero(which & judged.energy_error.isfinite())[:, 0]
    novelty = head.novelty(judged.features, judged.species)
    standard = head.standard(judged.features)
    atoms = judged.atoms
    start = atoms.cumsum(0) - atoms

    def expected(some: Int[Tensor, " rows"], noise: Callable[[Tensor], Tensor]) -> Tensor:
        counts = atoms[crystals[some]]
        owner = torch.arange(len(some)).repeat_interleave(counts)
        first = (start[crystals[some]] - (counts.cumsum(0) - counts)).repeat_interleave(counts)
        rows = torch.arange(len(owner)) + first

        def per_atom(values: Tensor) -> Tensor:
            """Average over the atoms: crystals of all sizes count alike."""
            total = total_of(values, owner, len(some))
            return total / counts.reshape(-1, *[1] * (values.dim() - 1))

        return head.expected_energy(noise(standard[rows]), novelty[rows], per_atom)

    error = (judged.energy_error / atoms)[crystals].float()
    _minimise(head.energy, expected, error, ENERGY_EPOCHS, CRYSTALS_AT_ONCE, seed)


def total_of(
    values: Float[Tensor, "atoms *rest"], crystal: Int[Tensor, " atoms"], crystals: int
) -> Float[Tensor, "crystals *rest"]:
    """Sum over the atoms of every crystal."""
    return values.new_zeros(crystals, *values.shape[1:]).index_add(0, crystal, values)


def _minimise(
    network: nn.Module,
    expected: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor],
    error: Float[Tensor, " rows"],
    epochs: int,
    at_once: int,
    seed: int,
) -> None:
    r"""Minimise the mean of :math:`\log\sigma + e/\sigma`, whose minimum is the expected error.

    It is the likelihood of an exponential distribution, and consistent for the mean of any.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(values: Tensor) -> Tensor:
        return values + NOISE * torch.randn(values.shape, generator=generator)

    batches = list(_batches(len(error), epochs, at_once, generator))
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=len(batches) + 1)
    with torch.enable_grad():
        for some in batches:
            sigma = expected(some, noise)
            loss = (sigma.log() + error[some] / sigma).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()


def _batches(
    rows: int, epochs: int, at_once: int, generator: torch.Generator
) -> Iterator[Int[Tensor, " rows"]]:
    """Shuffle rows and cut them, again and again."""
    steps = -(-rows // at_once)
    for _ in range(max(epochs, LEAST_STEPS // steps)):
        yield from torch.randperm(rows, generator=generator).split(at_once)
