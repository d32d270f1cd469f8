"""Candidates are checked before anything is spent on them, and told apart."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from ase.io.jsonio import decode, encode
from candidates import write_models
from pymatgen.core import Composition

from ase_crystalformer.errors import BadStructure
from ase_crystalformer.screening import screen
from ase_crystalformer.screening.duplicates import find_duplicates, fingerprint
from ase_crystalformer.screening.intake import Intake, is_balanced, refuse_close
from ase_crystalformer.screening.settings import Settings
from ase_crystalformer.structure_files import NamedStructure
from ase_crystalformer.structures import as_crystal

# ------------------------------------------------------------------------------- distances


def test_atoms_are_too_close_by_their_covalent_radii(rocksalt):
    # r(Na) + r(Cl) = 1.66 + 1.02 Å; a = 5.64 Å puts neighbours 2.82 Å apart
    refuse_close(as_crystal(rocksalt), 2.81 / 2.68)
    with pytest.raises(BadStructure, match=r"Na.* and .*Cl.* are 2\.82 Å apart"):
        refuse_close(as_crystal(rocksalt), 2.83 / 2.68)


def test_images_count(fcc):
    fcc.set_cell(fcc.cell * 0.4, scale_atoms=True)
    with pytest.raises(BadStructure, match="Atoms 0"):
        refuse_close(as_crystal(fcc), 0.6)


@pytest.mark.parametrize("name", ["H2", "N2", "CO", "H2O", "CH4", "SiH4"])
def test_molecules_are_not_too_close(name):
    refuse_close(as_crystal(molecule(name)), Settings().closest)


# --------------------------------------------------------------------------------- charges


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        *[("NaCl", True), ("Fe3O4", True), ("LiFePO4", True), ("BaTiO3", True), ("FeS2", True)],
        *[("NaCl2", False), ("Na2Cl", False), ("KMgF4", False), ("Al2O5", False)],
        *[("CuAu", None), ("Si", None), ("O2", None), ("GaAs", None)],
    ],
)
def test_charges_balance_where_chemists_say_so(formula, expected):
    assert is_balanced(formula) is expected


@pytest.mark.parametrize(
    "formula", ["NaCl", "NaCl2", "Fe3O4", "CsPbI3", "KMgF4", "Mo6S8", "SrTiN3"]
)
def test_charges_balance_where_pymatgen_finds_a_guess(formula):
    assert is_balanced(formula) == bool(Composition(formula).oxi_state_guesses(max_sites=-1))


def test_unbalanced_charges_are_a_note_unless_asked():
    odd = Atoms("NaCl2", [[0, 0, 0], [0, 0, 2.6], [0, 2.6, 0]], cell=[5.2] * 3, pbc=True)
    noted = Intake(Settings()).check(NamedStructure("odd", odd, None))
    assert (noted.outcome, noted.told["balanced"]) == ("passed", False)
    refused = Intake(Settings(balanced=True)).check(NamedStructure("odd", odd, None))
    assert refused.outcome == "left out"
    assert "oxidation states" in refused.told["reason"]


def test_what_is_stored_is_the_structure_and_plain_notes(slab):
    slab.info |= {"id": "mp-1", "from": object()}
    slab.new_array("forces", np.ones((len(slab), 3)))
    stored = decode(Intake(Settings()).check(NamedStructure("slab", slab, None)).atoms)
    assert (stored.positions == slab.positions).all()
    assert (stored.pbc == slab.pbc).all()
    assert stored.info == {"id": "mp-1"}
    assert "forces" not in stored.arrays


# ------------------------------------------------------------------------------ duplicates


def same(*structures):
    """Numbers of those that are left out as duplicates."""
    told = [
        (number, one.symbols.formula.reduce()[0].format("metal"), fingerprint(as_crystal(one)))
        for number, one in enumerate(structures)
    ]
    found = find_duplicates(told, lambda number: encode(structures[number]), str, lambda _: None)
    return [number for number, result in found if result.outcome == "left out"]


def turned(atoms, seed=0):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    turn *= np.linalg.det(turn)
    other = atoms.copy()
    other.set_cell(atoms.cell.array @ turn)
    other.set_positions(atoms.positions @ turn + 0.3)
    return other


def test_fingerprints_of_rock_salt_are_its_shells(rocksalt):
    # six neighbours at a/2, then twelve at a/√2, of which six are counted
    shells = [2.82] * 6 + [5.64 / np.sqrt(2)] * 6
    np.testing.assert_allclose(fingerprint(as_crystal(rocksalt)), shells, rtol=1e-6)


def test_fingerprints_depend_on_no_choice(wurtzite):
    mark = fingerprint(as_crystal(wurtzite))
    others = [wurtzite.repeat((2, 1, 1)), wurtzite[::-1], turned(wurtzite)]
    for other in others:
        np.testing.assert_allclose(fingerprint(as_crystal(other)), mark, atol=1e-8)


def test_fingerprints_change_at_most_twice_as_much_as_positions(wurtzite):
    moved = wurtzite.copy()
    moved.rattle(0.05, seed=3)
    farthest = np.linalg.norm(moved.positions - wurtzite.positions, axis=1).max()
    marks = [fingerprint(as_crystal(one)) for one in (wurtzite, moved)]
    change = np.abs(np.subtract(*marks)).max()
    assert 0 < change <= 2 * farthest


def test_the_same_crystal_is_found_however_it_is_written(rocksalt, slab, water):
    noisy = rocksalt.repeat((1, 2, 1))
    noisy.rattle(0.01, seed=1)
    conventional = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    assert same(rocksalt, noisy, conventional, turned(rocksalt)) == [1, 2, 3]
    moved = water.copy()
    moved.positions += 1.0
    assert same(slab, slab.copy(), water, moved) == [1, 3]


def test_other_crystals_of_the_same_formula_stay(rocksalt, diamond):
    assert same(rocksalt, bulk("NaCl", "cesiumchloride", a=3.5)) == []
    assert same(rocksalt, bulk("NaCl", "rocksalt", a=6.1)) == []
    assert same(bulk("ZnS", "zincblende", a=5.4), bulk("ZnS", "wurtzite", a=3.82)) == []
    swapped = rocksalt.copy()
    swapped.symbols = "KCl"
    assert same(rocksalt, swapped, diamond) == []


@pytest.mark.parametrize(("source", "out"), [(".", "out"), (".", "."), ("candidates", ".")])
def test_a_screening_among_its_candidates_goes_on(tmp_path, rocksalt, source, out):
    (tmp_path / source).mkdir(exist_ok=True)
    write(tmp_path / source / "salt.db", rocksalt)
    options = {**write_models(tmp_path), "steps": 1, "top": 0, "progress": False}
    for _ in range(2):
        found = screen(tmp_path / source, tmp_path / out, **options)
        assert found.selected["name"].tolist() == [f"{tmp_path / source / 'salt.db'}#1"]
        assert found.failures == []
