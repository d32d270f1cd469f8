"""A small screening: two models with random weights, and thirty candidates, some of them broken."""

import json
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.db import connect
from ase.io import write
from factories import CONFIG
from pymatgen.io.ase import AseAtomsAdaptor

from ase_crystalformer.model import Card, CrystalModel
from ase_crystalformer.targets import TARGETS

KNOWN = tuple(range(1, 57))

ROCKSALTS = ["LiF", "NaF", "NaCl", "KCl", "KBr", "RbI", "MgO", "CaO", "SrO", "BaO", "CaS", "MgS"]

BROKEN = {
    "broken.cif": "This is no CIF",
    "close.extxyz": "Atoms 0 (Na) and 1 (Cl)",
    "nan.extxyz": "Positions must be finite",
    "tungsten.extxyz": "was trained without W",
    "empty.extxyz": "no structure",
    "missing/*.cif": "no such file",
}
"""What is wrong with the candidates that cannot be read, in order of their files."""


def write_models(folder: Path) -> dict[str, str]:
    """Write a potential and a property model; return them as settings."""
    torch.manual_seed(0)
    card = Card(name="potential", elements=KNOWN)
    potential = CrystalModel("crystalformer", CONFIG, energy_scale="mp", card=card)
    for number in KNOWN:
        potential.head.reference[number] = -1.0
    potential.save(folder / "potential")
    targets = [TARGETS["formation_energy_per_atom"], TARGETS["band_gap"]]
    card = Card(name="properties", elements=KNOWN)
    properties = CrystalModel("crystalformer", CONFIG, targets=targets, card=card)
    properties.save(folder / "properties")
    return {
        "model": str(folder / "potential"),
        "property_model": str(folder / "properties"),
    }


def rocksalt(formula: str) -> Atoms:
    """A compound in the structure of rock salt, its lattice constant from covalent radii."""
    from ase.data import covalent_radii

    radii = covalent_radii[Atoms(formula).numbers]
    return bulk(formula, "rocksalt", a=1.9 * float(radii.sum()))


def write_candidates(folder: Path) -> list[str]:
    """Write thirty candidates in many formats; return the sources in order."""
    folder.mkdir(parents=True, exist_ok=True)
    salts = [rocksalt(formula) for formula in ROCKSALTS]
    write(folder / "salts.extxyz", salts)
    doubled = salts[2].repeat((1, 1, 2))
    doubled.rattle(0.01, seed=0)
    write(folder / "twins.extxyz", [doubled, salts[6]])
    with connect(folder / "metals.db", use_lock_file=False) as rows:
        for symbol in ("Cu", "Al", "Ag", "Ni"):
            rows.write(bulk(symbol))
    structure = AseAtomsAdaptor.get_structure(bulk("ZnS", "zincblende", a=5.4))
    (folder / "pymatgen.json").write_text(json.dumps(structure.as_dict()), encoding="utf-8")
    write(folder / "Si.cif", bulk("Si"))
    write(folder / "POSCAR", bulk("GaAs", "zincblende", a=5.65), format="vasp")
    write(
        folder / "charged.extxyz",
        Atoms("NaCl2", [[0, 0, 0], [0, 0, 2.6], [0, 2.6, 0]], cell=[5.2] * 3, pbc=True),
    )
    write(folder / "water.xyz", molecule("H2O"), format="xyz")
    (folder / "broken.cif").write_text("nothing", encoding="utf-8")
    write(folder / "close.extxyz", Atoms("NaCl", [[0, 0, 0], [0, 0, 1.0]], cell=[5] * 3, pbc=True))
    lost = rocksalt("NaCl")
    lost.positions[1] = np.nan
    write(folder / "nan.extxyz", lost)
    write(folder / "tungsten.extxyz", bulk("W"))
    (folder / "empty.extxyz").write_text("", encoding="utf-8")
    good = ["salts.extxyz", "twins.extxyz", "metals.db", "pymatgen.json", "Si.cif", "POSCAR"]
    return [str(folder / name) for name in (*good, "charged.extxyz", "water.xyz", *BROKEN)]
