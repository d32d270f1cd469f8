"""Which crystals last: energies above the convex hull of known phases."""

from ase_crystalformer.stability.hull import (
    ConvexHull,
    corrected_entry,
    read_entries,
    write_entries,
)

__all__ = ["ConvexHull", "corrected_entry", "read_entries", "write_entries"]
