"""Every routine finds the pairs a plain sum over images finds, whatever the cell looks like."""

from itertools import product

import jaxtyping
import numpy as np
import pytest
from ase import Atoms
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ase_crystalformer.errors import BadStructure, UnknownName
from ase_crystalformer.neighbours import search as routines
from ase_crystalformer.neighbours.search import neighbour_pairs
from ase_crystalformer.structures import Crystal, as_crystal

CUTOFF = 4.0
BACKENDS = ["pymatgen", "vesin", "ase"]


def crystal_of(cell, positions, periodic=(True, True, True)):
    positions = np.array(positions, dtype=float)
    species = np.arange(1, len(positions) + 1)
    return Crystal(species, positions, np.array(cell, dtype=float), np.array(periodic))


def spacing(cell, periodic):
    """Distance between neighbouring lattice points' planes along each periodic vector."""
    return 1 / np.linalg.norm(np.linalg.pinv(cell[periodic]), axis=0)


@st.composite
def crystals(draw):
    """One to five atoms, in and around any cell, periodic along any of its vectors."""
    cell = draw(arrays(float, (3, 3), elements=st.floats(-4, 4, width=16)))
    atoms = draw(st.integers(1, 5))
    positions = draw(arrays(float, (atoms, 3), elements=st.floats(-5, 5, width=16)))
    periodic = draw(arrays(bool, 3))
    if periodic.any():
        assume(np.linalg.matrix_rank(cell[periodic]) == periodic.sum())
        assume(spacing(cell, periodic).min() > 0.8)
    return crystal_of(cell, positions, periodic)


def pairs_summed_over_images(crystal, cutoff):
    """Every (receiver, sender, image, distance), by trying all images that could be close."""
    positions = crystal.positions
    apart = positions[None] - positions[:, None]
    reach = np.zeros(3, dtype=int)
    if crystal.periodic.any():
        width = cutoff + np.linalg.norm(apart, axis=-1).max()
        spacings = spacing(crystal.cell, crystal.periodic)
        reach[crystal.periodic] = np.ceil(width / spacings).astype(int)
    images = np.array(list(product(*(range(-most, most + 1) for most in reach))))
    steps = images @ crystal.cell
    found = {}
    for receiver, sender in np.ndindex(len(positions), len(positions)):
        distance = np.linalg.norm(apart[receiver, sender] + steps, axis=-1)
        for near in np.flatnonzero(distance < cutoff):
            image = tuple(int(step) for step in images[near])
            if receiver != sender or any(image):
                found[receiver, sender, image] = distance[near]
    return found


def keys(pairs):
    return list(
        zip(
            pairs.receiver.tolist(),
            pairs.sender.tolist(),
            [tuple(image) for image in pairs.image.tolist()],
            strict=True,
        )
    )


def search(crystal, cutoff, backend):
    """The pairs, or None where two atoms touch."""
    try:
        return neighbour_pairs(crystal, cutoff, backend)
    except BadStructure:
        return None


JUST_OUTSIDE = crystal_of(np.diag([3.0, 4.0, 3.0]), [[-1e-17, 0, 0], [1, 1, 2], [0, -1e-17, 0.3]])
SKEWED_LEFT_HANDED = crystal_of([[3, 0, 0], [2.9, 0.9, 0], [-2.5, 2.5, -1]], [[0, 0, 0]])
WIRE_WITHOUT_OTHER_VECTORS = crystal_of(
    [[0, 0, 0], [1, 2, 0.5], [0, 0, 0]], [[0, 0, 0], [3, -3, 1]], [False, True, False]
)


@settings(max_examples=60)
@given(crystals())
@example(JUST_OUTSIDE)
@example(SKEWED_LEFT_HANDED)
@example(WIRE_WITHOUT_OTHER_VECTORS)
def test_all_routines_find_what_a_sum_over_images_finds(crystal):
    expected = pairs_summed_over_images(crystal, CUTOFF)
    distances = np.array(list(expected.values()))
    assume((np.abs(distances - CUTOFF) > 1e-9).all() and (distances > 0.011).all())
    first, *others = (search(crystal, CUTOFF, backend) for backend in BACKENDS)
    assert keys(first) == sorted(expected)
    for pairs in others:
        for mine, theirs in zip(first, pairs, strict=True):
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype


@settings(max_examples=30)
@given(crystals())
def test_every_pair_has_its_reverse(crystal):
    pairs = search(crystal, CUTOFF, "auto")
    assume(pairs is not None)
    there = dict(zip(keys(pairs), pairs.vector.tolist(), strict=True))
    for (receiver, sender, image), vector in there.items():
        back = there[sender, receiver, tuple(-step for step in image)]
        assert back == [-x for x in vector]


