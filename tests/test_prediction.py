"""A table of properties, one row per structure."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read
from factories import tiny_potential, tiny_properties
from pymatgen.core import Lattice, Structure

from ase_crystalformer import predict
from ase_crystalformer.errors import OutsideTraining, UnknownName
from ase_crystalformer.neighbours import Radius, build
from ase_crystalformer.spacing import looks_odd, search_oddity
from ase_crystalformer.structures import as_crystal

ROOT = Path(__file__).parents[1]


@pytest.fixture
def model():
    return tiny_properties()


@pytest.mark.filterwarnings("ignore:1 of 6.*repeats in no direction")
def test_rows_are_in_order_and_columns_have_units(model, crystals):
    table = predict(crystals, model=model, progress=False)
    assert list(table) == ["band_gap", "bulk_modulus", "error"]
    assert table.attrs["units"] == {"band_gap": "eV", "bulk_modulus": "GPa"}
    assert table["error"].isna().all()
    alone = [model.predict([atoms])[0]["band_gap"] for atoms in crystals]
    np.testing.assert_allclose(table["band_gap"], alone, rtol=1e-5)


def test_bad_structures_say_why_and_the_others_are_predicted(model, rocksalt, diamond):
    unseen, broken = rocksalt.copy(), rocksalt.copy()
    unseen.symbols[1] = "Xe"
    broken.positions[0, 0] = np.nan
    table = predict([unseen, rocksalt, None, broken, diamond], model=model, progress=False)
    assert table["band_gap"].isna().tolist() == [True, False, True, True, False]
    assert table["error"].isna().tolist() == [False, True, False, False, True]
    assert table["error"][0].startswith("UnseenElement: ")
    assert "without Xe" in table["error"][0]
    assert "NoneType" in table["error"][2]
    assert "position of atom 0 is [nan" in table["error"][3]


def test_a_table_column_keeps_its_index(model, rocksalt, diamond):
    column = pd.Series([rocksalt, diamond], index=["salt", "silicon"])
    assert predict(column, model=model, progress=False).index.tolist() == ["salt", "silicon"]


def test_every_kind_of_structure_is_the_same(model, rocksalt):
    scaled = rocksalt.get_scaled_positions()
    pymatgen = Structure(Lattice(rocksalt.cell.array), ["Na", "Cl"], scaled)
    table = predict([rocksalt, pymatgen, as_crystal(rocksalt)], model=model, progress=False)
    assert np.ptp(table["bulk_modulus"]) < 1e-6 * table["bulk_modulus"][0]


@pytest.mark.parametrize("single", [lambda it: it, as_crystal], ids=["ase", "crystal"])
def test_one_structure_is_a_list_of_one(model, rocksalt, single):
    assert len(predict(single(rocksalt), model=model, progress=False)) == 1


def test_no_structures_are_no_rows(model):
    table = predict([], model=model, progress=False)
    assert list(table) == ["band_gap", "bulk_modulus", "error"]
    assert len(table) == 0


def test_properties_are_as_asked(model, rocksalt):
    table = predict([rocksalt], ["bulk_modulus"], model=model, progress=False)
    assert list(table) == ["bulk_modulus", "error"]
    with pytest.raises(UnknownName, match=r"Did you mean 'band_gap'\? Known: band_gap, bulk_mod"):
        predict([rocksalt], ["bandgap"], model=model, progress=False)


def test_a_potential_predicts_energies(rocksalt):
    table = predict([rocksalt, None], model=tiny_potential(), progress=False)
    assert table["energy"][0] == pytest.approx(2 * table["energy_per_atom"][0])
    assert table.attrs["units"]["energy_per_atom"] == "eV/atom"
    assert np.isnan(table["energy"][1])


def test_the_bar_counts_structures(model, rocksalt, capsys):
    predict([rocksalt, None], model=model)
    assert "2/2" in capsys.readouterr().err
    predict([rocksalt, None], model=model, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["energy", "energy_per_atom", "energy_uncertainty", "novelty"])
def test_what_a_potential_tells_is_hinted_at(model, rocksalt, name):
    with pytest.raises(UnknownName, match=r"Known: band_gap, .*model='default'.*-m default"):
        predict([rocksalt], [name], model=model, progress=False)
    with pytest.raises(UnknownName) as caught:
        predict([rocksalt], ["bandgap"], model=model, progress=False)
    assert "potential" not in str(caught.value)


def test_forces_are_hinted_at(model, rocksalt):
    with pytest.raises(UnknownName, match="forces, through CrystalformerCalculator or relax"):
        predict([rocksalt], ["forces"], model=model, progress=False)


# ------------------------------------------------------- what no property model can know


def boxed(symbol):
    return Atoms(symbol, cell=[20.0] * 3, pbc=True)


def test_oddly_spaced_crystals_are_warned_of_once(model, rocksalt):
    structures = [rocksalt, None, bulk("Cu", a=1.8), boxed("Cu"), bulk("Cu")]
    with pytest.warns(OutsideTraining) as caught:
        table = predict(structures, model=model, progress=False)
    assert len(caught) == 1
    told = str(caught[0].message)
    assert "2 of 5 structures" in told
    assert "number 2: atom 0 (Cu) is 1.27 Å from atom 0 (Cu), 0.48 of the sum" in told
    assert "guesses" in told
    assert list(table.attrs["outside"]) == [2, 3]
    assert table["band_gap"].isna().tolist() == [False, True, False, False, False]
    assert table["error"].notna().tolist() == [False, True, False, False, False]


@pytest.mark.parametrize(
    ("atoms", "why"),
    [
        (bulk("Cu", a=2.2), "0.59 of the sum"),
        (bulk("Cu", a=6.0), r"atom 0 \(Cu\) is 1.5 Å or more beyond bond length"),
        (bulk("Cu", a=9.0), "beyond bond length"),
        (boxed("Na"), "beyond bond length"),
        (molecule("H2O", cell=[15] * 3, pbc=True) + Atoms("Cu", [[8, 8, 8]]), r"atom 3 \(Cu\)"),
        (molecule("H2O"), "no crystal"),
    ],
)
def test_odd_spacings_are_named(model, atoms, why):
    with pytest.warns(OutsideTraining, match=f"1 of 1 structures.*number 0: .*{why}"):
        assert predict(atoms, model=model, progress=False)["error"].isna().all()


def test_no_ordinary_crystal_is_odd():
    """Elements far apart and close, noble gases, molecules, and samples of real data."""
    symbols = ("Cs", "K", "Ne", "Ar", "Kr", "Xe", "Si", "Fe", "Ti", "Pb", "U", "C", "Hg")
    crystals = [bulk(symbol) for symbol in symbols]
    crystals += [bulk("He", "hcp", a=3.57, c=5.83)]
    crystals += [molecule(m, cell=[4.6] * 3, pbc=True) for m in ("N2", "CO2", "CH4", "Cl2")]
    crystals += [read(path) for path in (ROOT / "workflows" / "demo_structures").glob("*.cif")]
    for path in (ROOT / "notebooks" / "samples").glob("*.extxyz.gz"):
        crystals += read(path, "::20", format="extxyz")
    assert len(crystals) > 60
    told = [(str(atoms.symbols), search_oddity(as_crystal(atoms))) for atoms in crystals]
    assert not [one for one in told if one[1]]
    near = [atoms for atoms in crystals if "Cs" not in atoms.symbols]  # it has no edge within 5 Å
    assert not [str(atoms.symbols) for atoms in near if looks_odd(build(atoms, Radius(5.0)))]


def test_what_lies_beyond_the_cutoff_is_looked_up(model):
    """The atoms of sodium have no edge within 3 Å."""
    short = tiny_properties(cutoff=3.0, basis_radius=3.0)
    assert build(bulk("Na"), short.encoder.rule).edges == 0
    assert predict(bulk("Na"), model=short, progress=False).attrs["outside"] == {}


def test_distances_say_nothing_of_a_potential(rocksalt):
    table = predict(bulk("Cu", a=1.8), model=tiny_potential(), progress=False)
    assert table.attrs["outside"] == {}
