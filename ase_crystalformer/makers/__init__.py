"""Makers of jobs for jobflow, the engine under atomate2: relax, static, EOS, elastic, phonon.

They need jobflow alone, and take any potential that ``load_calculator`` knows. Run them here with
``jobflow.run_locally``, or on a cluster with jobflow-remote or FireWorks. atomate2's own flows need
none of these: its force-field makers take the calculator as ``force_field_name={"@module":
"ase_crystalformer", "@callable": "CrystalformerCalculator"}``.

Example:
    >>> from jobflow import run_locally
    >>> from pymatgen.core import Structure
    >>> from ase_crystalformer.makers import ElasticMaker
    >>> flow = ElasticMaker().make(Structure.from_file("NaCl.cif"))  # doctest: +SKIP
    >>> responses = run_locally(flow)  # doctest: +SKIP
"""

from ase_crystalformer.makers.documents import Computed, Elasticity, EquationOfState, Vibrations
from ase_crystalformer.makers.jobs import (
    ElasticMaker,
    EquationOfStateMaker,
    PhononMaker,
    PotentialMaker,
    RelaxMaker,
    StaticMaker,
)

__all__ = [
    "Computed",
    "ElasticMaker",
    "Elasticity",
    "EquationOfState",
    "EquationOfStateMaker",
    "PhononMaker",
    "PotentialMaker",
    "RelaxMaker",
    "StaticMaker",
    "Vibrations",
]
