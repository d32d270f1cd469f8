"""A table of properties, one row per structure."""

import numpy as np
import pandas as pd
import pytest
from factories import tiny_potential, tiny_properties
from pymatgen.core import Lattice, Structure

from ase_crystalformer import predict
from ase_crystalformer.errors import UnknownName
from ase_crystalformer.structures import as_crystal


@pytest.fixture
def model():
    return tiny_properties()


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
