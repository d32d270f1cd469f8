"""Every library's crystal becomes the same record, and what is no crystal is refused by name."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from jarvis.core.atoms import Atoms as JarvisAtoms
from pymatgen.core import DummySpecies, Element, Lattice, Molecule, Species, Structure

from ase_crystalformer.errors import BadStructure
from ase_crystalformer.structures import Crystal, as_crystal, to_atoms

CUBE = 4.0 * np.eye(3)
EVERYWHERE = np.array([True, True, True])


def crystal_of(**changes):
    """A crystal of one hydrogen atom in a cube, but for the changes."""
    parts = {
        "species": np.array([1]),
        "positions": np.zeros((1, 3)),
        "cell": CUBE,
        "periodic": EVERYWHERE,
    }
    return Crystal(**(parts | changes))


def assert_same(crystal, other):
    np.testing.assert_array_equal(crystal.species, other.species)
    np.testing.assert_allclose(crystal.positions, other.positions, atol=1e-12)
    np.testing.assert_allclose(crystal.cell, other.cell, atol=1e-12)
    np.testing.assert_array_equal(crystal.periodic, other.periodic)


def test_all_libraries_agree(wurtzite):
    species, positions, cell = wurtzite.symbols, wurtzite.positions, wurtzite.cell.array
    expected = Crystal(wurtzite.numbers, positions, cell, EVERYWHERE)
    pymatgen = Structure(cell, list(species), positions, coords_are_cartesian=True)
    jarvis = JarvisAtoms(cell, positions, list(species), cartesian=True)
    for structure in (wurtzite, pymatgen, jarvis, expected):
        assert_same(as_crystal(structure), expected)


def test_molecules_agree(water):
    molecule = Molecule(list(water.symbols), water.positions)
    assert_same(as_crystal(molecule), as_crystal(water))
    assert not as_crystal(water).periodic.any()


def test_a_slab_of_pymatgen_stays_open_along_one_axis(slab):
    lattice = Lattice([*slab.cell[:2], [0.0, 0.0, 30.0]], pbc=(True, True, False))
    layers = Structure(lattice, list(slab.symbols), slab.positions, coords_are_cartesian=True)
    np.testing.assert_array_equal(as_crystal(layers).periodic, slab.pbc)


def test_what_ase_gets_is_what_it_gave(slab):
    atoms = to_atoms(as_crystal(slab))
    np.testing.assert_array_equal(atoms.numbers, slab.numbers)
    np.testing.assert_array_equal(atoms.positions, slab.positions)
    np.testing.assert_array_equal(atoms.cell.array, slab.cell.array)
    np.testing.assert_array_equal(atoms.pbc, slab.pbc)


def test_a_crystal_is_returned_as_it_is():
    crystal = crystal_of()
    assert as_crystal(crystal) is crystal


def test_later_motion_of_the_atoms_is_not_seen(rocksalt):
    crystal = as_crystal(rocksalt)
    rocksalt.positions += 1.0
    rocksalt.set_cell(rocksalt.cell * 2)
    assert_same(crystal, as_crystal(Atoms("NaCl", [[0, 0, 0], [2.82, 0, 0]], **fcc_cell(5.64))))


def fcc_cell(a):
    return {"cell": [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]], "pbc": True}


def test_charges_and_isotopes_are_elements():
    structure = Structure(Lattice(CUBE), [Species("Na", 1), Element("D")], [[0, 0, 0], [0.5] * 3])
    np.testing.assert_array_equal(as_crystal(structure).species, [11, 1])


def test_no_atoms():
    with pytest.raises(BadStructure, match="no atoms"):
        as_crystal(Atoms())


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_position_that_is_no_number(rocksalt, number):
    rocksalt.positions[1, 2] = number
    with pytest.raises(BadStructure, match="position of atom 1"):
        as_crystal(rocksalt)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_cell_that_is_no_number(number):
    with pytest.raises(BadStructure, match="must be finite"):
        crystal_of(cell=np.diag([4.0, number, 4.0]))


def test_a_repeat_of_length_zero():
    with pytest.raises(BadStructure, match="cell vector 2, which is zero"):
        as_crystal(Atoms("H", cell=[4, 4, 0], pbc=True))


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_flat_cell(scale):
    cell = scale * np.array([[4.0, 0.1, 0.0], [0.0, 4.0, 0.3], [4.0, 4.1, 0.3]])
    with pytest.raises(BadStructure, match="linearly independent"):
        crystal_of(cell=cell)


def test_a_flat_cell_is_fine_where_nothing_repeats():
    cell = np.array([[4.0, 0, 0], [4.0, 0, 0], [0, 0, 0]])
    assert crystal_of(cell=cell, periodic=np.array([True, False, False])).periodic.sum() == 1


@pytest.mark.parametrize("number", [0, -1, 119])
def test_a_species_that_is_no_element(number):
    with pytest.raises(BadStructure, match=f"atomic number {number};"):
        crystal_of(species=np.array([number]))


def test_a_dummy_species():
    structure = Structure(Lattice(CUBE), [DummySpecies("X")], [[0, 0, 0]])
    with pytest.raises(BadStructure, match=r"Site 0 holds X.*no element"):
        as_crystal(structure)


def test_a_disordered_site():
    alloy = Structure(Lattice(CUBE), ["Na", {"Cu": 0.5, "Au": 0.5}], [[0, 0, 0], [0.5] * 3])
    with pytest.raises(BadStructure, match="Site 1 is disordered"):
        as_crystal(alloy)


def test_a_name_is_no_structure():
    with pytest.raises(BadStructure, match=r"'Si.cif' is a name, not a structure. Read it first"):
        as_crystal("Si.cif")


@pytest.mark.parametrize("structure", [None, 3.0, SimpleNamespace(sites=[])])
def test_what_is_no_structure(structure):
    with pytest.raises(BadStructure, match=r"Cannot read a .*\. Give ase\.Atoms"):
        as_crystal(structure)
