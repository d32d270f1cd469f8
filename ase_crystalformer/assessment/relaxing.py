"""Relaxation by any ASE calculator, guarded against crystals that fly apart or collapse."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ase_crystalformer.errors import BadStructure

if TYPE_CHECKING:
    from ase import Atoms

#: A crystal whose volume changes by more than this factor is lost.
LARGEST_CHANGE = 4.0


@dataclass(frozen=True, kw_only=True)
class Rest:
    """How a relaxation ended.

    Attributes:
        converged: Whether forces and stress are as small as was asked.
        steps: How often the crystal moved.
    """

    converged: bool
    steps: int


def relax_in_place(
    atoms: "Atoms", calculator: Any, *, fmax: float, steps: int, cell: bool = True
) -> Rest:
    """Relax a crystal: with its cell by FIRE, or the atoms alone by BFGS.

    Args:
        atoms: Moved, and left with the calculator.
        calculator: Of ASE.
        fmax: Largest force left on an atom, and row of stress times volume per atom, eV/Å.
        steps: How often it may move.
        cell: Relax the cell too.

    Raises:
        BadStructure: The volume changes beyond recognition.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS, FIRE

    atoms.calc = calculator
    before = atoms.get_volume()
    moving = FrechetCellFilter(atoms) if cell else atoms
    optimiser = (FIRE if cell else BFGS)(moving, logfile=None)
    arrived = False
    with warnings.catch_warnings():
        # Of the logarithm of strains that are all but zero.
        warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
        for arrived in optimiser.irun(fmax=fmax, steps=steps):  # noqa: B007  asked at the end
            change = atoms.get_volume() / before
            if not 1 / LARGEST_CHANGE < change < LARGEST_CHANGE:
                raise BadStructure(
                    f"Lost in step {optimiser.nsteps}: its volume is {change:.3g} times what it "
                    "was. The potential does not hold this crystal together."
                )
    return Rest(converged=bool(arrived), steps=optimiser.nsteps)
