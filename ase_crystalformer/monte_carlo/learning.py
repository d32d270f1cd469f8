"""Self-learning Monte Carlo: chains teach the model that proposes their next steps."""

from copy import deepcopy

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from torch import Tensor

from ase_crystalformer.errors import BadChain
from ase_crystalformer.monte_carlo.driver import Energy, MonteCarlo, States
from ase_crystalformer.monte_carlo.spins import SpinTransformer

#: Configurations that are remembered; older ones are of worse models and give way.
REMEMBERED = 8192
#: Configurations in a step of the optimiser.
BATCH = 128


class Memory:
    """An energy that remembers what it was asked: nothing an exact energy cost is wasted."""

    def __init__(self, energy: Energy) -> None:
        self.energy = energy
        self.states: list[States] = []
        self.energies: list[Float[ndarray, " chains"]] = []

    def __call__(self, states: States) -> Float[ndarray, " chains"]:
        energies = self.energy(states)
        self.states.append(states.copy())
        self.energies.append(energies.copy())
        return energies

    def recall(self) -> tuple[States, Float[ndarray, " configurations"]]:
        """Return the newest states and their energies, eV; forget the others."""
        self.states = [np.concatenate(self.states)[-REMEMBERED:]]
        self.energies = [np.concatenate(self.energies)[-REMEMBERED:]]
        return self.states[0], self.energies[0]


def self_learn(
    chain: MonteCarlo,
    model: SpinTransformer,
    *,
    inner: int,
    rounds: int = 4,
    steps: int = 50,
    updates: int = 500,
    rate: float = 1e-3,
    progress: bool = True,
) -> MonteCarlo:
    """Train an effective model on what chains meet, and return the chain it then guides.

    The first round makes ``inner`` single moves. Then the model is fitted to all energies met, and
    proposes in the next round. Chains of the rounds are thrown away: detailed balance holds for a
    frozen model only. The chain returned has a copy of the model that no later training reaches.

    Args:
        chain: Where to start, with energy, moves and temperature; it stays as it is. If it has been
            run for a while, learning starts closer to where it ends.
        model: What is trained, in place. Keep its weights to resume the chain that is returned.
        inner: Moves in a proposal.
        rounds: How often the model is fitted.
        steps: Proposals of each chain in a round.
        updates: Steps of AdamW in a fit; zero leaves it at least squares of the exchange constants.
        rate: Learning rate at the start of a fit; it falls to zero.
        progress: Show bars.

    Returns:
        A chain that has made no step yet, each at the state where learning ended.

    Raises:
        BadChain: The numbers make no sense, or an energy cannot be computed.
    """
    if min(rounds, steps, inner) < 1 or updates < 0:
        raise BadChain(
            f"rounds, steps, inner and updates are {rounds}, {steps}, {inner} and {updates}; "
            "updates may be zero, the others are one or more."
        )
    memory, random = Memory(chain.energy), deepcopy(chain.random)
    learner = chain.continued(memory, seed=random)
    learner.run(inner, progress=progress)
    for _ in range(rounds - 1):
        fit(model, *memory.recall(), random, updates=updates, rate=rate)
        learner = learner.continued(memory, effective=frozen(model), inner=inner, seed=random)
        learner.run(steps, progress=progress)
    fit(model, *memory.recall(), random, updates=updates, rate=rate)
    return learner.continued(chain.energy, effective=frozen(model), inner=inner, seed=random)


def frozen(model: SpinTransformer) -> Energy:
    """Return the energy of the model as it is now, whatever becomes of it."""
    return deepcopy(model).requires_grad_(False).energy


def fit(
    model: SpinTransformer,
    states: Float[ndarray, "configurations sites 3"],
    energies: Float[ndarray, " configurations"],
    random: Generator,
    *,
    updates: int,
    rate: float,
) -> float:
    """Fit a model to energies; return what is left, the standard deviation in eV.

    Only differences of energies count in Monte Carlo, so the variance of the error is what falls.
    It never ends above that of the best exchange constants for the layers as they came.
    """
    spins = torch.from_numpy(states).to(model.bonds)
    target = torch.from_numpy(energies).to(model.bonds)
    model.solve_exchange(spins, target)
    before, weights = np.std(model.energy(states) - energies), deepcopy(model.state_dict())
    if model.mixing.numel():
        _descend(model, spins, target, random, updates, rate)
        model.solve_exchange(spins, target)
    after = np.std(model.energy(states) - energies)
    if not after <= before:
        model.load_state_dict(weights)
    return float(np.fmin(before, after))


def _descend(
    model: SpinTransformer,
    spins: Float[Tensor, "configurations sites 3"],
    target: Float[Tensor, " configurations"],
    random: Generator,
    updates: int,
    rate: float,
) -> None:
    optimiser = torch.optim.AdamW([model.mixing, model.exchange], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(updates, 1))
    for _ in range(updates):
        rows = torch.from_numpy(random.integers(len(target), size=BATCH))
        optimiser.zero_grad()
        loss = (model(spins[rows]) - target[rows]).var()
        loss.backward()
        optimiser.step()
        schedule.step()
