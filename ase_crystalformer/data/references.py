"""Elements as crystals and as single atoms: what energies are counted from."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.resources import files

import numpy as np

from ase_crystalformer.data.consistency import FORMATION
from ase_crystalformer.data.crystals import LabelledCrystal

#: Copies of each crystal and of each atom, for them to be seen often enough among many others.
CRYSTALS, ATOMS = 20, 4


def cohesive_energies() -> dict[str, float]:
    """Cohesive energy of the elements at 0 K, eV/atom, measured.

    Source: C. Kittel, Introduction to Solid State Physics, 8th edition, chapter 3, table 1.
    """
    table = (files("ase_crystalformer.data") / "cohesive_energies.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in table.splitlines() if not line.startswith("#"))
    return {row["element"]: float(row["cohesive_energy"]) for row in rows}


def most_stable(crystals: Iterable[LabelledCrystal]) -> dict[int, LabelledCrystal]:
    """Training crystal of the lowest energy per atom of every element, by atomic number."""
    found: dict[int, LabelledCrystal] = {}
    for crystal in crystals:
        kinds = np.unique(crystal.species)
        if len(kinds) == 1 and crystal.split == "train" and "energy" in crystal.labels:
            best = found.get(int(kinds[0]))
            if best is None or energy_per_atom(crystal) < energy_per_atom(best):
                found[int(kinds[0])] = crystal
    return dict(sorted(found.items()))


def elements(stable: Mapping[int, LabelledCrystal]) -> Iterator[LabelledCrystal]:
    """Yield copies of the most stable crystal of every element: formation energies rest on them."""
    for crystal in stable.values():
        for copy in range(CRYSTALS):
            yield replace(crystal, id=f"{crystal.id}/{copy}", source="elements")


def isolated_atoms(stable: Mapping[int, LabelledCrystal]) -> Iterator[LabelledCrystal]:
    """Yield copies of one atom of every element whose cohesive energy is known.

    Its energy is that of the ground state, and the measured cohesive energy above it. The ground
    state lies below the most stable of the crystals by the formation energy of that one. PBE binds
    most elements by 0.1 to 0.4 eV/atom otherwise than measured: so far these labels are from PBE.
    """
    from ase.data import chemical_symbols

    cohesive = cohesive_energies()
    for number, crystal in stable.items():
        symbol = chemical_symbols[number]
        ground = energy_per_atom(crystal) - max(0.0, float(crystal.info.get(FORMATION, 0)))
        for copy in range(ATOMS if symbol in cohesive else 0):
            yield LabelledCrystal(
                species=np.array([number]),
                positions=np.zeros((1, 3)),
                cell=np.zeros((3, 3)),
                periodic=np.zeros(3, dtype=bool),
                labels={
                    "energy": ground + cohesive[symbol],
                    "forces": np.zeros((1, 3)),
                },
                id=f"{symbol}/{copy}",
                split="train",
                source="isolated_atoms",
                group=crystal.group,
            )


def energy_per_atom(crystal: LabelledCrystal) -> float:
    """Energy of a crystal that has one, eV/atom."""
    return float(crystal.labels["energy"]) / crystal.atoms
