"""Equation of state of a crystal: energies at seven volumes, fitted after Birch and Murnaghan.

    python workflows/equation_of_state.py workflows/demo_structures/Si.cif
    python workflows/equation_of_state.py Cu.cif --calculator emt --width 0.04 -o copper

The crystal is relaxed, then scaled; atoms are relaxed again at every volume, the shape of the cell
is kept. Writes ``equation_of_state.json`` and a picture: volume in Å³/atom, energy in eV/atom, bulk
modulus in GPa, and its derivative by pressure.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ase import Atoms
from matplotlib.figure import Figure
from programs import Crystal, Out, Potential, at_rest, read_crystal, run, write_results
from pymatgen.analysis.eos import EOS

from ase_crystalformer import CrystalformerError, load_calculator

MODEL = EOS("birch_murnaghan")


@dataclass(frozen=True, kw_only=True)
class EquationOfState:
    """Energy by volume.

    Attributes:
        formula: Of the crystal.
        volume: Where the energy is lowest, Å³/atom.
        energy: There, eV/atom.
        bulk_modulus: There, GPa.
        derivative: Of the bulk modulus by pressure.
        volumes: That were computed, Å³/atom.
        energies: At these volumes, eV/atom.
    """

    formula: str
    volume: float
    energy: float
    bulk_modulus: float
    derivative: float
    volumes: list[float]
    energies: list[float]


def equation_of_state(
    crystal: Atoms, calculator: Any, *, width: float = 0.06, points: int = 7
) -> EquationOfState:
    """Compute the equation of state of a relaxed crystal.

    Args:
        crystal: Near the lowest energy.
        calculator: Of ASE.
        width: How far volumes reach on both sides, as a share of the crystal's.
        points: How many there are.

    Raises:
        CrystalformerError: The lowest energy is not inside.
    """
    volumes, energies = [], []
    for factor in np.linspace(1 - width, 1 + width, points):
        scaled = crystal.copy()
        scaled.set_cell(crystal.cell * factor ** (1 / 3), scale_atoms=True)
        scaled = at_rest(scaled, calculator, fmax=0.005, cell=False)
        volumes.append(float(scaled.get_volume()) / len(scaled))
        energies.append(float(scaled.get_potential_energy()) / len(scaled))
    if int(np.argmin(energies)) in (0, points - 1):
        raise CrystalformerError(
            f"The energy is lowest at an end, {volumes[int(np.argmin(energies))]:.2f} Å³/atom. "
            "Relax the crystal first, or give a larger --width."
        )
    fit = MODEL.fit(volumes, energies)
    return EquationOfState(
        formula=crystal.get_chemical_formula(empirical=True),
        volume=float(fit.v0),
        energy=float(fit.e0),
        bulk_modulus=float(fit.b0_GPa),
        derivative=float(fit.b1),
        volumes=volumes,
        energies=energies,
    )


def draw(found: EquationOfState) -> Figure:
    """Draw the energies and the curve through them."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    between = np.linspace(found.volumes[0], found.volumes[-1], 200)
    curve = MODEL.fit(found.volumes, found.energies)(between)
    axes.plot(between, 1000 * (curve - found.energy), color="0.5")
    axes.scatter(found.volumes, 1000 * (np.array(found.energies) - found.energy), zorder=2)
    axes.set(xlabel="volume (Å³/atom)", ylabel="energy (meV/atom)")
    axes.set_title(
        f"{found.formula}: V0 = {found.volume:.2f} Å³/atom, B0 = {found.bulk_modulus:.0f} GPa, "
        f"B1 = {found.derivative:.1f}",
        fontsize=9,
    )
    return figure


def main(
    crystal: Crystal,
    calculator: Potential = "default",
    width: Annotated[
        float, typer.Option(min=0.005, max=0.3, help="Share of the volume on both sides.")
    ] = 0.06,
    points: Annotated[int, typer.Option(min=5, help="How many volumes.")] = 7,
    out: Out = Path("equation_of_state"),
) -> None:
    """Relax the crystal, scale it, fit, and write."""
    potential = load_calculator(calculator, dtype="float64")
    rest = at_rest(read_crystal(crystal), potential)
    found = equation_of_state(rest, potential, width=width, points=points)
    write_results(out, "equation_of_state", found, draw(found))
    print(
        f"{found.formula}: V0 {found.volume:.3f} Å³/atom, E0 {found.energy:.4f} eV/atom, "
        f"B0 {found.bulk_modulus:.1f} GPa, B1 {found.derivative:.2f}"
    )


if __name__ == "__main__":
    run(main, __doc__)
