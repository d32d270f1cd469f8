"""Energies that are not those of the formation energy beside them."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ase_crystalformer.data import potential as mixture
from ase_crystalformer.data.consistency import AGREEMENT, contradicted, least_absolute
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.potential import potential

SAMPLES = Path(__file__).parent / "samples"


def made(number, symbols, random):
    """A compound whose energy is that of its elements and its formation energy, and U in oxides."""
    energies = {3: -1.9, 8: -4.3, 26: -8.4, 17: -1.5}
    species = np.array(symbols)
    formation = float(random.normal())
    total = sum(energies[kind] for kind in symbols) / len(symbols)
    if 8 in symbols:
        total += 2.7 * symbols.count(26) / len(symbols)
    return LabelledCrystal(
        species=species,
        positions=random.normal(size=(len(species), 3)),
        cell=5 * np.eye(3),
        periodic=np.ones(3, dtype=bool),
        labels={"energy_per_atom": total + formation, "formation_energy_per_atom": formation},
        id=f"{number}",
        source="made",
        group="mp",
    )


@pytest.fixture
def compounds():
    random = np.random.default_rng(0)
    kinds = [
        [3, 8],
        [3, 3, 8],
        [26, 8],
        [26, 26, 8, 8, 8],
        [3, 17],
        [26, 17, 17],
        [3, 26],
        [3, 26, 26],
    ]
    return [made(number, kinds[number % 8], random) for number in range(80)]


def shifted(crystal, by):
    labels = crystal.labels | {"energy_per_atom": crystal.labels["energy_per_atom"] + by}
    return crystal.labelled(labels)


def test_only_energies_of_another_calculation_are_named(compounds):
    assert contradicted(compounds) == set()
    compounds[3] = shifted(compounds[3], 2.5 * AGREEMENT)
    compounds[11] = shifted(compounds[11], -40.0)
    assert contradicted(compounds) == {"3", "11"}


def test_elements_and_what_lacks_a_label_are_passed_by(compounds):
    molecule = shifted(replace(compounds[0], species=np.array([8, 8]), id="molecule"), 5.0)
    alone = compounds[1].labelled({"energy_per_atom": 99.0})
    assert contradicted([*compounds, molecule, replace(alone, id="alone")]) == set()
    assert contradicted([molecule]) == set()


def test_least_absolute_residuals_bear_outliers_that_least_squares_do_not():
    x = np.linspace(1, 2, 50)
    y = 3 * x
    y[::10] += 100
    assert least_absolute(x[:, None], y)[0] == pytest.approx(3, abs=1e-3)
    assert np.linalg.lstsq(x[:, None], y)[0][0] > 5


def test_the_mixture_has_no_contradicted_energies(monkeypatch):
    names = {row.id for row in potential(SAMPLES) if row.source == "mp_labelled"}
    wrong = sorted(names)[0]
    monkeypatch.setattr(mixture, "contradicted", lambda rows: {wrong})
    left = [row for row in potential(SAMPLES) if re.match(f"{wrong}(/|$)", row.id)]
    assert not [row for row in left if row.source in ("mp_labelled", "elements", "mp_near_rest")]
    assert {row.id for row in potential(SAMPLES) if row.source == "mp_labelled"} == names - {wrong}
