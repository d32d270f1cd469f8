"""Scores are what a hand computes, and the plot is drawn."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase.io import write
from small_runs import (
    MODEL,
    SAMPLES,
    TARGETS,
    crystals_with_forces,
    crystals_with_properties,
    made_up,
    packed_set,
)

from ase_crystalformer.data.readers import load
from ase_crystalformer.errors import BadRecipe, MissingData
from ase_crystalformer.model import Card, CrystalModel
from ase_crystalformer.structures import Crystal, to_atoms
from ase_crystalformer.targets import TARGETS as ALL_TARGETS
from ase_crystalformer.training.evaluate import evaluate, score


def atoms_of(crystal):
    return to_atoms(Crystal(crystal.species, crystal.positions, crystal.cell, crystal.periodic))


@pytest.fixture
def properties():
    """A property model with random weights."""
    return CrystalModel("crystalformer", MODEL, targets=[ALL_TARGETS[n] for n in TARGETS]).eval()


@pytest.fixture
def potential():
    """A potential with random weights, on the scale of the first group."""
    return CrystalModel("crystalformer", MODEL, energy_scale="mp").eval()


def test_scores_of_known_errors():
    found = score(np.array([1.0, 2.0, 6.0]), np.array([1.0, 4.0, 5.0]), "eV", "val")
    assert found.mae == 1.0
    assert found.rmse == pytest.approx((5 / 3) ** 0.5)
    assert found.spread == pytest.approx(4 / 3)
    assert (found.n, found.unit, found.on) == (3, "eV", "val")


def test_property_scores_are_those_of_predictions_one_by_one(tmp_path, properties):
    crystals = crystals_with_properties()
    packed_set(crystals, tmp_path / "set", *TARGETS)
    scores = evaluate(
        properties, tmp_path / "set", split="val", out=tmp_path / "out", progress=False
    )
    errors = {name: [] for name in TARGETS}
    for crystal in crystals:
        if crystal.split == "val":
            [told] = properties.predict([atoms_of(crystal)])
            for name in set(TARGETS) & set(crystal.labels):
                errors[name].append(abs(told[name] - crystal.labels[name]))
    for name in TARGETS:
        assert scores[name].n == len(errors[name])
        assert scores[name].mae == pytest.approx(np.mean(errors[name]), rel=1e-4)
    assert scores["log10 bulk_modulus"].unit == "log10(GPa)"
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["band_gap"] == vars(scores["band_gap"])
    assert (tmp_path / "out" / "parity.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "out" / "parity.png").stat().st_size > 10_000


def test_energies_of_another_scale_are_compared_after_elements_are_fitted(tmp_path, potential):
    crystals = crystals_with_forces()
    packed = packed_set(crystals, tmp_path / "set", "energy")
    scores = evaluate(potential, tmp_path / "set", split=None, out=tmp_path, progress=False)
    graph, labels = packed.batch(range(len(packed)))
    result = potential.energy(graph)
    own = labels["group"] == 0
    atoms = torch.bincount(graph.crystal)
    error = ((result.energy - labels["energy"]) / atoms)[own].abs()
    assert scores["energy"].n == int(own.sum())
    assert scores["energy"].mae == pytest.approx(float(error.mean()), rel=1e-4)
    forces = (result.forces - labels["forces"]).abs().mean()
    assert scores["forces"].mae == pytest.approx(float(forces), rel=1e-3)
    assert scores["energy, elements fitted"].n == int((~own).sum())
    assert scores["energy, elements fitted"].mae < 0.2 * scores["energy"].mae


def test_a_file_of_ones_own_is_judged(tmp_path, properties):
    frames = [atoms_of(crystal) for crystal in made_up()]
    for frame, gap in zip(frames, [0.0, 5.0, 3.2, 1.1], strict=True):
        frame.info["band_gap"] = gap
    write(tmp_path / "mine.extxyz", frames)
    scores = evaluate(
        properties, tmp_path / "mine.extxyz", split=None, out=tmp_path, progress=False
    )
    told = [row["band_gap"] for row in properties.predict(frames)]
    expected = np.abs(np.array(told) - [0.0, 5.0, 3.2, 1.1]).mean()
    assert scores["band_gap"].mae == pytest.approx(expected, rel=1e-4)
    assert set(scores) == {"band_gap"}


def test_a_public_data_set_is_judged_by_its_name(tmp_path, properties):
    rows = list(load("matbench-log-kvrh", SAMPLES))
    settings: dict[str, Any] = {"split": None, "out": tmp_path, "progress": False}
    scores = evaluate(properties, "matbench-log-kvrh", data_dir=SAMPLES, **settings)
    told = [row["bulk_modulus"] for row in properties.predict([atoms_of(row) for row in rows])]
    label = [row.labels["bulk_modulus"] for row in rows]
    assert scores["bulk_modulus"].n == len(rows) > 10
    expected = np.abs(np.log10(np.array(told) / label)).mean()
    assert scores["log10 bulk_modulus"].mae == pytest.approx(expected, rel=1e-3)
    with pytest.raises(MissingData, match="Name the folder"):
        evaluate(properties, "matbench-log-kvrh", **settings)


def test_what_cannot_be_judged_is_told(tmp_path, properties, caplog):
    packed_set(made_up(band_gap=1.0), tmp_path / "set", *TARGETS)
    with pytest.raises(MissingData, match=r"is of split test; it has train 4\."):
        evaluate(properties, tmp_path / "set", split="test", out=tmp_path, progress=False)
    packed_set(made_up(), tmp_path / "bare", *TARGETS)
    with pytest.raises(MissingData, match="no label to judge"):
        evaluate(properties, tmp_path / "bare", split=None, out=tmp_path, progress=False)
    properties.card = replace(Card(), elements=(8, 22, 30, 38))
    scores = evaluate(properties, tmp_path / "set", split=None, out=tmp_path, progress=False)
    assert scores["band_gap"].n == 2
    assert "Left out 2 crystals with elements the model never saw" in caplog.text
    other = CrystalModel("crystalformer", MODEL | {"cutoff": 5.0}, targets=properties.targets)
    with pytest.raises(BadRecipe, match="was packed with"):
        evaluate(other, tmp_path / "set", split=None, out=tmp_path, progress=False)
