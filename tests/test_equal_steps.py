"""The comparison of encoders after equal steps: every encoder is in it, and it runs."""

import json

import numpy as np
import pytest
from small_runs import SAMPLES

from ase_crystalformer.data.readers import load
from ase_crystalformer.encoders import ENCODERS
from ase_crystalformer.mixer import make_encoder
from benchmarks import equal_steps


def test_every_encoder_is_compared():
    told = {size.get("encoder", name) for name, size in equal_steps.ENCODERS.items()}
    assert told == set(ENCODERS)


@pytest.mark.parametrize("name", equal_steps.ENCODERS)
@pytest.mark.parametrize("data_set", equal_steps.SETS)
def test_every_encoder_reads_the_same_graphs(tmp_path, name, data_set):
    chosen = equal_steps.recipe(name, data_set, 0, tmp_path, SAMPLES)
    assert make_encoder(chosen.encoder, chosen.model).rule.cutoff == equal_steps.TOLD["cutoff"]


def costs_here(out, data):
    """Measure in this process: starting another takes as long as all the rest."""
    chosen = {
        name: equal_steps.recipe("crystalformer", name, 0, out, data) for name in equal_steps.SETS
    }
    return {name: {"crystalformer": equal_steps.cost(one)} for name, one in chosen.items()}


def test_a_comparison_from_crystals_to_table(tmp_path, monkeypatch, capsys):
    small = {"cutoff": 5.0, "width": 16, "heads": 2, "blocks": 1, "feedforward": 16, "basis": 8}
    monkeypatch.setattr(equal_steps, "ENCODERS", {"crystalformer": small})
    monkeypatch.setattr(equal_steps, "HERE", tmp_path)
    for data_set in equal_steps.SETS:
        equal_steps.train("crystalformer", data_set, 0, tmp_path, SAMPLES)
    said = capsys.readouterr().out
    equal_steps.train("crystalformer", "monbtaw", 0, tmp_path, SAMPLES)
    assert "monbtaw-crystalformer-0" in said
    assert not capsys.readouterr().out  # it is done already
    monkeypatch.setattr(equal_steps, "costs", costs_here)
    equal_steps.write(tmp_path, SAMPLES)
    page = (tmp_path / "equal_steps.md").read_text()
    told = json.loads((tmp_path / "equal_steps.json").read_text())
    error = told["errors"]["monbtaw"]["crystalformer"][0]["forces"]
    assert f"{1000 * error:.3g}" in page
    assert told["costs"]["monbtaw"]["crystalformer"]["train_us"] > 0


def test_a_turned_crystal_is_the_same_crystal():
    frame = next(iter(load("monbtaw", SAMPLES)))
    turned = equal_steps.turn(frame)
    assert not np.allclose(frame.cell, turned.cell)
    for one, other in ((frame.cell, turned.cell), (frame.positions, turned.positions)):
        np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-9)
    forces, stress = (np.asarray(frame.labels[name]) for name in ("forces", "stress"))
    np.testing.assert_allclose(turned.labels["forces"] @ turned.cell.T, forces @ frame.cell.T)
    strain = turned.cell @ turned.labels["stress"] @ turned.cell.T
    np.testing.assert_allclose(strain, frame.cell @ stress @ frame.cell.T, atol=1e-12)
