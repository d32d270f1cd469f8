"""Heat capacity of harmonic phonons, and whether a crystal that is stable in DFT stays so.

Reference: heat capacities at constant volume of PBE phonons (A. Loew et al., npj Computational
Materials 11, 178 (2025)). Frequencies are judged at the wave vectors that fit the supercell, where
they are exact and not interpolated.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from ase_crystalformer.assessment.benchmark import (
    Benchmark,
    Count,
    Positive,
    Statistic,
    atoms_of,
    label,
)
from ase_crystalformer.assessment.plots import histogram, parity
from ase_crystalformer.assessment.relaxing import relax_in_place
from ase_crystalformer.assessment.statistics import (
    mean_absolute,
    median_absolute,
    share,
    statistic,
)
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.readers import load
from ase_crystalformer.errors import MissingExtra

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

#: Frequencies below this are imaginary beyond doubt, THz.
IMAGINARY = -0.1

UNIT = "J/K/mol"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How phonons are computed.

    Attributes:
        temperature: Of the heat capacity, K. The reference is of 300 K.
        length: Least distance of an atom from its image in the supercell, Å.
        displacement: How far atoms are moved, Å.
        mesh: Density of wave vectors, as a length, Å.
        fmax: Largest force left by the relaxation, eV/Å.
        steps: Steps of the relaxation, after which it goes on with what it has.
    """

    temperature: Positive = 300.0
    length: Positive = 10.0
    displacement: Annotated[float, Field(gt=0, lt=1)] = 0.01
    mesh: Positive = 40.0
    fmax: Positive = 0.001
    steps: Count = 500


@dataclass(frozen=True, kw_only=True)
class Row:
    """Phonons of one crystal.

    Attributes:
        heat_capacity: Of the potential, J/K per mole of atoms; imaginary modes count nothing.
        reference: Of DFT.
        lowest: Lowest frequency, THz; negative if imaginary.
        converged: Whether the relaxation arrived.
    """

    heat_capacity: float
    reference: float
    lowest: float
    converged: bool


def phonons(atoms: "Atoms", calculator: Any, options: Options) -> Any:
    """Compute force constants of a relaxed crystal; return phonopy's object.

    Raises:
        MissingExtra: phonopy is not installed.
    """
    try:
        from phonopy import Phonopy
    except ImportError as error:
        hint = "pip install 'ase-crystalformer[phonons]'"
        raise MissingExtra(f"Phonons need phonopy: {hint}") from error
    from phonopy.structure.atoms import PhonopyAtoms

    cell = PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell.array, scaled_positions=atoms.get_scaled_positions()
    )
    heights = 1 / np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    repeats = np.maximum(1, np.ceil(options.length / heights - 1e-6)).astype(int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Point group symmetries of supercell", UserWarning)
        # Symmetry as exact as a relaxation leaves it.
        found = Phonopy(cell, np.diag(repeats), primitive_matrix=np.eye(3), symprec=1e-3)
    found.generate_displacements(distance=options.displacement)
    supercells = found.supercells_with_displacements or []
    found.forces = [_forces(moved, calculator) for moved in supercells]
    found.produce_force_constants()
    found.symmetrize_force_constants()
    return found


def _forces(supercell: Any, calculator: Any) -> Any:
    from ase import Atoms

    moved = Atoms(
        numbers=supercell.numbers,
        cell=supercell.cell,
        scaled_positions=supercell.scaled_positions,
        pbc=True,
    )
    moved.calc = calculator
    return moved.get_forces()


def lowest_frequency(found: Any) -> float:
    """Lowest frequency at the wave vectors that fit the supercell, THz."""
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

    points = get_commensurate_points(np.rint(found.supercell_matrix).astype(int))
    return float(found.run_qpoints(points).frequencies.min())


def heat_capacity(found: Any, options: Options) -> float:
    """Heat capacity at constant volume, J/K per mole of atoms."""
    # Of all wave vectors, since the supercell may have less symmetry than the crystal.
    found.run_mesh(options.mesh, is_mesh_symmetry=False)
    found.run_thermal_properties(temperatures=[options.temperature], exclude_gamma_acoustic=True)
    return float(found.thermal_properties.heat_capacity[0]) / len(found.primitive)


def measure(calculator: Any, crystal: LabelledCrystal, options: Options) -> Row:
    """Relax a crystal and compute its phonons."""
    atoms = atoms_of(crystal)
    rest = relax_in_place(atoms, calculator, fmax=options.fmax, steps=options.steps)
    found = phonons(atoms, calculator, options)
    return Row(
        heat_capacity=heat_capacity(found, options),
        reference=label(crystal, "heat_capacity") / crystal.atoms,
        lowest=lowest_frequency(found),
        converged=rest.converged,
    )


def summarise(rows: Sequence[Row]) -> list[Statistic]:
    """Average over crystals, those with imaginary modes included."""
    errors = [row.heat_capacity - row.reference for row in rows]
    sound = [e for e, row in zip(errors, rows, strict=True) if row.lowest >= IMAGINARY]
    return [
        share("without imaginary modes", (row.lowest >= IMAGINARY for row in rows)),
        statistic("lowest frequency, median", "THz", (row.lowest for row in rows), np.median),
        statistic("heat capacity error, mean absolute", UNIT, errors, mean_absolute),
        statistic("heat capacity error, median absolute", UNIT, errors, median_absolute),
        statistic("heat capacity error, mean", UNIT, errors),
        statistic("heat capacity of DFT, mean", UNIT, (row.reference for row in rows)),
        statistic("the same without imaginary modes, mean absolute", UNIT, sound, mean_absolute),
        share("converged", (row.converged for row in rows)),
    ]


def draw(figure: "Figure", rows: Sequence[Row]) -> None:
    """Heat capacities beside DFT's, and the lowest frequencies."""
    left, right = figure.subplots(1, 2)
    found, reference = [row.heat_capacity for row in rows], [row.reference for row in rows]
    parity(left, found, reference, "heat capacity (J/K per mole of atoms)")
    histogram(right, [row.lowest for row in rows], "lowest frequency (THz)")


def _crystals(data: Path, _: Options) -> Iterable[LabelledCrystal]:
    return load("phonon_heat_capacity", data)


HEAT_CAPACITY = Benchmark(
    name="heat-capacity",
    about="harmonic heat capacity at 300 K, and imaginary modes",
    row=Row,
    options=Options,
    crystals=_crystals,
    measure=measure,
    summarise=summarise,
    draw=draw,
    precision="float64",
    count=50,
)
