"""Phonons of a crystal: bands, density of states, heat capacity, and imaginary modes.

    python workflows/phonons.py workflows/demo_structures/Si.cif
    python workflows/phonons.py Cu.cif --calculator emt --length 12 -o copper

The crystal is relaxed; phonopy moves atoms of a supercell one by one and reads the forces. Polar
crystals lack the splitting of optical modes at long waves, which needs Born charges. Imaginary
frequencies are negative, and judged at the wave vectors that fit the supercell, where they are
exact. Writes ``phonons.json`` and a picture; needs ``pip install 'ase-crystalformer[phonons]'``.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ase import Atoms
from matplotlib.figure import Figure
from programs import Crystal, Out, Potential, at_rest, read_crystal, run, write_results

from ase_crystalformer import CrystalformerError, load_calculator

#: Frequencies below this are imaginary beyond doubt, THz.
IMAGINARY = -0.1


@dataclass(frozen=True, kw_only=True)
class Phonons:
    """Harmonic lattice vibrations.

    Attributes:
        formula: Of the crystal.
        lowest: Lowest frequency at the wave vectors that fit the supercell, THz.
        stable: Whether it is not imaginary.
        zero_point_energy: kJ per mole of atoms.
        temperatures: K.
        heat_capacity: At constant volume, J/K per mole of atoms, at these temperatures.
        entropy: J/K per mole of atoms.
        free_energy: kJ per mole of atoms.
        path: Names of the corners of the band path, and where they are along it, 1/Å.
        distances: Of the wave vectors along the path, 1/Å.
        bands: Frequencies there, THz; a row per wave vector.
        frequencies: Of the density of states, THz.
        density: Of states, per THz and atom.
    """

    formula: str
    lowest: float
    stable: bool
    zero_point_energy: float
    temperatures: list[float]
    heat_capacity: list[float]
    entropy: list[float]
    free_energy: list[float]
    path: list[tuple[str, float]]
    distances: list[float]
    bands: list[list[float]]
    frequencies: list[float]
    density: list[float]


def force_constants(
    crystal: Atoms, calculator: Any, *, length: float = 10.0, displacement: float = 0.01
) -> Any:
    """Compute force constants of a relaxed crystal; return phonopy's object.

    Args:
        crystal: At rest.
        calculator: Of ASE.
        length: Least height of the supercell, Å.
        displacement: How far atoms are moved, Å.

    Raises:
        CrystalformerError: phonopy is not installed.
    """
    try:
        from phonopy import Phonopy
        from phonopy.structure.atoms import PhonopyAtoms
    except ImportError as error:
        hint = "pip install 'ase-crystalformer[phonons]'"
        raise CrystalformerError(f"Phonons need phonopy: {hint}") from error
    heights = 1 / np.linalg.norm(crystal.cell.reciprocal(), axis=1)
    repeats = np.maximum(1, np.ceil(length / heights - 1e-6)).astype(int)
    cell = PhonopyAtoms(
        numbers=crystal.numbers,
        cell=crystal.cell.array,
        scaled_positions=crystal.get_scaled_positions(),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Point group symmetries of supercell", UserWarning)
        phonopy = Phonopy(cell, np.diag(repeats), primitive_matrix="auto", symprec=1e-3)
    phonopy.generate_displacements(distance=displacement)
    forces = []
    for supercell in phonopy.supercells_with_displacements or []:
        moved = Atoms(
            numbers=supercell.numbers, cell=supercell.cell, positions=supercell.positions, pbc=True
        )
        moved.calc = calculator
        forces.append(moved.get_forces())
    phonopy.forces = forces
    phonopy.produce_force_constants()
    phonopy.symmetrize_force_constants()
    return phonopy


def phonons(
    phonopy: Any, formula: str, *, temperatures: list[float], mesh: float = 40.0, points: int = 200
) -> Phonons:
    """Compute frequencies and what follows from them.

    Args:
        phonopy: With force constants.
        formula: Of the crystal.
        temperatures: K.
        mesh: Density of wave vectors, as a length, Å.
        points: Along the band path.
    """
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

    atoms = len(phonopy.primitive)
    repeats = (phonopy.supercell.cell @ np.linalg.inv(phonopy.primitive.cell)).T
    exact = get_commensurate_points(np.rint(repeats).astype(int))
    lowest = float(phonopy.run_qpoints(exact).frequencies.min())
    path = Atoms(cell=phonopy.primitive.cell, pbc=True).cell.bandpath(npoints=points)
    distances, corners, names = path.get_linear_kpoint_axis()
    bands = phonopy.run_qpoints(path.kpts).frequencies
    phonopy.run_mesh(mesh)
    phonopy.run_total_dos()
    density = phonopy.total_dos
    phonopy.run_thermal_properties(temperatures=[0.0, *temperatures], exclude_gamma_acoustic=True)
    thermal = phonopy.thermal_properties
    return Phonons(
        formula=formula,
        lowest=lowest,
        stable=lowest > IMAGINARY,
        zero_point_energy=float(thermal.free_energy[0]) / atoms,
        temperatures=temperatures,
        heat_capacity=(np.array(thermal.heat_capacity[1:]) / atoms).tolist(),
        entropy=(np.array(thermal.entropy[1:]) / atoms).tolist(),
        free_energy=(np.array(thermal.free_energy[1:]) / atoms).tolist(),
        path=list(zip(names, corners.tolist(), strict=True)),
        distances=distances.tolist(),
        bands=np.array(bands).tolist(),
        frequencies=np.array(density.frequency_points).tolist(),
        density=(np.array(density.dos) / atoms).tolist(),
    )


def draw(found: Phonons) -> Figure:
    """Draw bands, density of states and heat capacity."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[3, 1, 2])
    left.plot(found.distances, found.bands, color="C0", linewidth=1)
    left.axhline(0, color="0.6", linewidth=0.6)
    for _, place in found.path:
        left.axvline(place, color="0.8", linewidth=0.6)
    left.set_xticks([place for _, place in found.path], [name for name, _ in found.path])
    left.set(ylabel="frequency (THz)", xlim=(0, found.distances[-1]))
    left.set_title(f"{found.formula}; lowest: {found.lowest:.2f} THz", fontsize=9)
    middle.plot(found.density, found.frequencies)
    middle.set(xlabel="density (1/THz/atom)", ylim=left.get_ylim(), yticklabels=[])
    right.plot(found.temperatures, found.heat_capacity)
    right.axhline(24.943, color="0.6", linewidth=0.8, linestyle="--")
    right.set(xlabel="temperature (K)", ylabel="heat capacity (J/K per mole of atoms)")
    return figure


