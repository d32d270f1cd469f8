"""What is held fixed stays, and what is free moves as ASE would move it."""

import numpy as np
import pytest
import spglib
import torch
from ase import Atoms
from ase.build import bulk, fcc100
from ase.constraints import (
    FixAtoms,
    FixCartesian,
    FixCom,
    FixedLine,
    FixedPlane,
    FixScaled,
    FixSymmetry,
    Hookean,
)
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from factories import tiny_potential

from ase_crystalformer import CrystalformerCalculator, relax
from ase_crystalformer.errors import UnknownName
from ase_crystalformer.relaxation.fire import Fire
from ase_crystalformer.relaxation.freedom import Freedom, FreedomBatch, check_cell_freedom
from ase_crystalformer.relaxation.lbfgs import Lbfgs

EXACT = {"dtype": "float64", "progress": False}
NEVER = {"fmax": 1e-9, **EXACT}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def model():
    return tiny_potential()


@pytest.fixture
def rutile() -> Atoms:
    """TiO2, squeezed: six atoms, a free parameter of the oxygen sites."""
    u = 0.31
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (u, u, 0), (-u, -u, 0), (0.5 + u, 0.5 - u, 0.5)]
    sites.append((0.5 - u, 0.5 + u, 0.5))
    return Atoms("Ti2O4", scaled_positions=sites, cell=[4.1, 4.1, 2.9], pbc=True)


def by_ase(model, atoms, steps, relax_cell=True, **strains):
    """Let ASE take some steps of FIRE."""
    atoms = atoms.copy()
    atoms.calc = CrystalformerCalculator(model, property_model=None, dtype="float64")
    moving = FrechetCellFilter(atoms, **strains) if relax_cell else atoms
    FIRE(moving, logfile=None).run(fmax=1e-9, steps=steps)
    return atoms


def spacegroup(atoms: Atoms, symprec: float) -> int:
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    return spglib.get_symmetry_dataset(cell, symprec=symprec).number


def assert_same(found, atoms, start, atol=1e-9):
    np.testing.assert_allclose(found.atoms.positions, atoms.positions, atol=atol)
    np.testing.assert_allclose(found.atoms.cell.array, atoms.cell.array, atol=atol)
    assert np.abs(atoms.positions - start.positions).max() > 100 * atol


# ------------------------------------------------------------------ cells


@pytest.mark.parametrize(
    ("relax_cell", "strains"),
    [
        (True, {}),
        (False, None),
        ("volume", {"hydrostatic_strain": True}),
        ("shape", {"constant_volume": True}),
        (([True, True, False, False, False, True]), {"mask": [1, 1, 0, 0, 0, 1]}),
    ],
)
def test_takes_the_steps_of_ase(model, wurtzite, relax_cell, strains):
    found = relax(wurtzite, model=model, relax_cell=relax_cell, steps=8, **NEVER)[0]
    expected = by_ase(model, wurtzite, 8, strains is not None, **(strains or {}))
    assert_same(found, expected, wurtzite)


def test_a_volume_or_a_shape_alone_is_relaxed(model, rutile):
    volume, shape = (
        relax(rutile, model=model, relax_cell=how, fmax=0.01, **EXACT)[0]
        for how in ("volume", "shape")
    )
    assert volume.converged
    assert shape.converged
    angles = volume.atoms.cell.cellpar()[3:]
    np.testing.assert_allclose(angles, rutile.cell.cellpar()[3:], atol=1e-9)
    assert abs(volume.atoms.cell.volume / rutile.cell.volume - 1) > 0.01
    assert shape.atoms.cell.volume == pytest.approx(rutile.cell.volume, rel=1e-9)
    assert np.abs(shape.atoms.cell.cellpar() - rutile.cell.cellpar()).max() > 0.01
    uneven = [np.ptp(found.stress[:3]) for found in (volume, shape)]
    assert uneven[1] < 1.5e-3 < uneven[0]
    assert abs(volume.stress[:3].sum()) < 5e-3 < abs(shape.stress[:3].sum())


@pytest.mark.parametrize(
    ("relax_cell", "said"),
    [
        ("cell", "'volume', 'shape'"),
        ((True, False), "six times"),
        ([False] * 5 + [True], "stretches along both"),
        ([True] * 4 + [False, True], "two shears"),
    ],
)
def test_strains_nobody_knows_are_refused(model, fcc, relax_cell, said):
    with pytest.raises(ValueError, match=said):
        relax(fcc, model=model, relax_cell=relax_cell, progress=False)


