"""Many crystals relaxed at once on one device, atoms and cells."""

from ase_crystalformer.relaxation.relaxed import Relaxed
from ase_crystalformer.relaxation.run import relax, relax_each

__all__ = ["Relaxed", "relax", "relax_each"]
