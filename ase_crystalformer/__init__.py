"""Crystal transformers as ASE calculators, matminer featurizers and trainable models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_crystalformer.assessment.calculators import load_calculator
    from ase_crystalformer.calculator import CrystalformerCalculator
    from ase_crystalformer.errors import CrystalformerError
    from ase_crystalformer.featurizer import CrystalformerFeaturizer
    from ase_crystalformer.model import CrystalModel
    from ase_crystalformer.monte_carlo.driver import MonteCarlo
    from ase_crystalformer.monte_carlo.lattice import DoubleExchange, SpinLattice
    from ase_crystalformer.monte_carlo.learning import self_learn
    from ase_crystalformer.monte_carlo.occupations import Occupations
    from ase_crystalformer.monte_carlo.spins import SpinTransformer
    from ase_crystalformer.prediction import predict
    from ase_crystalformer.pretrained import list_models, load_model
    from ase_crystalformer.relaxation import relax
    from ase_crystalformer.screening import screen
    from ase_crystalformer.stability import ConvexHull, corrected_entry
    from ase_crystalformer.structure_files import read_structures
    from ase_crystalformer.training.run import train

__all__ = [
    "ConvexHull",
    "CrystalModel",
    "CrystalformerCalculator",
    "CrystalformerError",
    "CrystalformerFeaturizer",
    "DoubleExchange",
    "MonteCarlo",
    "Occupations",
    "SpinLattice",
    "SpinTransformer",
    "corrected_entry",
    "list_models",
    "load_calculator",
    "load_model",
    "predict",
    "read_structures",
    "relax",
    "screen",
    "self_learn",
    "train",
]

_HOMES = {
    "ConvexHull": "stability",
    "CrystalModel": "model",
    "CrystalformerCalculator": "calculator",
    "CrystalformerError": "errors",
    "CrystalformerFeaturizer": "featurizer",
    "DoubleExchange": "monte_carlo.lattice",
    "MonteCarlo": "monte_carlo.driver",
    "Occupations": "monte_carlo.occupations",
    "SpinLattice": "monte_carlo.lattice",
    "SpinTransformer": "monte_carlo.spins",
    "corrected_entry": "stability",
    "list_models": "pretrained",
    "load_calculator": "assessment.calculators",
    "load_model": "pretrained",
    "predict": "prediction",
    "read_structures": "structure_files",
    "relax": "relaxation",
    "screen": "screening",
    "self_learn": "monte_carlo.learning",
    "train": "training.run",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
