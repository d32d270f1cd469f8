"""What the tests of benchmarks share: labelled crystals, and cheap potentials to measure."""

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from ase_crystalformer.assessment import equation_of_state
from ase_crystalformer.assessment.relaxing import relax_in_place
from ase_crystalformer.data.crystals import LabelledCrystal


def labelled(atoms, name="crystal", **labels):
    """A crystal as a data set would hold it."""
    return LabelledCrystal(
        species=atoms.numbers.astype(np.int64),
        positions=atoms.positions,
        cell=atoms.cell.array,
        periodic=atoms.pbc,
        labels=labels,
        id=name,
        source="made up",
        group="made up",
    )


def argon(reach=16.0):
    """Lennard-Jones argon whose pairs fade out at ``reach``, Å."""
    return LennardJones(sigma=3.4, epsilon=0.0104, rc=reach, ro=reach - 2, smooth=True)


def copper_at_rest():
    """Copper, one atom, where EMT has its minimum."""
    atoms = bulk("Cu", "fcc", a=3.6)
    relax_in_place(atoms, EMT(), fmax=1e-6, steps=200)
    return atoms


def equation(calculator, atoms):
    """Equation of state of a crystal."""
    told = equation_of_state.Options()
    return equation_of_state.equation_of_state(calculator, labelled(atoms), told)