@pytest.mark.parametrize("relax_cell", [None, 1, np.eye(6)])
def test_what_says_nothing_about_a_cell_is_refused(relax_cell):
    with pytest.raises(ValueError, match="it may be True, False, 'volume'"):
        check_cell_freedom(relax_cell)


# ------------------------------------------------------------------ symmetry


@pytest.mark.parametrize("optimiser", ["fire", "lbfgs"])
def test_symmetry_is_kept_where_it_is_asked_for(model, rutile, optimiser):
    rutile.rattle(0.0003, seed=1)
    assert spacegroup(rutile, 1e-5) == 1
    kept, free = (
        relax(rutile, model=model, keep_symmetry=how, optimiser=optimiser, progress=False)[0]
        for how in (True, False)
    )
    assert kept.converged
    assert spacegroup(kept.atoms, 1e-5) == 136
    assert spacegroup(free.atoms, 1e-5) == 1
    assert not kept.atoms.constraints
    assert np.abs(kept.atoms.cell.array - rutile.cell.array).max() > 0.01


def test_symmetry_is_kept_as_ase_does(model, rutile):
    rutile.set_constraint(FixSymmetry(rutile))
    expected = by_ase(model, rutile, 6)
    found = relax(rutile, model=model, steps=6, **NEVER)[0]
    assert_same(found, expected, rutile, atol=1e-6)
    asked = rutile.copy()
    asked.set_constraint()
    same = relax(asked, model=model, steps=6, keep_symmetry=True, **NEVER)[0]
    np.testing.assert_allclose(same.atoms.positions, found.atoms.positions, atol=1e-9)


def test_symmetry_is_that_of_the_structure_in_all_of_a_batch(model, rutile, wurtzite, fcc):
    together = relax([wurtzite, rutile, fcc], model=model, keep_symmetry=True, steps=5, **NEVER)
    for found, given_alone in zip(together, [wurtzite, rutile, fcc], strict=True):
        alone = relax(given_alone, model=model, keep_symmetry=True, steps=5, **NEVER)[0]
        np.testing.assert_allclose(found.atoms.positions, alone.atoms.positions, atol=1e-9)


def test_a_large_cell_keeps_its_translations_too(model, diamond):
    large = diamond * (2, 2, 2)
    large.set_cell(large.cell.array * 0.9, scale_atoms=True)
    found = relax(large, model=model, keep_symmetry=True, **EXACT)[0]
    assert found.converged
    assert spacegroup(found.atoms, 1e-5) == 227


def test_symmetry_of_a_slab_is_refused(model, slab):
    found = relax(slab, model=model, keep_symmetry=True, progress=False)[0]
    assert "three directions" in found.error


def test_symmetry_that_moves_fixed_atoms_is_refused(model, rutile):
    rutile.set_constraint([FixAtoms([0]), FixSymmetry(rutile)])
    half = relax(rutile, model=model, relax_cell=False, progress=False)[0]
    assert "Fix all of them or none" in half.error
    rutile.set_constraint([FixAtoms([0, 1]), rutile.constraints[1]])
    whole = relax(rutile, model=model, relax_cell=False, steps=5, **NEVER)[0]
    assert whole.error is None
    np.testing.assert_array_equal(whole.atoms.positions[:2], rutile.positions[:2])


# ------------------------------------------------------------------ constraints


@pytest.mark.parametrize(
    "constraint",
    [
        FixAtoms([0, 2]),
        FixCartesian([0, 1], mask=(True, False, True)),
        FixedPlane([0, 1], (1, 1, 0)),
        FixedLine(1, (0, 1, 1)),
        FixScaled([0, 1], mask=(False, True, True)),
    ],
)
def test_constraints_of_atoms_are_kept_as_ase_does(model, perovskite, constraint):
    perovskite.rattle(0.1, seed=0)
    perovskite.set_constraint(constraint)
    expected = by_ase(model, perovskite, 8, relax_cell=False)
    found = relax(perovskite, model=model, relax_cell=False, steps=8, **NEVER)[0]
    assert_same(found, expected, perovskite)


@pytest.mark.parametrize("constraint", [FixAtoms([0, 2]), FixScaled([0, 1], mask=(0, 1, 1))])
def test_constraints_are_kept_while_the_cell_changes(model, perovskite, constraint):
    perovskite.rattle(0.1, seed=0)
    perovskite.set_constraint(constraint)
    found = relax(perovskite, model=model, steps=8, **NEVER)[0]
    moved = found.atoms.get_scaled_positions(wrap=False) - perovskite.get_scaled_positions(
        wrap=False
    )
    fixed = [0, 2] if isinstance(constraint, FixAtoms) else [0, 1]
    axes = [0, 1, 2] if isinstance(constraint, FixAtoms) else [1, 2]
    np.testing.assert_allclose(moved[np.ix_(fixed, axes)], 0, atol=1e-12)
    assert np.abs(moved[3:]).min() > 1e-6
    assert abs(found.atoms.cell.volume / perovskite.cell.volume - 1) > 1e-3


