"""Perturbed crystals: as far from rest as asked, never overlapping, the same every time."""

import numpy as np
import pytest
from ase.build import bulk

from ase_crystalformer.data.perturbations import Perturbation, closest_ratio, perturbed
from ase_crystalformer.errors import BadRecipe


def displacements(frame, atoms):
    """Cartesian displacements beyond the strain of the cell, Å."""
    change = np.linalg.solve(atoms.cell.array, frame.cell.array)
    return frame.positions - atoms.positions @ change


def test_the_first_frame_is_the_crystal_itself(perovskite):
    frames = list(perturbed(perovskite, "one", Perturbation(frames=3)))
    assert len(frames) == 4
    assert frames[0].info == {"id": "one/0", "parent": "one", "kind": "rest"}
    assert np.array_equal(frames[0].positions, perovskite.positions)
    assert np.array_equal(frames[0].cell, perovskite.cell)
    assert not np.allclose(frames[1].positions, perovskite.positions)


def test_frames_depend_on_name_number_and_seed_alone(perovskite):
    def places(name, amounts):
        return [frame.positions for frame in perturbed(perovskite, name, amounts)]

    few = places("one", Perturbation(frames=2))
    for one, other in zip(few, places("one", Perturbation(frames=5)), strict=False):
        assert np.array_equal(one, other)
    assert not np.array_equal(few[1], places("two", Perturbation(frames=2))[1])
    assert not np.array_equal(few[1], places("one", Perturbation(frames=2, seed=1))[1])


def test_amounts_are_those_asked_for():
    crystal = bulk("Cu", cubic=True) * (3, 3, 3)
    amounts = Perturbation(frames=60, rattle=(0.05, 0.1), strain=0.03, squeeze=0.08, closest=0.0)
    kinds = {}
    for frame in perturbed(crystal, "Cu", amounts):
        kinds.setdefault(frame.info["kind"], []).append(frame)
    assert set(kinds) == {"rest", "rattle", "strain", "squeeze", "both"}
    for kind in ("rattle", "both"):
        widths = [displacements(frame, crystal).std() for frame in kinds[kind]]
        assert min(widths) > 0.9 * 0.05
        assert max(widths) < 1.1 * 0.1
        assert np.ptp(widths) > 0.01
    changes = [np.linalg.solve(crystal.cell.array, frame.cell.array) for frame in kinds["strain"]]
    strain = np.array(changes) - np.eye(3)
    assert np.allclose(strain, strain.transpose(0, 2, 1))
    assert 0.02 < np.abs(strain).max() <= 0.03 + 1e-12
    lengths = [frame.cell.lengths() / crystal.cell.lengths() for frame in kinds["squeeze"]]
    assert np.allclose(np.ptp(lengths, axis=1), 0)
    assert np.min(lengths) >= 0.92
    assert np.min(lengths) < 0.97


def test_atoms_do_not_overlap_though_violence_would_make_them():
    crystal = bulk("Cu", cubic=True)
    wild = {"rattle": (0.8, 0.8), "strain": 0.3, "squeeze": 0.3, "frames": 40}
    free = list(perturbed(crystal, "Cu", Perturbation(**wild, closest=0.0)))
    held = list(perturbed(crystal, "Cu", Perturbation(**wild, closest=0.6)))
    assert any(closest_ratio(frame, 0.6) is not None for frame in free)
    assert all(closest_ratio(frame, 0.6) is None for frame in held)
    assert all(np.any(frame.positions != crystal.positions) for frame in held[1:])


def test_a_crystal_with_short_bonds_of_its_own_is_perturbed_all_the_same():
    short = bulk("Cu", "sc", a=1.3)  # half the sum of the radii
    frames = list(perturbed(short, "Cu", Perturbation(strain=0.2, frames=20)))
    assert sum(bool(np.any(frame.cell != short.cell)) for frame in frames) > 5
    assert all(closest_ratio(frame, 0.9 * 1.3 / 2.64) is None for frame in frames)


def test_the_closest_pair_is_measured_in_covalent_radii():
    crystal = bulk("Cu", "sc", a=2.0)
    assert closest_ratio(crystal, 1.0) == pytest.approx(2.0 / (2 * 1.32))
    assert closest_ratio(crystal, 0.5) is None


def test_what_has_a_surface_is_shaken_only(slab, water):
    for atoms in (slab, water):
        for frame in list(perturbed(atoms, "open", Perturbation(frames=8)))[1:]:
            assert frame.info["kind"] == "rattle"
            assert np.array_equal(frame.cell, atoms.cell)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"frames": 0}, "frames is 0"),
        ({"rattle": (0.2, 0.1)}, "rattle is"),
        ({"strain": 0.5}, "strain is 0.5"),
        ({"squeeze": -0.1}, "squeeze is -0.1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_is_refused(wrong, told):
    with pytest.raises(BadRecipe, match=told):
        Perturbation(**wrong)
