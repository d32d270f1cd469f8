"""Encoders by name: one paper, one file, one line here."""

from ase_crystalformer.encoders import crystalformer
from ase_crystalformer.encoders.base import AtomFeatures, Claims, Encoder

#: name -> (encoder class, its configuration class)
ENCODERS: dict[str, tuple[type[Encoder], type]] = {
    "crystalformer": (crystalformer.Crystalformer, crystalformer.Config),
}

__all__ = ["ENCODERS", "AtomFeatures", "Claims", "Encoder"]
