"""Bulk and shear modulus from the stress of strained crystals.

Reference: Voigt-Reuss-Hill averages of Materials Project's elastic tensors (M. de Jong et al.,
Scientific Data 2, 150009 (2015)).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field

from ase_crystalformer.assessment.benchmark import (
    Benchmark,
    Count,
    Positive,
    Statistic,
    atoms_of,
    label,
)
from ase_crystalformer.assessment.plots import parity
from ase_crystalformer.assessment.relaxing import relax_in_place
from ase_crystalformer.assessment.statistics import (
    mean_absolute,
    median_absolute,
    share,
    statistic,
)
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.readers import load
from ase_crystalformer.units import GPA

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a crystal is relaxed and strained.

    Attributes:
        strain: Size of each of the six strains; both signs are taken. Shears are the engineering
            kind.
        fmax: Largest force left, eV/Å. Forces left on atoms enter the moduli, so it is small.
        steps: Steps of each relaxation, after which it goes on with what it has.
    """

    strain: Annotated[float, Field(gt=0, lt=0.2)] = 0.01
    fmax: Positive = 0.001
    steps: Count = 500


@dataclass(frozen=True, kw_only=True)
class Row:
    """Moduli of one crystal, GPa.

    Attributes:
        bulk: Voigt-Reuss-Hill average of the potential.
        bulk_reference: The same of DFT.
        shear: Voigt-Reuss-Hill average of the potential.
        shear_reference: The same of DFT.
        stable: Whether every strain costs energy.
        converged: Whether all relaxations arrived.
    """

    bulk: float
    bulk_reference: float
    shear: float
    shear_reference: float
    stable: bool
    converged: bool


def elastic_tensor(
    atoms: "Atoms", calculator: Any, options: Options
) -> tuple[Float[ndarray, "6 6"], bool]:
    """Elastic constants of a relaxed crystal, eV/Å³, atoms relaxed in every strained cell.

    Returns:
        The symmetric matrix in Voigt's order, xx yy zz yz xz xy, and whether all atoms came to
        rest.
    """
    rows, converged = [], True
    for component in range(6):
        stresses = []
        for size in (options.strain, -options.strain):
            strained = atoms.copy()
            strained.set_cell(atoms.cell @ _stretch(component, size), scale_atoms=True)
            rest = relax_in_place(
                strained, calculator, fmax=options.fmax, steps=options.steps, cell=False
            )
            converged &= rest.converged
            stresses.append(strained.get_stress(voigt=True))
        rows.append((stresses[0] - stresses[1]) / (2 * options.strain))
    tensor = np.array(rows)
    return (tensor + tensor.T) / 2, converged


def _stretch(component: int, size: float) -> Float[ndarray, "3 3"]:
    """Symmetric deformation of one Voigt component; shears are halved between two entries."""
    voigt = np.zeros(6)
    voigt[component] = size
    xx, yy, zz, yz, xz, xy = voigt * [1, 1, 1, 0.5, 0.5, 0.5]
    return np.eye(3) + np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def measure(calculator: Any, crystal: LabelledCrystal, options: Options) -> Row:
    """Relax a crystal, strain it, and average its elastic constants."""
    from pymatgen.analysis.elasticity import ElasticTensor

    atoms = atoms_of(crystal)
    rest = relax_in_place(atoms, calculator, fmax=options.fmax, steps=options.steps)
    constants, converged = elastic_tensor(atoms, calculator, options)
    tensor = ElasticTensor.from_voigt(constants / GPA)
    return Row(
        bulk=float(tensor.k_vrh),
        bulk_reference=label(crystal, "bulk_modulus"),
        shear=float(tensor.g_vrh),
        shear_reference=label(crystal, "shear_modulus"),
        stable=bool(np.linalg.eigvalsh(constants).min() > 0),
        converged=rest.converged and converged,
    )


def summarise(rows: Sequence[Row]) -> list[Statistic]:
    """Average over crystals: all of them, stable or not."""
    found = [
        share("stable", (row.stable for row in rows)),
        share("converged", (row.converged for row in rows)),
    ]
    for name in ("bulk", "shear"):
        references = [getattr(row, f"{name}_reference") for row in rows]
        errors = [getattr(row, name) - getattr(row, f"{name}_reference") for row in rows]
        what = f"{name} modulus error"
        found += [
            statistic(f"{what}, mean absolute", "GPa", errors, mean_absolute),
            statistic(f"{what}, median absolute", "GPa", errors, median_absolute),
            statistic(f"{what}, mean", "GPa", errors),
            statistic(f"{name} modulus of DFT, mean", "GPa", references),
        ]
    return found


def draw(figure: "Figure", rows: Sequence[Row]) -> None:
    """Moduli beside DFT's."""
    for axes, name in zip(figure.subplots(1, 2), ("bulk", "shear"), strict=True):
        reference = [getattr(row, f"{name}_reference") for row in rows]
        parity(axes, [getattr(row, name) for row in rows], reference, f"{name} modulus (GPa)")


def _crystals(data: Path, _: Options) -> Iterable[LabelledCrystal]:
    return load("elasticity", data)


ELASTICITY = Benchmark(
    name="elasticity",
    about="bulk and shear moduli from stresses of strained crystals",
    row=Row,
    options=Options,
    crystals=_crystals,
    measure=measure,
    summarise=summarise,
    draw=draw,
    precision="float64",
    count=50,
)
