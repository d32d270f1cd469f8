"""The ways in that users of other libraries take."""

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.filters import FrechetCellFilter
from ase.gui.images import Images
from ase.io import read, write
from ase.optimize import FIRE
from factories import tiny_potential, tiny_properties
from matcalc import EOSCalc
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from ase_crystalformer import CrystalformerCalculator, CrystalformerFeaturizer, relax


@pytest.fixture
def calc():
    return CrystalformerCalculator(tiny_potential(), property_model=None, dtype="float64")


@pytest.fixture
def salt():
    """Rock salt, squeezed and distorted."""
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()
    return structure.perturb(0.05)


def test_pymatgen_computes_with_it(salt, calc):
    atoms = salt.calculate(calculator=calc)
    np.testing.assert_allclose(atoms.get_potential_energy(), calc.results["energy"])
    expected = calc.get_potential_energy(AseAtomsAdaptor.get_atoms(salt))
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-9)


def test_pymatgen_relaxes_with_it(salt, calc):
    relaxed = salt.relax(calculator=calc, fmax=0.02, steps=300)
    assert isinstance(relaxed, Structure)
    atoms = AseAtomsAdaptor.get_atoms(relaxed)
    atoms.calc = calc
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.02
    [ours] = relax([salt], model=tiny_potential(), fmax=0.02, dtype="float64", progress=False)
    assert relaxed.volume == pytest.approx(ours.atoms.get_volume(), rel=0.01)
    assert relaxed.volume > 1.02 * salt.volume


def test_pymatgen_relaxes_atoms_alone_and_keeps_the_way(salt, calc, tmp_path):
    options = {"relax_cell": False, "fmax": 0.02, "steps": 300, "return_trajectory": True}
    way = {"trajectory": str(tmp_path / "way.traj")}
    relaxed, frames = salt.relax(calculator=calc, opt_kwargs=way, **options)
    assert relaxed.lattice == salt.lattice
    energies = [frame.get_potential_energy() for frame in frames]
    assert len(energies) > 1
    assert energies[-1] < energies[0]


def test_trajectories_open_in_the_viewer(wurtzite, calc, tmp_path):
    path = tmp_path / "relaxation.traj"
    wurtzite.calc = calc
    with FIRE(FrechetCellFilter(wurtzite), logfile=None, trajectory=str(path)) as optimiser:
        optimiser.run(fmax=0.01, steps=5)
    shown = Images()
    shown.read([str(path)])
    assert len(shown) == 6
    last = shown[-1]
    np.testing.assert_allclose(shown.get_energy(last), wurtzite.get_potential_energy())
    np.testing.assert_allclose(last.get_forces(), wurtzite.get_forces())


@pytest.mark.parametrize("name", ["relaxed.traj", "relaxed.extxyz", "relaxed.json", "relaxed.db"])
def test_relaxed_structures_survive_every_file(name, rocksalt, slab, tmp_path):
    slab.info.clear()
    found = relax([rocksalt, slab], model=tiny_potential(), steps=3, progress=False)
    write(tmp_path / name, [one.atoms for one in found])
    for one, back in zip(found, read(tmp_path / name, ":"), strict=True):
        assert back.get_potential_energy() == pytest.approx(one.energy, abs=1e-6)
        np.testing.assert_allclose(back.get_forces(), one.atoms.get_forces(), atol=1e-6)
        np.testing.assert_allclose(back.positions, one.atoms.positions, atol=1e-6)
        assert isinstance(back.calc, SinglePointCalculator)


def test_databases_select_by_what_was_computed(rocksalt, fcc, calc, tmp_path):
    with connect(tmp_path / "crystals.db") as database:
        for atoms in (rocksalt, fcc):
            atoms.calc = calc
            atoms.get_forces()
            database.write(atoms)
    (row,) = database.select("energy<-200,calculator=crystalformer,Na")
    assert row.energy == pytest.approx(rocksalt.get_potential_energy())
    assert row.fmax == pytest.approx(0, abs=1e-6)


