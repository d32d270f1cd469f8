"""The stable phases among Materials Project's crystals: what comes with the package."""

import csv
import gzip
import io
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ase_crystalformer.errors import MissingData
from ase_crystalformer.writing import whole

if TYPE_CHECKING:
    from pymatgen.entries.computed_entries import ComputedEntry

FILE = "known_phases.csv.gz"

KNOWN = "known"
"""What a hull of them is called where a file may be named."""

CAVEAT = (
    "Energies above the hull are counted from the known phases that come with the package: those "
    "stable among 40,796 crystals of Materials Project, of the 69,239 of MEGNet's release of 2018. "
    "Where a stable phase is missing, they are too low: have the best checked against the whole "
    "of Materials Project."
)

ABOUT = """\
# Stable phases among crystals of Materials Project (2018), https://materialsproject.org
# A. Jain et al., APL Materials 1, 011002 (2013). CC-BY-4.0. Made by ase_crystalformer.stability.
# energy_per_atom: PBE and PBE+U, eV/atom, corrected by MaterialsProject2020Compatibility
"""


class Phase(NamedTuple):
    """A line of the table.

    Attributes:
        formula: Reduced.
        energy_per_atom: Corrected, eV/atom.
        id: Of Materials Project.
    """

    formula: str
    energy_per_atom: float
    id: str


@cache
def known_phases() -> dict[frozenset[str], list[Phase]]:
    """Read the phases that come with the package, by the elements they hold.

    Raises:
        MissingData: The package was installed without them.
    """
    table = files("ase_crystalformer.data") / FILE
    if not table.is_file():
        raise MissingData(
            f"This installation holds no known phases ({FILE}). Name a file of known phases."
        )
    packed = table.read_bytes()
    by_system: dict[frozenset[str], list[Phase]] = defaultdict(list)
    with gzip.open(io.BytesIO(packed), "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            phase = Phase(row["formula"], float(row["energy_per_atom"]), row["id"])
            by_system[frozenset(re.findall("[A-Z][a-z]?", phase.formula))].append(phase)
    return dict(by_system)


def as_entry(phase: Phase) -> "ComputedEntry":
    """Make pymatgen's entry of a known phase."""
    from pymatgen.core import Composition
    from pymatgen.entries.computed_entries import ComputedEntry

    composition = Composition(phase.formula)
    energy = phase.energy_per_atom * composition.num_atoms
    return ComputedEntry(composition, energy, entry_id=phase.id)


def write_known_phases(path: Path | str, phases: Iterable[Phase]) -> None:
    """Write the table, sorted; the same phases give the same bytes."""
    text = io.StringIO()
    text.write(ABOUT)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Phase._fields)
    for phase in sorted(phases):
        writer.writerow([phase.formula, f"{phase.energy_per_atom:.4f}", phase.id])
    with whole(path) as partial:
        partial.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
