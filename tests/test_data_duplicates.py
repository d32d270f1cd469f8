"""A crystal is known again in another cell, and only then."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import make_supercell

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.duplicates import Duplicates, composition, space_group
from ase_crystalformer.data.readers import load

SAMPLES = Path(__file__).parent / "samples"


def labelled(atoms, name="a"):
    return LabelledCrystal(
        species=atoms.numbers.astype(np.int64),
        positions=atoms.positions,
        cell=atoms.cell.array,
        periodic=atoms.pbc,
        labels={},
        id=name,
        source="test",
        group="test",
    )


def squeezed(atoms, volume):
    other = atoms.copy()
    other.set_cell(atoms.cell * volume ** (1 / 3), scale_atoms=True)
    return other


def test_composition_is_reduced(perovskite):
    assert composition(labelled(perovskite)) == ((8, 3), (22, 1), (38, 1))
    assert composition(labelled(perovskite * (2, 1, 2))) == ((8, 3), (22, 1), (38, 1))


def test_space_groups_of_textbooks(diamond, rocksalt, perovskite):
    assert [space_group(labelled(atoms)) for atoms in (diamond, rocksalt, perovskite)] == [
        227,
        225,
        221,
    ]


def test_the_same_crystal_in_another_cell(diamond):
    cell = [[-1, 1, 1], [1, -1, 1], [1, 1, -1]]
    assert labelled(make_supercell(diamond, cell)) in Duplicates([labelled(diamond)])


@pytest.mark.parametrize(("volume", "same"), [(1.015, True), (0.985, True), (1.025, False)])
def test_volumes_within_two_percent(diamond, volume, same):
    assert (labelled(squeezed(diamond, volume)) in Duplicates([labelled(diamond)])) == same


def test_other_elements_or_symmetry_are_another_crystal(diamond, perovskite):
    known = Duplicates([labelled(diamond), labelled(perovskite, "b")])
    germanium = diamond.copy()
    germanium.symbols[:] = "Ge"
    bent = perovskite.copy()
    bent.positions[1, 2] += 0.5
    assert labelled(germanium) not in known
    assert labelled(bent) not in known
    assert labelled(perovskite) in known


def test_nothing_is_in_nothing(diamond):
    assert labelled(diamond) not in Duplicates([])


def test_two_crystals_of_matbench_are_twins_of_validation_crystals():
    held_out = [row for row in load("mp_labelled", SAMPLES) if row.split == "val"]
    known = Duplicates(held_out)
    twins = [row.id for row in load("matbench_mp_joined", SAMPLES) if row in known]
    assert twins == ["mp-1071504", "mp-1079938"]
    assert not set(twins) & {row.id for row in held_out}
