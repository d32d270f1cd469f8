r"""Monte Carlo chains side by side, corrected for the model that proposes.

One rule serves all. A proposal is some steps of a chain that is in balance with a cheap effective
energy :math:`H_e`. It is accepted with probability

.. math:: \min(1, \exp(-[(H - H_e)' - (H - H_e)] / kT))

which puts the chain in balance with :math:`H`. Without an effective energy, :math:`H_e = 0`, a
proposal is a single move, and this is Metropolis's rule.

Source: Liu, Qi, Meng & Fu, "Self-learning Monte Carlo method", Phys. Rev. B 95, 041101 (2017).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
from ase.units import kB
from jaxtyping import Bool, Float
from numpy import ndarray
from numpy.random import Generator

from ase_crystalformer.errors import BadChain
from ase_crystalformer.writing import whole

#: States of all chains: the first axis counts them.
States: TypeAlias = ndarray
#: Energy of each chain, eV, from their states.
Energy: TypeAlias = Callable[[States], Float[ndarray, " chains"]]
#: New states from old. Each must be as likely to lead back as forth.
Move: TypeAlias = Callable[[States, Generator], States]
#: K; one for all chains, or one per chain.
Temperature: TypeAlias = float | int | Sequence[float | int] | Float[ndarray, " chains"]

#: Change of the effective energy that cannot be rounding: in kT, and relative.
MOVED = 1e-2, 1e-6

#: What a file of a chain holds.
SAVED = ("states", "energies", "cheap", "kT", "accepted", "steps", "random")


class MonteCarlo:
    """Independent Markov chains that sample the Boltzmann distribution of an energy.

    Detailed balance holds as long as the energies are functions of the state alone. An effective
    model must therefore be frozen: if it gives the same state another energy than before, the
    chain refuses to go on. Inner steps are reversible because ``move`` picks sites at random; a
    move that goes through the sites in order would not be, and the correction would be wrong.

    Args:
        states: Where each chain starts; the first axis counts chains.
        energy: What to sample, eV. Infinite where a state is forbidden.
        move: A random change, as likely back as forth.
        temperature: K; one for all, or one per chain.
        effective: A cheap energy, eV, that resembles ``energy`` up to a constant.
        inner: Moves in a proposal, each accepted or not by the effective energy.
        seed: Of all random numbers; the same seed gives the same chains. Or what draws them.

    Attributes:
        states: Where each chain is.
        energies: Energy of each, eV.
        steps: How many steps were made.
        accepted: How many of them each chain accepted.

    Raises:
        BadChain: An argument is out of range, or an energy cannot be computed.

    Example:
        >>> from ase.build import bulk
        >>> from ase.calculators.emt import EMT
        >>> from ase_crystalformer import MonteCarlo, Occupations
        >>> crystal = bulk("Cu", cubic=True).repeat((2, 1, 1))
        >>> crystal.symbols[:4] = "Au"
        >>> alloy = Occupations(crystal, EMT())
        >>> chain = MonteCarlo(alloy.states(), alloy.energy, alloy.move, temperature=500)
        >>> energies = chain.run(20, progress=False)  # eV, after every step
    """

    def __init__(
        self,
        states: States,
        energy: Energy,
        move: Move,
        temperature: Temperature,
        *,
        effective: Energy | None = None,
        inner: int = 1,
        seed: int | Generator = 0,
    ) -> None:
        if states.ndim < 2 or not len(states):
            raise BadChain(f"states has shape {states.shape}; (chains, sites, ...) is needed.")
        self.kT = kB * _temperatures(temperature, len(states))
        self.energy, self.move, self.effective, self.inner = energy, move, effective, inner
        if inner < 1:
            raise BadChain(f"inner is {inner}; a proposal takes one move or more.")
        if effective is None and inner > 1:
            raise BadChain(f"inner is {inner} and there is no effective energy to guide the moves.")
        self.random = np.random.default_rng(seed)
        self.steps = 0
        self.accepted = np.zeros(len(states), dtype=np.int64)
        self.states = states.copy()
        self.energies, self._cheap = self._asked(energy, states), self._cheaply(states)
        if not np.isfinite([self.energies, self._cheap]).all():
            raise BadChain(f"A chain cannot start where it is forbidden: {self.energies} eV.")

    def continued(self, energy: Energy, **settings: Any) -> "MonteCarlo":
        """Start other chains where these are, with the same moves and temperatures."""
        return MonteCarlo(self.states, energy, self.move, self.temperature, **settings)

    @property
    def temperature(self) -> Float[ndarray, " chains"]:
        """Of each chain, K."""
        return self.kT / kB

    @property
    def acceptance(self) -> float:
        """Share of proposals that were accepted, over all chains; NaN before the first step."""
        return float(self.accepted.mean() / self.steps) if self.steps else np.nan

    def probability(self, change: Float[ndarray, " chains"]) -> Float[ndarray, " chains"]:
        """Probability to accept a change of energy, eV."""
        return np.exp(-np.maximum(change, 0) / self.kT)

    def step(self) -> Bool[ndarray, " chains"]:
        """Propose once in every chain; say which accepted."""
        self._refuse_another_model()
        states, cheap = self._proposed()
        energies = self._asked(self.energy, states)
        accept = self._drawn((energies - cheap) - (self.energies - self._cheap))
        self.states = _chosen(accept, states, self.states)
        self.energies = np.where(accept, energies, self.energies)
        self._cheap = np.where(accept, cheap, self._cheap)
        self.accepted += accept
        self.steps += 1
        return accept

    def run(
        self,
        steps: int,
        *,
        every: int = 1,
        observe: "Callable[[MonteCarlo], Any] | None" = None,
        checkpoint: Path | str | None = None,
        progress: bool = True,
    ) -> list[Any]:
        """Make steps, and look every few of them.

        Args:
            steps: How many.
            every: How many from one look to the next.
            observe: What to do at each look, with the chain; by default its energies are copied.
            checkpoint: File to save to after each look.
            progress: Show a bar.

        Returns:
            What ``observe`` returned, look by look.
        """
        from tqdm.auto import tqdm

        if every < 1:
            raise BadChain(f"every is {every}; one step or more lie between two looks.")
        look = observe or (lambda chain: chain.energies.copy())
        seen = []
        for number in tqdm(range(1, steps + 1), disable=not progress, unit="step"):
            self.step()
            if number % every:
                continue
            seen.append(look(self))
            if checkpoint is not None:
                self.save(checkpoint)
        return seen

    def save(self, path: Path | str) -> None:
        """Write all that is needed to go on as if nothing had been; complete or not at all."""
        with whole(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                states=self.states,
                energies=self.energies,
                cheap=self._cheap,
                kT=self.kT,
                accepted=self.accepted,
                steps=self.steps,
                random=json.dumps(self.random.bit_generator.state),
            )

    def load(self, path: Path | str) -> None:
        """Go on from where a chain of the same energies was saved.

        Raises:
            BadChain: The file cannot be read, or is of another chain or model.
        """
        found = _read(Path(path))
        if found["states"].shape != self.states.shape or not np.allclose(found["kT"], self.kT):
            raise BadChain(
                f"{path} holds states {found['states'].shape} at {found['kT'] / kB} K, this chain "
                f"has {self.states.shape} at {self.temperature} K. Resume with the same settings."
            )
        energies, cheap = self._asked(self.energy, found["states"]), self._cheaply(found["states"])
        if _moved(energies, found["energies"], self.kT).any():
            raise BadChain(f"The energies in {path} are not those of this chain's energy.")
        if _moved(cheap, found["cheap"], self.kT).any():
            raise BadChain(f"The chain in {path} had another effective model. Load that model.")
        self.states = found["states"]
        self.energies, self._cheap = found["energies"], found["cheap"]
        self.accepted, self.steps = found["accepted"], int(found["steps"])
        self.random.bit_generator.state = json.loads(str(found["random"]))

    def _proposed(self) -> tuple[States, Float[ndarray, " chains"]]:
        """New states from the chain of the effective energy, and their effective energies."""
        if self.effective is None:
            return self.move(self.states, self.random), self._cheap
        states, cheap = self.states, self._cheap
        for _ in range(self.inner):
            moved = self.move(states, self.random)
            energies = self._cheaply(moved)
            accept = self._drawn(energies - cheap)
            states, cheap = _chosen(accept, moved, states), np.where(accept, energies, cheap)
        return states, cheap

    def _drawn(self, change: Float[ndarray, " chains"]) -> Bool[ndarray, " chains"]:
        return self.random.random(len(change)) < self.probability(change)

    def _cheaply(self, states: States) -> Float[ndarray, " chains"]:
        if self.effective is None:
            return np.zeros(len(states))
        return self._asked(self.effective, states)

    def _asked(self, energy: Energy, states: States) -> Float[ndarray, " chains"]:
        energies = np.asarray(energy(states), dtype=np.float64)
        if energies.shape != (len(states),):
            raise BadChain(f"energies has shape {energies.shape}; ({len(states)},) is needed.")
        wrong = np.isnan(energies) | np.isneginf(energies)
        if wrong.any():
            raise BadChain(f"The energy of chain {wrong.argmax()} is {energies[wrong][0]} eV.")
        return energies

    def _refuse_another_model(self) -> None:
        if self.effective is None:
            return
        if _moved(self._cheaply(self.states), self._cheap, self.kT).any():
            raise BadChain(
                "The effective model has changed since this chain started, and detailed balance "
                "holds only for a frozen one. Start another chain with the model as it is now."
            )


def _read(path: Path) -> dict[str, ndarray]:
    try:
        with path.open("rb") as file, np.load(file) as saved:
            return {name: saved[name] for name in SAVED}
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile) as error:
        raise BadChain(f"{path} holds no chain: {error}. Start anew.") from error


def _temperatures(temperature: Temperature, chains: int) -> Float[ndarray, " chains"]:
    given = np.asarray(temperature, dtype=np.float64)
    if given.shape not in {(), (chains,)}:
        told = "x".join(map(str, given.shape))
        raise BadChain(f"{told} temperatures for {chains} chains; give one, or one each.")
    if not (np.isfinite(given) & (given > 0)).all():
        raise BadChain(f"temperature is {temperature} K; a positive number is needed.")
    return np.broadcast_to(given, chains).copy()


def _chosen(accept: Bool[ndarray, " chains"], new: States, old: States) -> States:
    return np.where(accept.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _moved(
    now: Float[ndarray, " chains"],
    then: Float[ndarray, " chains"],
    kT: Float[ndarray, " chains"],
) -> Bool[ndarray, " chains"]:
    return np.abs(now - then) > MOVED[0] * kT + MOVED[1] * np.abs(then)