def test_databases_tell_who_relaxed(rocksalt, tmp_path):
    model = tiny_potential()
    options = {"steps": 2, "progress": False, "trajectory": [tmp_path / "way.traj"]}
    rocksalt.calc = CrystalformerCalculator(model, property_model=None)
    rocksalt.get_potential_energy()
    found = [relax([rocksalt], model=model, **options)[0] for _ in range(2)]  # the second is read
    with connect(tmp_path / "crystals.db") as database:
        for atoms in (rocksalt, *(one.atoms for one in found), read(tmp_path / "way.traj")):
            database.write(atoms)
    live, *others = database.select(calculator="crystalformer")
    assert len(others) == 3
    for row in others:
        told = live.calculator_parameters.items() - row.calculator_parameters.items()
        assert told == {("property_model", None)}
        assert row.toatoms().calc.name == "crystalformer"


def test_matcalc_takes_it(rocksalt, calc):
    found = EOSCalc(calc, relax_structure=False, n_points=5).calc(
        AseAtomsAdaptor.get_structure(rocksalt)
    )
    assert np.isfinite(found["bulk_modulus_bm"])
    assert len(found["eos"]["energies"]) == 5


# ----------------------------------------------------------------------------- scikit-learn


@pytest.fixture
def featurizer(tmp_path):
    return CrystalformerFeaturizer(str(tiny_properties().save(tmp_path / "tiny")), device="cpu")


@pytest.fixture
def salts():
    known = (("NaCl", 5.64), ("SrO", 5.16), ("ZnO", 4.28), ("TiO", 4.18))
    crystals = [bulk(name, "rocksalt", a=a) for name, a in known]
    return [AseAtomsAdaptor.get_structure(atoms) for atoms in crystals]


def test_rows_without_features_are_warned_about_by_number_and_reason(featurizer, salts):
    bad = [salts[0], Structure(Lattice.cubic(3), ["Na", "Na"], [[0, 0, 0]] * 2), *[None] * 5]
    told = r"NaN.*row 1 \(BadStructure: .*row 2 .*row 5 \(.*, and 1 more\. Leave"
    with pytest.warns(UserWarning, match=told) as warned:
        found = featurizer.transform(bad)
    assert len(warned) == 1
    assert np.isnan(found).all(axis=1).tolist() == [False] + [True] * 6
    with (
        pytest.warns(UserWarning, match="row 2"),
        pytest.raises(ValueError, match="contains NaN"),
    ):
        make_pipeline(featurizer, Ridge()).fit(bad, range(7))


def test_pipelines_are_fitted_and_searched(featurizer, salts):
    chain = make_pipeline(featurizer, Ridge())
    found = GridSearchCV(chain, {"ridge__alpha": [1e-3, 1e3]}, cv=2).fit(salts, range(4))
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    assert found.predict(salts).shape == (4,)
    assert make_pipeline(featurizer).fit(salts).transform(salts).dtype == np.float64
    assert featurizer.transform([]).shape == (0, len(featurizer.feature_labels()))


@pytest.mark.parametrize("column", ["structure", ["structure"]])
def test_columns_of_structures_are_transformed_and_named(column, featurizer, salts):
    table = pd.DataFrame({"structure": salts, "x": [1.0, 2.0, 3.0, 4.0]})
    columns = make_column_transformer((featurizer, column), ("passthrough", ["x"]))
    expected = featurizer.featurize_many(salts, pbar=False)
    found = columns.fit_transform(table)
    np.testing.assert_allclose(found[:, :-1], expected, rtol=1e-5)
    names = columns.get_feature_names_out()
    assert [name.partition("__")[2] for name in names] == [*featurizer.feature_labels(), "x"]
    framed = columns.set_output(transform="pandas").fit_transform(table)
    assert framed.columns.tolist() == names.tolist()
