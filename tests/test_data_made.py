"""Frames made from what is measured: isolated atoms and crystals under pressure."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.eos import EquationOfState

from ase_crystalformer.data.compressed import VOLUMES, birch, compressed, is_fixed_by_symmetry
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.duplicates import Duplicates
from ase_crystalformer.data.potential import has_hubbard, moduli, potential
from ase_crystalformer.data.properties import reserved_ids
from ase_crystalformer.data.readers import load
from ase_crystalformer.data.references import (
    ATOMS,
    CRYSTALS,
    cohesive_energies,
    elements,
    isolated_atoms,
    most_stable,
)

SAMPLES = Path(__file__).parent / "samples"


def crystal(atoms, **labels):
    return LabelledCrystal(
        species=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell.array,
        periodic=atoms.pbc,
        labels=labels,
        id="made",
        source="test",
        group="mp",
    )


def test_pressure_is_the_slope_of_an_energy_whose_curvature_is_the_modulus():
    """An equation of state fitted to the integrated pressure gives the modulus back."""
    volumes = np.linspace(0.97, 1.03, 601)
    pressure = np.array([birch(volume, 100.0) for volume in volumes])
    energies = -np.concatenate([[0], np.cumsum((pressure[1:] + pressure[:-1]) / 2)]) * 0.06 / 600
    _, _, modulus = EquationOfState(volumes, energies, "birchmurnaghan").fit()
    assert modulus == pytest.approx(100.0, rel=1e-3)


def test_frames_of_a_cubic_crystal_are_under_its_pressure():
    copper = crystal(bulk("Cu", a=3.61), bulk_modulus=140.0)
    frames = list(compressed(copper))
    assert [frame.volume / copper.volume for frame in frames] == pytest.approx(VOLUMES)
    pressures = [-frame.labels["stress"].trace() / 3 / units.GPa for frame in frames]
    assert pressures[1] == pytest.approx(140 * 0.02, rel=0.06)  # stiffening: 1 + 5/2 of the strain
    assert pressures == sorted(pressures, reverse=True)
    for frame in frames:
        assert not frame.labels["forces"].any()
        np.testing.assert_array_equal(
            frame.labels["stress"], frame.labels["stress"][0, 0] * np.eye(3)
        )


@pytest.mark.parametrize("name", ["Mg", "CO2"])
def test_crystals_that_give_way_inside_are_not_made(name):
    """Hexagonal cells change their shape; molecules in a cubic cell give way along diagonals."""
    atoms = bulk("Mg") if name == "Mg" else molecular_cubic()
    assert not is_fixed_by_symmetry(crystal(atoms))
    assert not list(compressed(crystal(atoms, bulk_modulus=10.0)))


def molecular_cubic():
    """Carbon dioxide, space group Pa-3: oxygen on 8c, free along the diagonal."""
    from ase.spacegroup import crystal as spacegroup_crystal

    return spacegroup_crystal(
        ["C", "O"], [(0, 0, 0), (0.118, 0.118, 0.118)], spacegroup=205, cellpar=[5.6] * 3 + [90] * 3
    )


@pytest.fixture
def iron():
    """Iron as it is stable, as it is not, held out, and in an oxide."""
    stable = crystal(bulk("Fe"), energy=-8.47)
    rare = crystal(bulk("Fe", "fcc", a=3.6), energy=-8.2)
    hidden = crystal(bulk("Fe"), energy=-8.6).in_split("val")
    oxide = crystal(bulk("FeO", "rocksalt", a=4.3), energy=-12.0)
    return most_stable([rare.in_split("train"), stable.in_split("train"), hidden, oxide])


def test_isolated_atoms_lie_the_cohesive_energy_above_their_most_stable_crystal(iron):
    rows = list(isolated_atoms(iron))
    assert len(rows) == ATOMS
    for row in rows:
        assert row.labels["energy"] == pytest.approx(-8.47 + cohesive_energies()["Fe"])
        assert (row.atoms, row.split, row.group) == (1, "train", "mp")
        assert not row.periodic.any()


def test_the_ground_state_may_be_another_crystal(iron):
    """One whose energy is held out, and of which only the formation energy beside it tells."""
    [stable] = iron.values()
    above = replace(stable, info={"formation_energy_per_atom": "0.25"})
    [row, *_] = isolated_atoms({26: above})
    assert row.labels["energy"] == pytest.approx(-8.47 - 0.25 + cohesive_energies()["Fe"])


def test_the_most_stable_crystals_of_the_elements_are_seen_often(iron):
    rows = list(elements(iron))
    assert len(rows) == len({row.id for row in rows}) == CRYSTALS
    assert {row.labels["energy"] for row in rows} == {-8.47}
    assert {row.source for row in rows} == {"elements"}


def test_cohesive_energies_are_those_of_the_handbook():
    table = cohesive_energies()
    assert (table["Cu"], table["W"], table["Ar"]) == (3.49, 8.90, 0.080)
    assert max(table, key=table.__getitem__) == "W"
    assert len(table) == 86


def test_no_modulus_of_what_is_tested_elsewhere_becomes_pressure():
    measured = {row.id for row in load("matbench_log_kgvrh", SAMPLES)}
    reserved = reserved_ids(SAMPLES) & measured
    validation = list(load("elasticity", SAMPLES))
    assert reserved
    assert {row.id for row in validation} <= measured
    learned = list(moduli(SAMPLES))
    assert len(learned) > 5
    names = {row.id for row in learned}
    assert not names & reserved
    assert not names & {row.id for row in validation}
    twins = Duplicates(validation)
    assert not [row.id for row in learned if row in twins]
    made = {row.id.partition("/")[0] for row in potential(SAMPLES) if row.source == "compressed"}
    assert made
    assert made <= names


def test_matbench_energies_are_taken_where_elements_alone_set_them_apart():
    rows = [row for row in potential(SAMPLES) if row.source == "matbench_mp_joined"]
    assert rows
    assert not [row.id for row in rows if has_hubbard(row)]
    assert all(set(row.labels) == {"energy"} for row in rows)
    assert has_hubbard(crystal(bulk("FeO", "rocksalt", a=4.3)))
    assert not has_hubbard(crystal(bulk("MgO", "rocksalt", a=4.2)))
    assert not has_hubbard(crystal(bulk("FeS", "rocksalt", a=5.0)))
