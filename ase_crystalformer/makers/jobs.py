"""Makers, one per job; each runs wherever jobflow sends it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.core import Structure

from ase_crystalformer.assessment.calculators import load_calculator
from ase_crystalformer.assessment.relaxing import relax_in_place
from ase_crystalformer.errors import BadStructure, MissingExtra
from ase_crystalformer.makers.documents import (
    Computed,
    Elasticity,
    EquationOfState,
    Vibrations,
)
from ase_crystalformer.pretrained import Precision
from ase_crystalformer.units import GPA

try:
    from jobflow.core.flow import Flow
    from jobflow.core.job import Job, job
    from jobflow.core.maker import Maker
except ImportError as error:
    hint = "pip install 'ase-crystalformer[jobflow]'"
    raise MissingExtra(f"Makers need jobflow: {hint}") from error

if TYPE_CHECKING:
    from ase import Atoms


@dataclass
class PotentialMaker(Maker):
    """What all makers are told: the potential.

    Attributes:
        name: Of the job.
        calculator: As of ``load_calculator``: a model's name or path, a name of ASE's, or
            ``package.module:factory``.
        device: For models of this package.
        dtype: For models of this package.
    """

    name: str = "potential"
    calculator: str = "default"
    device: str = "auto"
    dtype: Precision = "float64"

    def potential(self) -> Any:
        """Return the calculator."""
        return load_calculator(self.calculator, device=self.device, dtype=self.dtype)

    def computed(self, atoms: "Atoms", converged: bool | None) -> Computed:
        """Read the results of a structure with a calculator."""
        return Computed(
            structure=_structure(atoms),
            energy=float(atoms.get_potential_energy()),
            forces=atoms.get_forces().tolist(),
            stress=atoms.get_stress(voigt=False).tolist(),
            converged=converged,
            calculator=self.calculator,
        )


@dataclass
class StaticMaker(PotentialMaker):
    """Energy, forces and stress of a structure as it is."""

    name: str = "static"

    @job(output_schema=Computed)
    def make(self, structure: Structure) -> Computed:
        """Make the job."""
        atoms = _atoms(structure)
        atoms.calc = self.potential()
        return self.computed(atoms, None)


@dataclass
class RelaxMaker(PotentialMaker):
    """A structure at rest, or, marked ``converged: false``, as it was after the last step.

    Attributes:
        fmax: Largest force left on an atom, and row of stress times volume per atom, eV/Å.
        steps: How often it may move.
        relax_cell: Relax the cell too.
    """

    name: str = "relax"
    fmax: float = 0.005
    steps: int = 500
    relax_cell: bool = True

    @job(output_schema=Computed)
    def make(self, structure: Structure) -> Computed:
        """Make the job.

        Raises:
            BadStructure: When it runs, and the crystal flies apart or collapses.
        """
        atoms = _atoms(structure)
        rest = relax_in_place(
            atoms, self.potential(), fmax=self.fmax, steps=self.steps, cell=self.relax_cell
        )
        return self.computed(atoms, rest.converged)


@dataclass
class _AtRest(PotentialMaker, ABC):
    """A property of a relaxed structure: two jobs, or one if there is nothing to relax.

    The second job fails with ``BadStructure`` if the first leaves the structure moving.

    Attributes:
        relax_maker: ``None`` takes the structure as it is.
    """

    relax_maker: RelaxMaker | None = field(default_factory=lambda: RelaxMaker(fmax=0.001))

    def make(self, structure: Structure) -> Flow:
        """Make the flow; its output is that of the property."""
        jobs: list[Job] = []
        converged: Any = None
        if self.relax_maker is not None:
            maker = replace(
                self.relax_maker, calculator=self.calculator, device=self.device, dtype=self.dtype
            )
            relaxing = maker.make(structure)
            jobs.append(relaxing)
            structure, converged = relaxing.output.structure, relaxing.output.converged
        jobs.append(self.measured(structure, converged))
        return Flow(jobs, output=jobs[-1].output, name=self.name)

    @abstractmethod
    def measured(self, structure: Structure, converged: bool | None = None) -> Any:
        """Make the job of the property.

        Args:
            structure: At rest.
            converged: What the relaxation before says of that.
        """


@dataclass
class EquationOfStateMaker(_AtRest):
    """Energies at volumes around that of rest, and a fit; atoms relaxed, the shape kept.

    Attributes:
        width: How far volumes reach on both sides, as a share.
        points: How many there are.
    """

    name: str = "equation of state"
    width: float = 0.06
    points: int = 7

    @job(output_schema=EquationOfState)
    def measured(self, structure: Structure, converged: bool | None = None) -> EquationOfState:
        """Make the job of the fit.

        Raises:
            BadStructure: When it runs, and the energies have no minimum, or the structure was still
                moving.
        """
        from ase_crystalformer.assessment.equation_of_state import fit

        start, potential = _at_rest(structure, converged), self.potential()
        volumes, energies, arrived = [], [], True
        for factor in np.linspace(1 - self.width, 1 + self.width, self.points):
            atoms = start.copy()
            atoms.set_cell(start.cell * factor ** (1 / 3), scale_atoms=True)
            rest = relax_in_place(atoms, potential, fmax=0.005, steps=500, cell=False)
            arrived &= rest.converged
            volumes.append(atoms.get_volume() / len(atoms))
            energies.append(float(atoms.get_potential_energy()) / len(atoms))
        curve = fit(np.array(volumes), np.array(energies))
        if curve is None or not volumes[0] < curve.volume < volumes[-1]:
            raise BadStructure(
                f"No minimum of the energy of {structure.composition.reduced_formula} between "
                f"{volumes[0]:.2f} and {volumes[-1]:.2f} Å³/atom. Relax it before, or take a "
                "larger width."
            )
        return EquationOfState(
            volume=curve.volume,
            bulk_modulus=curve.bulk,
            bulk_modulus_derivative=curve.derivative,
            volumes=volumes,
            energies=energies,
            converged=arrived,
        )


@dataclass
class ElasticMaker(_AtRest):
    """Elastic constants from stresses of strained cells, atoms relaxed.

    Attributes:
        strain: Size of each of the six strains; both signs are taken.
    """

    name: str = "elastic"
    strain: float = 0.01

    @job(output_schema=Elasticity)
    def measured(self, structure: Structure, converged: bool | None = None) -> Elasticity:
        """Make the job of the strains.

        Raises:
            BadStructure: When it runs, and the structure was still moving.
        """
        from pymatgen.analysis.elasticity import ElasticTensor

        from ase_crystalformer.assessment.elasticity import Options, elastic_tensor

        options = Options(strain=self.strain)
        start = _at_rest(structure, converged)
        constants, arrived = elastic_tensor(start, self.potential(), options)
        tensor = ElasticTensor.from_voigt(constants / GPA)
        return Elasticity(
            tensor=(constants / GPA).tolist(),
            bulk_modulus=float(tensor.k_vrh),
            shear_modulus=float(tensor.g_vrh),
            stable=bool(np.linalg.eigvalsh(constants).min() > 0),
            converged=arrived,
        )


@dataclass
class PhononMaker(_AtRest):
    """Force constants, the lowest frequency and the heat capacity; needs phonopy.

    Attributes:
        temperature: Of the heat capacity, K.
        length: Least height of the supercell, Å.
        displacement: How far atoms are moved, Å.
    """

    name: str = "phonon"
    temperature: float = 300.0
    length: float = 10.0
    displacement: float = 0.01

    @job(output_schema=Vibrations)
    def measured(self, structure: Structure, converged: bool | None = None) -> Vibrations:
        """Make the job of the displacements.

        Raises:
            BadStructure: When it runs, and the structure was still moving.
        """
        from ase_crystalformer.assessment.heat_capacity import (
            Options,
            heat_capacity,
            lowest_frequency,
            phonons,
        )

        options = Options(
            temperature=self.temperature, length=self.length, displacement=self.displacement
        )
        found = phonons(_at_rest(structure, converged), self.potential(), options)
        return Vibrations(
            force_constants=np.array(found.force_constants),
            supercell=np.diag(found.supercell_matrix).astype(int).tolist(),
            lowest_frequency=lowest_frequency(found),
            temperature=self.temperature,
            heat_capacity=heat_capacity(found, options),
        )


def _atoms(structure: Structure) -> "Atoms":
    """Return plain Atoms; pymatgen's own kind keeps its calculator's results apart."""
    from ase import Atoms
    from pymatgen.io.ase import AseAtomsAdaptor

    return Atoms(AseAtomsAdaptor.get_atoms(structure))


def _at_rest(structure: Structure, converged: bool | None) -> "Atoms":
    """Return the atoms of a structure that has come to rest, as far as anybody knows.

    Raises:
        BadStructure: It has not.
    """
    if converged is False:
        raise BadStructure(
            f"{structure.composition.reduced_formula} was still moving after the last step of its "
            "relaxation. Give relax_maker more steps or a larger fmax; relax_maker=None takes the "
            "structure as it is."
        )
    return _atoms(structure)


def _structure(atoms: "Atoms") -> Structure:
    from pymatgen.io.ase import AseAtomsAdaptor

    bare = atoms.copy()
    bare.info = {}
    return AseAtomsAdaptor.get_structure(bare)
