"""Which element sits on which site of a crystal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from numpy.random import Generator

from ase_crystalformer.errors import BadStructure
from ase_crystalformer.structures import HEAVIEST

if TYPE_CHECKING:
    from ase import Atoms


class Occupations:
    r"""Occupations of the sites of a crystal, their energies and how they move.

    Atoms stay where they are. Without chemical potentials two atoms of different elements change
    places (canonical); with them an atom becomes another element (semi-grand canonical), and the
    energy is :math:`E - \sum_s \mu_s N_s`, which needs only differences of the potentials.

    Args:
        atoms: The crystal and where its atoms start; it is not changed.
        calculator: Any ASE calculator.
        sites: Indices of the atoms that take part; all of them if not given.
        chemical_potentials: eV, of every element a site may hold, such as ``{"Cu": 0, "Au": 0.2}``.

    Attributes:
        move: The change Monte Carlo proposes, as likely back as forth.

    Raises:
        BadStructure: There is nothing to exchange, or a site does not exist.
    """

    def __init__(
        self,
        atoms: "Atoms",
        calculator: Any,
        *,
        sites: Sequence[int] | None = None,
        chemical_potentials: Mapping[str, float] | None = None,
    ) -> None:
        self._atoms = atoms.copy()
        self._atoms.calc = calculator
        self.sites = _checked(range(len(atoms)) if sites is None else sites, len(atoms))
        self._first = numbers = self._atoms.numbers[self.sites]
        if chemical_potentials is None:
            self._potential, self.move = np.zeros(HEAVIEST + 1), self._swap
            if len(np.unique(numbers)) < 2:
                raise BadStructure(
                    f"All sites hold {self._atoms.symbols[self.sites[0]]}; two elements are needed "
                    "to exchange. Substitute some atoms, or give chemical potentials."
                )
        else:
            self.elements, self._potential = _potentials(chemical_potentials, numbers)
            self.move = self._substitute

    def states(self, chains: int = 1) -> Int[ndarray, "chains sites"]:
        """Atomic numbers on the sites, as they came, once for every chain."""
        return np.tile(self._first, (chains, 1))

    def energy(self, states: Int[ndarray, "chains sites"]) -> Float[ndarray, " chains"]:
        """Energy of each occupation, eV, less what the reservoir gives for its atoms."""
        energies = np.array([self._energy_of(state) for state in states])
        return energies - self._potential[states].sum(axis=1)

    def _energy_of(self, state: Int[ndarray, " sites"]) -> float:
        self._atoms.numbers[self.sites] = state
        return float(self._atoms.get_potential_energy())

    def atoms(self, state: Int[ndarray, " sites"], energy: float | None = None) -> "Atoms":
        """Make the crystal of one chain; for files, with the energy, eV, the chain gives it."""
        from ase.calculators.singlepoint import SinglePointCalculator

        made = self._atoms.copy()
        made.numbers[self.sites] = state
        if energy is not None:
            own = float(energy + self._potential[state].sum())  # without the reservoir
            made.calc = SinglePointCalculator(made, energy=own)
        return made

    def _swap(
        self, states: Int[ndarray, "chains sites"], random: Generator
    ) -> Int[ndarray, "chains sites"]:
        """Exchange a random site with a random one of those that hold another element.

        Sites of each element stay as many, so the way back is as likely.
        """
        chains = np.arange(len(states))
        first = random.integers(states.shape[1], size=len(states))
        other = states != states[chains, first][:, None]
        second = _nth(other, random.integers(other.sum(axis=1)))
        moved = states.copy()
        moved[chains, first], moved[chains, second] = states[chains, second], states[chains, first]
        return moved

    def _substitute(
        self, states: Int[ndarray, "chains sites"], random: Generator
    ) -> Int[ndarray, "chains sites"]:
        """Put another element on a random site, each as likely."""
        chains = np.arange(len(states))
        site = random.integers(states.shape[1], size=len(states))
        old = np.searchsorted(self.elements, states[chains, site])
        by = random.integers(1, len(self.elements), size=len(states))
        moved = states.copy()
        moved[chains, site] = self.elements[(old + by) % len(self.elements)]
        return moved


def _nth(
    mask: Bool[ndarray, "chains sites"], nth: Int[ndarray, " chains"]
) -> Int[ndarray, " chains"]:
    """Find the place of the ``nth`` true value, counted from zero, of each row."""
    return (mask.cumsum(axis=1) == nth[:, None] + 1).argmax(axis=1)


def _checked(sites: Sequence[int], atoms: int) -> Int[ndarray, " sites"]:
    found = np.asarray(sites)
    if not len(found) or found.dtype.kind not in "iu":
        raise BadStructure(f"sites is {sites}; indices of one atom or more are needed.")
    wrong = found[(found < 0) | (found >= atoms)]
    if len(wrong) or len(np.unique(found)) < len(found):
        raise BadStructure(f"sites is {sites}; give each once, from 0 to {atoms - 1}.")
    return found


def _potentials(
    given: Mapping[str, float], numbers: Int[ndarray, " sites"]
) -> tuple[Int[ndarray, " elements"], Float[ndarray, " numbers"]]:
    """Elements that may be chosen, by number, and a chemical potential, eV, by atomic number."""
    from ase.data import atomic_numbers, chemical_symbols

    unknown = [symbol for symbol in given if symbol not in atomic_numbers]
    absent = [chemical_symbols[number] for number in np.unique(numbers)]
    absent = [symbol for symbol in absent if symbol not in given]
    if unknown or absent or len(given) < 2:
        raise BadStructure(
            f"chemical_potentials names {', '.join(given) or 'nothing'}; two elements or more are "
            f"needed, among them all on the sites (missing: {', '.join(absent) or 'none'}; "
            f"no elements: {', '.join(unknown) or 'none'})."
        )
    if not np.isfinite(list(given.values())).all():
        raise BadStructure(f"chemical_potentials is {dict(given)}; give finite numbers of eV.")
    potential = np.zeros(HEAVIEST + 1)
    for symbol, value in given.items():
        potential[atomic_numbers[symbol]] = value
    return np.array(sorted(atomic_numbers[symbol] for symbol in given)), potential
