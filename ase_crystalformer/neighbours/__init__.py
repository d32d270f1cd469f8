"""Which pairs of atoms are edges: from a structure and a rule to a ``CrystalGraph``."""

from ase_crystalformer.neighbours.graphs import Radius, Rule, VerletList, build
from ase_crystalformer.neighbours.nearest import Nearest
from ase_crystalformer.neighbours.search import neighbour_pairs

__all__ = ["Nearest", "Radius", "Rule", "VerletList", "build", "neighbour_pairs"]
