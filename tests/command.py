"""Calls the command as a user does, in a folder of four crystals and two files that are none."""

from pathlib import Path

import pandas as pd
import torch
from ase import Atoms
from ase.io import write
from typer.testing import CliRunner

from ase_crystalformer.cli import app
from ase_crystalformer.model import Card, CrystalModel
from ase_crystalformer.targets import TARGETS

SMALL = {"width": 16, "heads": 2, "blocks": 1, "cutoff": 4.0, "basis": 8, "basis_radius": 4.0}
KNOWN = (8, 11, 14, 17, 29, 30)

GOOD = ["NaCl.cif", "POSCAR", "two.extxyz"]
NAMES = ["NaCl.cif", "POSCAR", "two.extxyz#0", "two.extxyz#1"]


def save_small_models(folder: Path) -> None:
    """Write two small models with random weights, as if they came with the package."""
    torch.manual_seed(0)
    errors = {"band_gap": {"mae": 0.25, "unit": "eV", "n": 9, "on": "a test set"}}
    told = {"elements": KNOWN, "licence": "CC0-1.0", "citations": ("@article{one}",)}
    targets = [TARGETS["band_gap"], TARGETS["bulk_modulus"]]
    card = Card(name="crystalformer-properties", summary="For tests.", errors=errors, **told)
    CrystalModel("crystalformer", SMALL, targets=targets, card=card).save(folder / card.name)
    card = Card(name="crystalformer-potential", **told)
    CrystalModel("crystalformer", SMALL, energy_scale="mp", card=card).save(folder / card.name)


def write_structures(rocksalt: Atoms, diamond: Atoms, fcc: Atoms, wurtzite: Atoms) -> None:
    """Write what the commands read, to where they run."""
    write("NaCl.cif", rocksalt)
    write("POSCAR", diamond, format="vasp")
    write("two.extxyz", [fcc, wurtzite])
    write("W.cif", Atoms("W", cell=[3, 3, 3], pbc=True))
    Path("broken.cif").write_text("nothing")


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == code, result.output
    return result


def rows(text_or_path):
    return pd.read_csv(text_or_path, keep_default_na=False, na_values=[""])


def printed(result, folder):
    (folder / "printed.csv").write_text(result.stdout, encoding="utf-8")
    return rows(folder / "printed.csv")
