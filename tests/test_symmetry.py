"""However a crystal is written, its smallest cell is the same size and holds the same atoms."""

import numpy as np
import pytest
from ase.build import make_supercell

from ase_crystalformer.errors import BadStructure
from ase_crystalformer.neighbours.symmetry import primitive
from ase_crystalformer.structures import Crystal, as_crystal

CONVENTIONAL = [[-1, 1, 1], [1, -1, 1], [1, 1, -1]]
DOUBLED_LEFT_HANDED = [[0, 2, 0], [1, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize("written", [CONVENTIONAL, DOUBLED_LEFT_HANDED, 2 * np.eye(3)])
@pytest.mark.parametrize("name", ["rocksalt", "diamond", "fcc", "perovskite", "wurtzite"])
def test_a_larger_cell_is_reduced(name, written, request):
    small = request.getfixturevalue(name)
    found = primitive(as_crystal(make_supercell(small, written)))
    np.testing.assert_array_equal(np.sort(found.species), np.sort(small.numbers))
    np.testing.assert_allclose(abs(np.linalg.det(found.cell)), small.get_volume(), rtol=1e-9)
    steps = found.cell @ np.linalg.inv(small.cell.array)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)


@pytest.mark.parametrize("name", ["rocksalt", "diamond", "fcc", "perovskite", "wurtzite"])
def test_the_smallest_cell_is_returned_as_it_is(name, request):
    crystal = as_crystal(request.getfixturevalue(name))
    assert primitive(crystal) is crystal


def test_atoms_moved_apart_by_more_than_the_tolerance_stay_apart(fcc):
    double = fcc * (2, 1, 1)
    double.positions[1] += [0.0, 0.0, 0.1]
    assert len(primitive(as_crystal(double)).species) == 2


def test_atoms_moved_apart_by_noise_are_merged(fcc):
    double = fcc * (2, 1, 1)
    double.positions[1] += [0.0, 0.0, 0.001]
    assert len(primitive(as_crystal(double)).species) == 1


def test_a_slab_has_no_primitive_cell(slab):
    with pytest.raises(BadStructure, match="all three directions are needed"):
        primitive(as_crystal(slab))


def test_atoms_in_one_place_have_no_symmetry():
    crystal = Crystal(np.array([1, 1]), np.zeros((2, 3)), 4 * np.eye(3), np.array([True] * 3))
    with pytest.raises(BadStructure, match="finds no primitive cell"):
        primitive(crystal)
