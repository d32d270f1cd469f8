"""What cannot be computed or learned from is left out, by name and reason."""

import logging

import numpy as np
import pytest

from ase_crystalformer.data.crystals import LabelledCrystal, check, sound
from ase_crystalformer.errors import BadStructure


def caesium(**changed):
    parts = {
        "species": np.array([55, 17]),
        "positions": np.array([[0.0, 0, 0], [2, 2, 2]]),
        "cell": 4.0 * np.eye(3),
        "periodic": np.ones(3, dtype=bool),
        "labels": {"band_gap": 5.0},
        "id": "CsCl",
        "source": "textbook",
        "group": "experiment",
    }
    return LabelledCrystal(**{**parts, **changed})


def test_a_sound_crystal_passes():
    check(caesium(labels={"energy": -6.0, "forces": np.zeros((2, 3)), "stress": np.eye(3)}))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"species": np.array([55, 0])}, "atomic number 0"),
        ({"positions": np.full((2, 3), np.nan)}, "finite"),
        ({"cell": np.diag([4.0, 4, 0])}, "cell vector 2"),
        ({"labels": {"band_gap": np.nan}}, "band_gap is not finite"),
        ({"labels": {"forces": np.full((2, 3), np.inf)}}, "forces is not finite"),
        ({"labels": {"forces": np.zeros((3, 3))}}, r"\(2, 3\) is needed"),
        ({"labels": {"stress": np.zeros(6)}}, r"\(3, 3\) is needed"),
        ({"labels": {"band_gap": np.zeros(2)}}, r"\(\) is needed"),
    ],
)
def test_an_unsound_crystal_is_refused(changed, reason):
    with pytest.raises(BadStructure, match=reason):
        check(caesium(**changed))


def test_bad_rows_are_told_and_the_others_go_on(caplog):
    rows = [caesium(id="a"), caesium(id="b", labels={"band_gap": np.nan}), caesium(id="c")]
    with caplog.at_level(logging.WARNING):
        kept = [row.id for row in sound(rows)]
    assert kept == ["a", "c"]
    assert [record.getMessage() for record in caplog.records] == [
        "Left out textbook b: Its band_gap is not finite. Drop that label, or the row."
    ]


def test_changes_make_a_new_crystal():
    crystal = caesium()
    other = crystal.labelled({}).in_split("val").in_group("PBE")
    assert (other.labels, other.split, other.group) == ({}, "val", "PBE")
    assert (crystal.labels, crystal.split, crystal.group) == ({"band_gap": 5.0}, None, "experiment")
    assert (crystal.atoms, crystal.volume) == (2, pytest.approx(64))
