"""Benchmarks of potentials against DFT, each by name, for any ASE calculator."""

from ase_crystalformer.assessment.benchmark import Benchmark
from ase_crystalformer.assessment.cohesion import COHESION
from ase_crystalformer.assessment.dynamics import DYNAMICS
from ase_crystalformer.assessment.elasticity import ELASTICITY
from ase_crystalformer.assessment.equation_of_state import EQUATION_OF_STATE
from ase_crystalformer.assessment.forces import FORCES
from ase_crystalformer.assessment.heat_capacity import HEAT_CAPACITY
from ase_crystalformer.assessment.mlearn import MLEARN
from ase_crystalformer.assessment.relaxation import RELAXATION, RELAXATION_MP

#: Every benchmark by name.
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        RELAXATION,
        RELAXATION_MP,
        ELASTICITY,
        EQUATION_OF_STATE,
        HEAT_CAPACITY,
        FORCES,
        DYNAMICS,
        MLEARN,
        COHESION,
    )
}
