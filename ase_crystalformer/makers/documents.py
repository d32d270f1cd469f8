"""What jobs leave behind."""

from typing import Any

from pydantic import BaseModel
from pymatgen.core import Structure


class Computed(BaseModel):
    """A structure and what the potential says of it.

    Attributes:
        structure: As computed; relaxed, by ``RelaxMaker``.
        energy: eV.
        forces: eV/Å.
        stress: eV/Å³, positive where the crystal is pulled.
        converged: Whether it came to rest; ``None`` if it was not moved.
        calculator: By name.
    """

    structure: Structure
    energy: float
    forces: list[list[float]]
    stress: list[list[float]]
    converged: bool | None
    calculator: str


class EquationOfState(BaseModel):
    """Birch and Murnaghan's equation of state.

    Attributes:
        volume: Where the energy is lowest, Å³/atom.
        bulk_modulus: There, GPa.
        bulk_modulus_derivative: By pressure.
        volumes: That were computed, Å³/atom.
        energies: At these volumes, eV/atom.
        converged: Whether atoms came to rest at all of them; if not, it is not to be relied on.
    """

    volume: float
    bulk_modulus: float
    bulk_modulus_derivative: float
    volumes: list[float]
    energies: list[float]
    converged: bool


class Elasticity(BaseModel):
    """Elastic constants, GPa, in Voigt's order.

    Attributes:
        tensor: Along the axes of the structure.
        bulk_modulus: After Voigt, Reuss and Hill.
        shear_modulus: After Voigt, Reuss and Hill.
        stable: Whether every strain costs energy.
        converged: Whether atoms came to rest under every strain; if not, it is not to be relied on.
    """

    tensor: list[list[float]]
    bulk_modulus: float
    shear_modulus: float
    stable: bool
    converged: bool


class Vibrations(BaseModel):
    """Harmonic phonons.

    Attributes:
        force_constants: Between the supercell's atoms, eV/Å², as phonopy has them.
        supercell: Repeats along the vectors of the cell.
        lowest_frequency: At wave vectors that fit the supercell, THz; negative if imaginary.
        temperature: K.
        heat_capacity: At constant volume and that temperature, J/K per mole of atoms.
    """

    force_constants: Any
    supercell: list[int]
    lowest_frequency: float
    temperature: float
    heat_capacity: float
