"""What became of a structure that was relaxed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ase_crystalformer.quantities import Quantities, Results

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True, eq=False, kw_only=True)
class Relaxed:
    """How one structure fared.

    Attributes:
        atoms: The structure at the end, with its energy, forces and stress; ``None`` if it could
            not even start.
        energy: eV; NaN if it failed.
        fmax: Largest force on an atom, eV/Å; NaN if it failed.
        stress: Voigt, eV/Å³, as ASE defines it; ``None`` if it failed or has no volume.
        converged: Whether forces and stress are as small as was asked.
        steps: How often it moved.
        error: Why it failed; ``None`` if it did not.
        energy_uncertainty: Expected error of the energy, eV; ``None``, as the two below, if it
            failed or the model was not calibrated.
        forces_uncertainty: Expected length of the error of the force on every atom, eV/Å.
        novelty: Of every atom; beyond 1 its surroundings are outside of what was trained on.
    """

    atoms: "Atoms | None"
    energy: float = np.nan
    fmax: float = np.nan
    stress: Float[ndarray, "6"] | None = None
    converged: bool = False
    steps: int = 0
    error: str | None = None
    energy_uncertainty: float | None = None
    forces_uncertainty: Float[ndarray, " atoms"] | None = None
    novelty: Float[ndarray, " atoms"] | None = None


def put_results(atoms: "Atoms", known: Quantities, made_by: Mapping[str, Any]) -> None:
    """Give a structure what is known of it, as files and databases tell it of our calculator.

    Args:
        atoms: The structure.
        known: Energy, forces, stress and uncertainties.
        made_by: What computed it, as the calculator's ``parameters`` tell it.
    """
    from ase.calculators.singlepoint import SinglePointCalculator

    from ase_crystalformer.calculator import CrystalformerCalculator

    results = Results(known)
    kept = SinglePointCalculator(atoms, **results)
    kept.results = Results({**kept.results, **results.uncertainties})
    kept.name = CrystalformerCalculator.name
    kept.parameters.update(made_by)
    atoms.calc = kept
