"""Dispersion that semilocal functionals miss, added to an energy that learned PBE.

The program is simple-dftd3. Parameters are those fitted for PBE, without three-body terms, as VASP
applies them with ``IVDW`` 12 and 11.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from ase_crystalformer.errors import MissingExtra, unknown_name
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.heads import EnergyResult
from ase_crystalformer.neighbours.search import completed

if TYPE_CHECKING:
    from dftd3.interface import DispersionModel

#: Classes of simple-dftd3 by the name of the damping.
DAMPINGS = {"d3bj": "RationalDampingParam", "d3zero": "ZeroDampingParam"}

BOHR = 0.529177210903  # Å
HARTREE = 27.211386245988  # eV

PAIRS = 60.0
"""Bohr. Pairs farther apart are left out: 0.3 meV/atom in silicon."""

FADE = 10.0
"""Bohr. On this last stretch before ``PAIRS`` they fade, so that energies have no steps."""

COUNTING = 40.0
"""Bohr. Neighbours farther away do not count towards an atom's coordination."""

HEAVIEST = 103
"""The heaviest element simple-dftd3 has parameters of."""


class Dispersion:
    """Grimme's D3 for PBE, added to the results of a potential.

    Args:
        damping: ``"d3bj"``, rational damping of Becke and Johnson (Grimme, Ehrlich and Goerigk, J.
            Comput. Chem. 32, 1456, 2011), or ``"d3zero"`` (Grimme et al., J. Chem. Phys. 132,
            154104, 2010).

    Raises:
        UnknownName: There is no such damping.
        MissingExtra: simple-dftd3 is not installed.
    """

    def __init__(self, damping: str) -> None:
        if damping not in DAMPINGS:
            raise unknown_name("dispersion", damping, DAMPINGS)
        _interface()
        self.damping = damping

    def add(self, result: EnergyResult, graph: CrystalGraph) -> EnergyResult:
        """Add dispersion to the energies of a batch and, where they are there, to derivatives.

        A crystal that simple-dftd3 cannot compute gets NaN; the others do not suffer. Of crystals
        without volume, the stress stays NaN.
        """
        counts = graph.crystal.bincount(minlength=graph.crystals).tolist()
        parts = zip(
            graph.species.split(counts),
            graph.positions.split(counts),
            graph.cell,
            graph.periodic,
            strict=True,
        )
        found = [
            self._of_one([tensor.numpy(force=True) for tensor in part], result.forces is not None)
            for part in parts
        ]
        per_atom = torch.from_numpy(np.concatenate([one[0] for one in found]))
        per_crystal = torch.stack([part.sum() for part in per_atom.split(counts)])
        energies = result.energies + per_atom.to(result.energies)
        energy = result.energy + per_crystal.to(result.energy)
        if result.forces is None or result.stress is None:
            return replace(result, energies=energies, energy=energy)
        forces = torch.from_numpy(np.concatenate([one[1] for one in found]))
        virial = torch.from_numpy(np.stack([one[2] for one in found]))
        stress = virial.to(result.stress) / graph.volume[:, None, None]
        return replace(
            result,
            energies=energies,
            energy=energy,
            forces=result.forces + forces.to(result.forces),
            stress=result.stress + stress,
        )

    def _of_one(
        self, crystal: list[ndarray], derivatives: bool
    ) -> tuple[Float[ndarray, " atoms"], Float[ndarray, "atoms 3"], Float[ndarray, "3 3"]]:
        """Energies of atoms (eV), forces (eV/Å) and virial (eV) of one crystal."""
        species, positions, cell, periodic = crystal
        energies = np.full(len(species), np.nan)
        forces, virial = np.full((len(species), 3), np.nan), np.full((3, 3), np.nan)
        if species.max() > HEAVIEST:
            return energies, forces, virial
        parameters = getattr(_interface(), DAMPINGS[self.damping])(method="PBE", atm=False)
        try:
            model = _model(species, positions.astype(float), cell.astype(float), periodic)
            pairs = model.get_pairwise_dispersion(parameters)
            energies = HARTREE * pairs["additive pairwise energy"].sum(1)
            if derivatives:
                found = model.get_dispersion(parameters, grad=True)
                forces = -HARTREE / BOHR * found["gradient"]
                virial = HARTREE * found["virial"]
        except RuntimeError:  # atoms on top of each other
            pass
        return energies, forces, virial


def boxed(
    positions: Float[ndarray, "atoms 3"],
    cell: Float[ndarray, "3 3"],
    periodic: Bool[ndarray, "3"],
) -> tuple[Float[ndarray, "atoms 3"], Float[ndarray, "3 3"]]:
    """Put vectors across a slab or wire, long enough that it lies between zero and their ends.

    Args:
        positions: Å.
        cell: Å; rows where the crystal does not repeat are not read.
        periodic: Along which cell vectors it repeats; at least one.

    Returns:
        Positions, shifted, and the cell.
    """
    whole = completed(cell, periodic)
    across = whole[~periodic]
    height = positions @ across.T
    low, high = height.min(0), height.max(0)
    whole[~periodic] = across * (high - low + 2 * BOHR * PAIRS)[:, None]
    return positions + (BOHR * PAIRS - low) @ across, whole


def _model(
    species: Int[ndarray, " atoms"],
    positions: Float[ndarray, "atoms 3"],
    cell: Float[ndarray, "3 3"],
    periodic: Bool[ndarray, "3"],
) -> "DispersionModel":
    """Hand a crystal to simple-dftd3, which wraps atoms into the cell along all its vectors."""
    lattice = None
    if periodic.any():
        positions, lattice = boxed(positions, cell, periodic)
        lattice = lattice / BOHR
    model = _interface().DispersionModel(species, positions / BOHR, lattice, periodic)
    model.set_realspace_cutoff(PAIRS, PAIRS, COUNTING, width2=FADE)
    return model


def _interface() -> Any:
    """Import simple-dftd3."""
    try:
        from dftd3 import interface
    except ModuleNotFoundError as error:
        hint = "pip install 'ase-crystalformer[dispersion]'"
        raise MissingExtra(f"Dispersion needs simple-dftd3: {hint}") from error
    return interface
