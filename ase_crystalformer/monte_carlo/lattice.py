"""Classical spins on the sites of a crystal, and electrons that hop among them."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.units import kB
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from torch import Tensor

from ase_crystalformer.errors import BadStructure
from ase_crystalformer.neighbours import Radius, build

if TYPE_CHECKING:
    from ase import Atoms

#: Distances closer than this, Å, are one shell.
SAME_SHELL = 1e-3

PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


class SpinLattice:
    """Unit vectors on the sites of a crystal.

    Args:
        atoms: The sites: any lattice, periodic along any directions. Elements do not matter.
        shells: How many shells of neighbours interact.
        turn: How far a move turns a spin, as the spread of the random vector added to it. Large
            numbers make it point anywhere.

    Attributes:
        bonds: How often site ``j`` (last axis) is a neighbour of site ``i``, for every shell. In a
            small cell a site may be a neighbour several times, and its own.
        distances: Of the neighbours in each shell, Å.

    Raises:
        BadStructure: There are not that many shells.
    """

    def __init__(self, atoms: "Atoms", shells: int = 1, *, turn: float = 1.0) -> None:
        if not turn > 0:
            raise ValueError(f"turn is {turn}; a positive number is needed.")
        self.bonds, self.distances = neighbour_shells(atoms, shells)
        self.sites = len(atoms)
        self.move = partial(turn_one_spin, turn=turn)

    def states(self, chains: int = 1, seed: int = 0) -> Float[ndarray, "chains sites 3"]:
        """Spins that point anywhere."""
        random = np.random.default_rng(seed)
        return _unit(random.normal(size=(chains, self.sites, 3)))


def turn_one_spin(
    states: Float[ndarray, "chains sites 3"], random: Generator, turn: float
) -> Float[ndarray, "chains sites 3"]:
    """Turn a random spin; the density depends on the angle alone, so it is as likely back."""
    chains = np.arange(len(states))
    site = random.integers(states.shape[1], size=len(states))
    moved = states.copy()
    moved[chains, site] = _unit(moved[chains, site] + turn * random.normal(size=(len(states), 3)))
    return moved


def neighbour_shells(
    atoms: "Atoms", shells: int
) -> tuple[Float[Tensor, "shells sites sites"], Float[ndarray, " shells"]]:
    """Count how often each site is in which shell of which other; and the radii of shells, Å."""
    if shells < 1:
        raise ValueError(f"shells is {shells}; one or more are needed.")
    cutoff, farthest = 3.0, _farthest(atoms)
    while True:
        graph = build(atoms, Radius(cutoff))
        distance = graph.vector.norm(dim=1).numpy()
        radii = _distinct(distance)
        # A shell that touches the cutoff may be cut.
        if np.count_nonzero(radii < cutoff - 2 * SAME_SHELL) >= shells:
            break
        if cutoff > farthest:
            raise BadStructure(f"{len(radii)} shells are all there are; {shells} were asked for.")
        cutoff *= 1.3
    radii = radii[:shells]
    nearest = np.abs(distance[:, None] - radii).argmin(axis=1)
    close = np.abs(distance - radii[nearest]) < SAME_SHELL
    bonds = torch.zeros(shells, len(atoms), len(atoms), dtype=torch.float64)
    index = (torch.from_numpy(nearest[close]), graph.receiver[close], graph.sender[close])
    return bonds.index_put_(index, bonds.new_ones(()), accumulate=True), radii


def _farthest(atoms: "Atoms") -> float:
    """Distance, Å, beyond which there is no other shell; infinite if the crystal repeats."""
    if atoms.pbc.any():
        return np.inf
    return float(np.linalg.norm(np.ptp(atoms.positions, axis=0))) + 1.0


def _distinct(distance: Float[ndarray, " edges"]) -> Float[ndarray, " shells"]:
    """Radii of shells, ascending."""
    ordered = np.sort(distance)
    return ordered[np.diff(ordered, prepend=-np.inf) > SAME_SHELL]


def _unit(vector: Float[ndarray, "*shape 3"]) -> Float[ndarray, "*shape 3"]:
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


class DoubleExchange:
    r"""Electrons that hop between nearest neighbours and align with classical spins.

    .. math::
        H = -t \sum_{\langle ij \rangle \sigma} (c^\dagger_{i\sigma} c_{j\sigma} + h.c.)
            - \frac J2 \sum_i S_i \cdot \sigma_i

    The energy of spins is the grand potential of the electrons,
    :math:`-kT \sum_k \ln(1 + e^{-(\epsilon_k - \mu) / kT})`; it depends on temperature.

    Args:
        lattice: Where the spins are; electrons hop along its first shell.
        temperature: K.
        hopping: :math:`t`, eV.
        coupling: :math:`J`, eV.
        chemical_potential: :math:`\mu`, eV; zero fills half the levels of a bipartite lattice.

    Raises:
        ValueError: The temperature is not positive.
    """

    def __init__(
        self,
        lattice: SpinLattice,
        temperature: float,
        *,
        hopping: float = 1.0,
        coupling: float = 1.0,
        chemical_potential: float = 0.0,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature} K; a positive number is needed.")
        self.kT = kB * temperature
        self.coupling, self.chemical_potential = coupling, chemical_potential
        self._hops = np.kron(-hopping * lattice.bonds[0].numpy(), np.eye(2))

    def energy(self, states: Float[ndarray, "chains sites 3"]) -> Float[ndarray, " chains"]:
        """Grand potential of the electrons, eV."""
        excess = (self.levels(states) - self.chemical_potential) / self.kT
        return -self.kT * np.logaddexp(0, -excess).sum(axis=1)

    def levels(self, states: Float[ndarray, "chains sites 3"]) -> Float[ndarray, "chains levels"]:
        """Energies an electron can have, eV."""
        chains, sites, _ = states.shape
        local = -0.5 * self.coupling * np.einsum("cia,ast->cist", states, PAULI)
        matrix = np.zeros((chains, sites, 2, sites, 2), dtype=np.complex128)
        each = np.arange(sites)
        matrix[:, each, :, each, :] = local.swapaxes(0, 1)
        return np.linalg.eigvalsh(matrix.reshape(chains, 2 * sites, 2 * sites) + self._hops)