def main(
    crystal: Crystal,
    calculator: Potential = "default",
    length: Annotated[float, typer.Option(help="Least height of the supercell, Å.")] = 10.0,
    displacement: Annotated[float, typer.Option(help="How far atoms are moved, Å.")] = 0.01,
    mesh: Annotated[float, typer.Option(help="Density of wave vectors, as a length, Å.")] = 40.0,
    hottest: Annotated[
        float, typer.Option(min=50, help="Of the table, K; in steps of 50.")
    ] = 1000.0,
    out: Out = Path("phonons"),
) -> None:
    """Relax the crystal, compute its phonons, and write."""
    potential = load_calculator(calculator, dtype="float64")
    rest = at_rest(read_crystal(crystal), potential)
    phonopy = force_constants(rest, potential, length=length, displacement=displacement)
    temperatures = np.arange(50, hottest + 1, 50).tolist()
    formula = rest.get_chemical_formula(empirical=True)
    found = phonons(phonopy, formula, temperatures=temperatures, mesh=mesh)
    write_results(out, "phonons", found, draw(found))
    told = dict(zip(found.temperatures, found.heat_capacity, strict=True))
    for temperature in sorted({300.0, temperatures[-1]} & set(told)):
        print(f"{formula}: heat capacity at {temperature:g} K {told[temperature]:.2f} J/K/mol")
    verdict = "no imaginary modes" if found.stable else "imaginary modes"
    print(f"{formula}: lowest frequency {found.lowest:.3f} THz, {verdict}")


if __name__ == "__main__":
    run(main, __doc__)
