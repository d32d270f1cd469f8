"""Conditions select what is known to fulfil them, and say what is wrong in them beforehand."""

import numpy as np
import pytest
from candidates import write_models

from ase_crystalformer.errors import BadRecipe, UnknownName
from ase_crystalformer.screening import screen
from ase_crystalformer.screening.conditions import Condition
from ase_crystalformer.screening.store import Store
from ase_crystalformer.screening.table import Table


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(
    ("where", "error", "told"),
    [
        ("band_gab > 1", UnknownName, "Did you mean 'band_gap'"),
        ("e_above_hull < 0.1", BadRecipe, "e_above_hull needs known phases"),
        ("novelty < 1", BadRecipe, "novelty needs a calibrated potential"),
        ("band_gap >", BadRecipe, "is no condition"),
        ("band_gap + 1", BadRecipe, "neither true nor false"),
        ("band_gap = 1", BadRecipe, "is no condition"),
        ("formula > 1", BadRecipe, "is no condition"),
        ("band_gap > band_gap.mean()", BadRecipe, r"takes \.mean of a column"),
        ("band_gap.isna.__class__ == 1", BadRecipe, "takes .__class__ of a column"),
    ],
)
def test_conditions_are_checked_before_anything_starts(tmp_path, models, where, error, told):
    with pytest.raises(error, match=told):
        screen("nowhere", tmp_path, **models, where=where, top=0, progress=False)
    with Store.open(tmp_path / "screening.db") as store:
        assert store.numbers("read", None) == []


@pytest.fixture
def table(tmp_path):
    with Store.open(tmp_path / "screening.db") as store:
        yield Table(store, ["read"], {"band_gap": "eV"}, calibrated=False, hull=True)


@pytest.mark.parametrize(
    ("where", "passed"),
    [
        ("band_gap != 1", ["insulator"]),
        ("not band_gap > 2", ["semiconductor"]),
        ("~(band_gap > 2)", ["semiconductor"]),
        ("not band_gap.between(2, 9)", ["semiconductor"]),
        ("not band_gap.isin([1.0])", ["insulator"]),
        ("band_gap not in [1.0]", ["insulator"]),
        ("band_gap.abs() / 2 != 0.5", ["insulator"]),
        ("decomposes_to != 'NaCl'", ["insulator"]),
        ("decomposes_to not in ['NaCl']", ["insulator"]),
        ("not decomposes_to.str.contains('Na')", ["insulator"]),
        ("steps != 3", ["insulator"]),
        ("not balanced", ["insulator"]),
        ("band_gap.isna()", ["unknown"]),
        ("not band_gap.isna()", ["semiconductor", "insulator"]),
        ("band_gap.isna() or band_gap > 2", ["insulator", "unknown"]),
        ("band_gap != 1 or atoms == 2", ["semiconductor", "insulator", "unknown"]),
        ("band_gap != 1 and atoms == 2", ["insulator"]),
    ],
)
def test_a_missing_value_fulfils_nothing(where, passed, table):
    same = {"formula": "NaCl", "atoms": 2}
    rows = [
        {"name": "semiconductor", "band_gap": 1.0, "steps": 3, "decomposes_to": "NaCl"},
        {"name": "insulator", "band_gap": 5.0, "steps": 4, "decomposes_to": "MgO"},
        {"name": "unknown", "band_gap": np.nan, "steps": None, "decomposes_to": None},
    ]
    balanced = (True, False, None)
    told = [one | same | {"balanced": it} for one, it in zip(rows, balanced, strict=True)]
    kept = Condition(where, table).holds(table.frame(told))
    assert kept["name"].tolist() == passed
    assert kept["band_gap"].dtype == float
