"""Crystal transformers as ASE calculators, matminer featurizers and trainable models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_crystalformer.calculator import CrystalformerCalculator
    from ase_crystalformer.featurizer import CrystalformerFeaturizer
    from ase_crystalformer.model import CrystalModel
    from ase_crystalformer.prediction import predict
    from ase_crystalformer.pretrained import list_models, load_model
    from ase_crystalformer.relaxation import relax

__all__ = [
    "CrystalModel",
    "CrystalformerCalculator",
    "CrystalformerFeaturizer",
    "list_models",
    "load_model",
    "predict",
    "relax",
]

_HOMES = {
    "CrystalModel": "model",
    "CrystalformerCalculator": "calculator",
    "CrystalformerFeaturizer": "featurizer",
    "list_models": "pretrained",
    "load_model": "pretrained",
    "predict": "prediction",
    "relax": "relaxation",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
