"""Units agree with ASE, and with the constants of nature."""

import ase.units
import pytest
from scipy import constants

from ase_crystalformer.units import GPA, UNITS


def test_gigapascal_is_that_of_ase():
    assert GPA == ase.units.GPa


def test_gigapascal_follows_from_the_electron_charge():
    pascal = constants.angstrom**3 / constants.electron_volt  # eV/Å³
    assert GPA == pytest.approx(1e9 * pascal, rel=1e-7)


@pytest.mark.parametrize(
    ("quantity", "unit"),
    [
        ("energy", "eV"),
        ("free_energy", "eV"),
        ("energies", "eV"),
        ("forces", "eV/Å"),
        ("stress", "eV/Å³"),
    ],
)
def test_what_ase_knows_is_in_units_of_ase(quantity, unit):
    assert UNITS[quantity] == unit


def test_moduli_are_reported_in_gigapascal():
    moduli = {name: unit for name, unit in UNITS.items() if name.endswith("_modulus")}
    assert moduli
    assert set(moduli.values()) == {"GPa"}


def test_every_per_atom_quantity_says_so():
    per_atom = {name: unit for name, unit in UNITS.items() if name.endswith("_per_atom")}
    assert per_atom
    assert all(unit.endswith("/atom") for unit in per_atom.values())