@pytest.mark.parametrize(
    ("constraint", "relax_cell", "said"),
    [
        (FixCartesian([0]), True, "FixCartesian is kept where the cell is fixed"),
        (FixCom(), False, "FixCom cannot be kept"),
        (Hookean(0, 1, k=1.0, rt=1.0), False, "Hookean cannot be kept"),
    ],
)
def test_other_constraints_are_refused_by_name(model, rocksalt, constraint, relax_cell, said):
    rocksalt.set_constraint(constraint)
    found = relax(rocksalt, model=model, relax_cell=relax_cell, progress=False)[0]
    assert said in found.error


def test_projectors_project(wurtzite, rutile, rng):
    slab = fcc100("Al", (2, 1, 3), a=4.0, vacuum=5.0)
    slab.set_constraint([FixAtoms([0]), FixScaled([1], mask=(0, 1, 1))])
    rutile.set_constraint(FixSymmetry(rutile))
    given_all = [wurtzite, slab, rutile]
    freedoms = [Freedom.of(atoms, "shape" if atoms is slab else True) for atoms in given_all]
    counts = [len(atoms) for atoms in given_all]
    batch = FreedomBatch(freedoms, counts, torch.device("cpu"))
    moves, others = (torch.from_numpy(rng.normal(size=(sum(counts), 3))) for _ in range(2))
    strains, more = (torch.from_numpy(rng.normal(size=(3, 3, 3))) for _ in range(2))
    for project, one, other in (
        (batch.displacement, moves, others),
        (batch.strain, strains, more),
    ):
        once = project(one)
        torch.testing.assert_close(project(once), once, atol=1e-12, rtol=0)
        assert float((once * other).sum()) == pytest.approx(float((one * project(other)).sum()))
        assert (once - one).abs().max() > 0.1


# ------------------------------------------------------------------ optimisers


def test_lbfgs_ends_in_the_same_minima_sooner(model, rutile):
    crystals = [rutile, bulk("NaCl", "rocksalt", a=5.0)]
    slow, fast = (
        relax(crystals, model=model, optimiser=name, fmax=0.005, **EXACT)
        for name in ("fire", "lbfgs")
    )
    for one, other in zip(slow, fast, strict=True):
        assert one.converged
        assert other.converged
        assert abs(one.energy - other.energy) / len(one.atoms) < 1e-3
    assert sum(r.steps for r in fast) < sum(r.steps for r in slow)


@pytest.mark.parametrize("seed", range(3))
def test_lbfgs_solves_quadratic_bowls_of_any_shape(seed):
    rng = np.random.default_rng(seed)
    rows = 4
    basis = np.linalg.qr(rng.normal(size=(3 * rows, 3 * rows)))[0]
    hessian = torch.from_numpy(basis @ np.diag(rng.uniform(1.0, 50.0, 3 * rows)) @ basis.T)
    place = torch.from_numpy(rng.normal(size=(rows, 3)))
    optimiser = Lbfgs.join([Lbfgs.at_rest(rows)], torch.device("cpu"))
    for _ in range(50):
        force = -(hessian @ place.flatten()).view(rows, 3)
        move = optimiser.step(force)
        assert float((move * force).sum()) >= 0
        assert float(move.norm(dim=1).max()) < 0.2 + 1e-12
        place = place + move
    assert float(place.norm()) < 1e-3


@pytest.mark.parametrize("kind", [Fire, Lbfgs])
def test_systems_taken_apart_go_on_as_they_were(kind, rng):
    device = torch.device("cpu")
    forces = [torch.from_numpy(rng.normal(size=(5, 3))) for _ in range(6)]
    whole = kind.join([kind.at_rest(2), kind.at_rest(3)], device)
    parts = kind.join([kind.at_rest(2), kind.at_rest(3)], device)
    for force in forces:
        parts = kind.join(parts.split(), device)
        torch.testing.assert_close(parts.step(force), whole.step(force), atol=0, rtol=0)


def test_unknown_optimisers_are_refused(model, fcc):
    with pytest.raises(UnknownName, match="lbfgs"):
        relax(fcc, model=model, optimiser="lbfg", progress=False)
