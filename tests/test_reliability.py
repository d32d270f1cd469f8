"""Measures of expected errors tell good ones from bad."""

import numpy as np
import pytest
from scipy.stats import maxwell

from ase_crystalformer.training.reliability import LEVELS, Compared, area


def compared(expected, error, name="forces"):
    rows = len(error)
    quarter = np.arange(rows) % 2 == 0
    groups = {"set": np.where(np.arange(rows) < rows // 2, "first", "second")}
    return Compared(
        name=name, unit="eV/Å", raw=expected, error=error, quarter=quarter, groups=groups
    )


def test_measures_tell_good_from_bad(rng):
    sigma = np.exp(rng.normal(size=4000))
    error = sigma * maxwell.rvs(size=4000, random_state=rng) / maxwell.mean()
    good = compared(0.5 * sigma, error)
    assert good.scale == pytest.approx(2, rel=0.03)
    assert good.told()["mean_expected"] == pytest.approx(error.mean(), rel=0.05)
    assert good.miscalibration() < 0.02
    assert area(good.gaussian()) < 0.02
    assert good.told()["spearman"] > 0.7
    bad = compared(sigma[rng.permutation(4000)], error)
    assert area(bad.gaussian()) > 0.1
    assert abs(bad.told()["spearman"]) < 0.1


def test_a_set_that_is_worse_than_expected_shows(rng):
    error = maxwell.rvs(size=2000, random_state=rng) * np.where(np.arange(2000) < 1000, 0.3, 1)
    told = compared(np.ones(2000), error).told()
    assert told["miscalibration_area"] < 0.02
    assert min(group["miscalibration_area"] for group in told["by_set"].values()) > 0.1


def test_areas_by_hand():
    assert area(LEVELS) == 0
    assert area(np.ones(19)) == pytest.approx(0.5, abs=0.03)
