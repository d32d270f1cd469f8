"""The mixtures of data sets that shipped models are trained on."""

from ase_crystalformer.data.potential import potential
from ase_crystalformer.data.properties import properties

__all__ = ["potential", "properties"]