@pytest.mark.parametrize("backend", BACKENDS)
def test_moving_atoms_by_cells_moves_only_images(wurtzite, rng, backend):
    here = neighbour_pairs(as_crystal(wurtzite), CUTOFF, backend)
    jumps = rng.integers(-(10**6), 10**6, size=(len(wurtzite), 3))
    wurtzite.positions += jumps @ wurtzite.cell.array
    there = neighbour_pairs(as_crystal(wurtzite), CUTOFF, backend)
    moved = here.image + jumps[here.receiver] - jumps[here.sender]
    shared = dict(zip(keys(here._replace(image=moved)), here.vector, strict=True))
    assert sorted(shared) == keys(there)
    expected = [shared[key] for key in keys(there)]
    np.testing.assert_allclose(there.vector, expected, atol=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_very_skewed_cell_has_the_same_pairs(diamond, backend):
    compact = neighbour_pairs(as_crystal(diamond), CUTOFF, backend)
    diamond.set_cell(np.array([[1, 0, 0], [500, 1, 0], [-700, 300, 1]]) @ diamond.cell.array)
    skewed = neighbour_pairs(as_crystal(diamond), CUTOFF, backend)
    lengths = [np.sort(np.linalg.norm(pairs.vector, axis=1)) for pairs in (compact, skewed)]
    np.testing.assert_allclose(*lengths, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_atom_that_flew_away_costs_nothing(water, backend):
    near = len(neighbour_pairs(as_crystal(water), CUTOFF, backend).receiver)
    water += Atoms("H", [[1e7, -1e7, 1e7]])
    assert len(neighbour_pairs(as_crystal(water), CUTOFF, backend).receiver) == near == 6


def test_an_almost_empty_cell_is_not_divided_into_boxes():
    vast = crystal_of(1e5 * np.eye(3), [[0, 0, 0], [0, 0, 1e5 - 1], [5e4, 5e4, 5e4]])
    assert keys(neighbour_pairs(vast, CUTOFF)) == [(0, 1, (0, 0, -1)), (1, 0, (0, 0, 1))]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pair_at_the_cutoff_is_no_pair(backend):
    pair = crystal_of(np.zeros((3, 3)), [[0, 0, 0], [0, 0, 2.5]], [False] * 3)
    assert len(neighbour_pairs(pair, 2.5, backend).receiver) == 0
    assert len(neighbour_pairs(pair, np.nextafter(2.5, 3.0), backend).receiver) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_pairs_are_empty_arrays_of_the_right_kind(backend):
    pairs = neighbour_pairs(crystal_of(9 * np.eye(3), [[0, 0, 0]]), CUTOFF, backend)
    assert [column.shape for column in pairs] == [(0,), (0,), (0, 3), (0, 3)]
    assert [column.dtype for column in pairs] == [np.int64] * 3 + [np.float64]


def test_images_too_large_to_pack_are_sorted_all_the_same(wurtzite):
    wurtzite.positions[1] += 10**7 * wurtzite.cell.array.sum(axis=0)
    pairs = neighbour_pairs(as_crystal(wurtzite), CUTOFF)
    assert np.ptp(pairs.image, axis=0).astype(float).prod() * 16 > 2**62
    assert keys(pairs) == sorted(keys(pairs))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("apart", [0.0, 0.0099, 6.0, 6.004])
def test_two_atoms_in_one_place(backend, apart):
    crystal = crystal_of(6 * np.eye(3), [[0, 0, 0], [3, 3, 3], [3, 3, 3 + apart]])
    with pytest.raises(BadStructure, match=r"Atoms 1 and 2 are 0\.00\d+ Å apart"):
        neighbour_pairs(crystal, CUTOFF, backend)


def test_a_cell_in_the_wrong_unit():
    with pytest.raises(BadStructure, match="repeats every"):
        neighbour_pairs(crystal_of(np.diag([100, 100, 0.01]), [[0, 0, 0]]), CUTOFF)


def test_an_unknown_routine(rocksalt, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UnknownName, match="Did you mean 'vesin'"):
        neighbour_pairs(as_crystal(rocksalt), CUTOFF, "vesinn")


@pytest.mark.parametrize(
    ("installed", "taken"),
    [(["pymatgen", "vesin", "ase"], "pymatgen"), (["vesin", "ase"], "vesin"), (["ase"], "ase")],
)
def test_the_fastest_routine_installed_is_taken(rocksalt, monkeypatch, installed, taken):
    called = []

    def watched(name, search):
        return lambda frame: called.append(name) or search(frame)

    searches = {name: watched(name, found) for name, found in routines._SEARCHES.items()}
    monkeypatch.setattr(routines, "_SEARCHES", searches)
    monkeypatch.setattr(routines, "_installed", installed.__contains__)
    neighbour_pairs(as_crystal(rocksalt), CUTOFF)
    assert called == [taken]
