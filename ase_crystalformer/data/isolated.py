"""Single atoms, far from all others: what an energy is counted from when bonds break."""

import csv
from collections.abc import Iterable, Iterator
from importlib.resources import files

import numpy as np

from ase_crystalformer.data.crystals import LabelledCrystal

#: Copies of each atom, for them to be seen often enough among many crystals.
COPIES = 10


def cohesive_energies() -> dict[str, float]:
    """Cohesive energy of the elements at 0 K, eV/atom, measured.

    Source: C. Kittel, Introduction to Solid State Physics, 8th edition, chapter 3, table 1.
    """
    table = (files("ase_crystalformer.data") / "cohesive_energies.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in table.splitlines() if not line.startswith("#"))
    return {row["element"]: float(row["cohesive_energy"]) for row in rows}


def isolated_atoms(crystals: Iterable[LabelledCrystal]) -> Iterator[LabelledCrystal]:
    """Yield one atom of every element whose crystal and cohesive energy are known.

    Its energy is that of the most stable of ``crystals`` of this element alone, and the measured
    cohesive energy above it. PBE binds most elements by 0.1 to 0.4 eV/atom otherwise than
    measured: so far these labels are from PBE.
    """
    from ase.data import chemical_symbols

    cohesive = cohesive_energies()
    lowest: dict[int, float] = {}
    group = ""
    for crystal in crystals:
        kinds, energy = np.unique(crystal.species), crystal.labels.get("energy")
        if len(kinds) == 1 and energy is not None:
            per_atom, group = float(energy) / crystal.atoms, crystal.group
            lowest[int(kinds[0])] = min(per_atom, lowest.get(int(kinds[0]), per_atom))
    for number, energy in sorted(lowest.items()):
        symbol = chemical_symbols[number]
        for copy in range(COPIES if symbol in cohesive else 0):
            yield LabelledCrystal(
                species=np.array([number]),
                positions=np.zeros((1, 3)),
                cell=np.zeros((3, 3)),
                periodic=np.zeros(3, dtype=bool),
                labels={"energy": energy + cohesive[symbol], "forces": np.zeros((1, 3))},
                id=f"{symbol}/{copy}",
                split="train",
                source="isolated_atoms",
                group=group,
            )
