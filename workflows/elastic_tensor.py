"""Elastic tensor of a crystal: stresses of strained cells, moduli, and whether it is stable.

    python workflows/elastic_tensor.py workflows/demo_structures/Si.cif
    python workflows/elastic_tensor.py Cu.cif --calculator emt --strain 0.005 -o copper

The crystal is relaxed; each of the six strains is applied with both signs and two sizes, and atoms
are relaxed in every strained cell. Writes ``elastic_tensor.json`` (GPa; Voigt's order xx yy zz yz
xz xy, the axes of the file) and a picture of Young's modulus by direction. A crystal is stable if
every strain costs energy, that is if the tensor has no eigenvalue below zero (F. Mouhat and
F.-X. Coudert, Phys. Rev. B 90, 224104 (2014)).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ase import Atoms, units
from jaxtyping import Float
from matplotlib.figure import Figure
from programs import Crystal, Out, Potential, at_rest, read_crystal, run, write_results
from pymatgen.analysis.elasticity import ElasticTensor, Strain, Stress

from ase_crystalformer import load_calculator


@dataclass(frozen=True, kw_only=True)
class Elasticity:
    """Elastic constants and what follows from them; GPa where no other unit is told.

    Attributes:
        formula: Of the crystal.
        tensor: Voigt's matrix.
        bulk: Moduli after Voigt, Reuss and Hill.
        shear: The same.
        young: Young's modulus of the polycrystal, after Hill.
        poisson: Poisson's ratio of the polycrystal, after Hill; 1.
        anisotropy: Universal anisotropy (S. I. Ranganathan and M. Ostoja-Starzewski, 2008); zero
            where all directions are alike; 1.
        eigenvalues: Of the matrix.
        stable: Whether all of them are positive.
    """

    formula: str
    tensor: list[list[float]]
    bulk: dict[str, float]
    shear: dict[str, float]
    young: float
    poisson: float
    anisotropy: float
    eigenvalues: list[float]
    stable: bool


def elastic_tensor(crystal: Atoms, calculator: Any, *, strain: float = 0.01) -> ElasticTensor:
    """Fit the elastic tensor of a relaxed crystal, GPa.

    Args:
        crystal: At rest.
        calculator: Of ASE.
        strain: The larger size of the strains; the other is half of it. Shears are twice the
            off-diagonal entry.
    """
    strains, stresses = [], []
    for component in range(6):
        for size in (-strain, -strain / 2, strain / 2, strain):
            green = Strain.from_voigt(size * np.eye(6)[component])
            strained = crystal.copy()
            deformation = green.get_deformation_matrix(shape="symmetric")
            strained.set_cell(crystal.cell @ np.array(deformation).T, scale_atoms=True)
            strained = at_rest(strained, calculator, cell=False)
            strains.append(green)
            stresses.append(Stress(strained.get_stress(voigt=False) / units.GPa))
    rest = at_rest(crystal, calculator, cell=False)
    zero = Stress(rest.get_stress(voigt=False) / units.GPa)
    tensor = ElasticTensor.from_independent_strains(strains, stresses, eq_stress=zero)
    return tensor.voigt_symmetrized


def described(formula: str, tensor: ElasticTensor) -> Elasticity:
    """Compute moduli and stability."""
    matrix = np.array(tensor.voigt)
    eigenvalues = np.linalg.eigvalsh(matrix)
    bulk, shear = float(tensor.k_vrh), float(tensor.g_vrh)
    return Elasticity(
        formula=formula,
        tensor=matrix.tolist(),
        bulk={"voigt": float(tensor.k_voigt), "reuss": float(tensor.k_reuss), "hill": bulk},
        shear={"voigt": float(tensor.g_voigt), "reuss": float(tensor.g_reuss), "hill": shear},
        young=9 * bulk * shear / (3 * bulk + shear),
        poisson=(3 * bulk - 2 * shear) / (6 * bulk + 2 * shear),
        anisotropy=float(tensor.universal_anisotropy),
        eigenvalues=eigenvalues.tolist(),
        stable=bool(eigenvalues.min() > 0),
    )


def young_by_direction(
    tensor: ElasticTensor, directions: Float[np.ndarray, "directions 3"]
) -> Float[np.ndarray, " directions"]:
    """Young's modulus along unit vectors, GPa: 1 / (n n S n n)."""
    compliance = np.array(tensor.compliance_tensor)
    n = directions
    return 1 / np.einsum("di,dj,dk,dl,ijkl->d", n, n, n, n, compliance)


def draw(formula: str, tensor: ElasticTensor) -> Figure:
    """Draw Young's modulus in the three planes of the axes."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    turn = np.linspace(0, 2 * np.pi, 361)
    for number, (one, other) in enumerate(((0, 1), (1, 2), (2, 0))):
        axes = figure.add_subplot(1, 3, number + 1, projection="polar")
        directions = np.zeros((len(turn), 3))
        directions[:, one] = np.cos(turn)
        directions[:, other] = np.sin(turn)
        axes.plot(turn, young_by_direction(tensor, directions))
        axes.set_ylim(bottom=0)
        axes.set_title("xyz"[one] + "xyz"[other], fontsize=9)
    figure.suptitle(f"{formula}: Young's modulus by direction (GPa)", fontsize=10)
    return figure


def main(
    crystal: Crystal,
    calculator: Potential = "default",
    strain: Annotated[
        float, typer.Option(min=1e-4, max=0.05, help="The larger of the two sizes.")
    ] = 0.01,
    out: Out = Path("elastic_tensor"),
) -> None:
    """Relax the crystal, strain it, and write."""
    potential = load_calculator(calculator, dtype="float64")
    rest = at_rest(read_crystal(crystal), potential)
    tensor = elastic_tensor(rest, potential, strain=strain)
    found = described(rest.get_chemical_formula(empirical=True), tensor)
    figure = draw(found.formula, tensor) if found.stable else None
    write_results(out, "elastic_tensor", found, figure)
    print(np.array2string(np.array(found.tensor), precision=1, suppress_small=True))
    print(
        f"{found.formula}: bulk {found.bulk['hill']:.1f} GPa, shear {found.shear['hill']:.1f} GPa, "
        f"{'stable' if found.stable else 'not stable'}"
    )


if __name__ == "__main__":
    run(main, __doc__)
