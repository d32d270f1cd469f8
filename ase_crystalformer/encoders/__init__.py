"""Encoders by name: one paper, one file, one line here."""

from ase_crystalformer.encoders import (
    crystalformer,
    e2former,
    ecoformer,
    ecomformer,
    equiformer,
    et,
    gatr,
    icomformer,
    plain,
)
from ase_crystalformer.encoders.base import AtomFeatures, Claims, Encoder, modes

#: name -> (encoder class, its configuration class)
ENCODERS: dict[str, tuple[type[Encoder], type]] = {
    "crystalformer": (crystalformer.Crystalformer, crystalformer.Config),
    "e2former": (e2former.E2Former, e2former.Config),
    "ecoformer": (ecoformer.EcoFormer, ecoformer.Config),
    "ecomformer": (ecomformer.EComFormer, ecomformer.Config),
    "equiformer": (equiformer.Equiformer, equiformer.Config),
    "et": (et.EquivariantTransformer, et.Config),
    "gatr": (gatr.GATr, gatr.Config),
    "icomformer": (icomformer.IComFormer, icomformer.Config),
    "plain": (plain.Plain, plain.Config),
}

__all__ = ["ENCODERS", "AtomFeatures", "Claims", "Encoder", "modes"]
