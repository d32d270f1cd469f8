"""Potentials learn from held-out crystals which errors to expect, and their cards say how well."""

import gzip
import json
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import write
from factories import calibrated_potential, tiny_potential, tiny_properties
from small_runs import crystals_with_forces, packed_set, potential_recipe
from typer.testing import CliRunner

from ase_crystalformer.cli import app
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import pack
from ase_crystalformer.data.readers import load
from ase_crystalformer.errors import MissingData, NoForces
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.neighbours import Radius
from ase_crystalformer.training import expected_errors
from ase_crystalformer.training.build import build_model
from ase_crystalformer.training.calibration import calibrate, training_sample
from ase_crystalformer.training.held_out import judge, standing

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Real frames, none of them trained on."""
    frames = [*load("mlearn", SAMPLES), *load("mp_perturbed_sevennet", SAMPLES)]
    frames = [frame.in_group("mp") for frame in frames]  # energies are those of random weights
    folder = tmp_path_factory.mktemp("calibration") / "set"
    pack([frame.in_split("val") for frame in frames], Radius(4.0), folder, labels=["energy"])
    return PackedCrystals(folder)


@pytest.fixture(scope="module")
def potential():
    model = tiny_potential()
    model.card = replace(model.card, elements=())
    model.energy_scale = "mp"
    return model


@contextmanager
def quickly():
    """For what does not need a good fit."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FORCE_EPOCHS", "ENERGY_EPOCHS", "LEAST_STEPS"):
            patch.setattr(expected_errors, name, 20 if name == "LEAST_STEPS" else 1)
        yield


@pytest.fixture
def few_steps():
    with quickly():
        yield


@pytest.fixture(scope="module")
def calibrated(potential, held_out):
    with quickly():
        return calibrate(potential, held_out.folder, progress=False)


def test_frames_of_one_crystal_stand_together_and_runs_are_cut(held_out):
    place = standing(held_out, np.arange(len(held_out)), seed=0)
    by_parent = {}
    for name, where in zip(held_out.ids, place.tolist(), strict=True):
        by_parent.setdefault(name.rpartition("/")[0], []).append(where)
    for places in by_parent.values():
        assert len(set(places)) == 1 or places == sorted(places)
    assert any(len(set(places)) > 1 for places in by_parent.values())
    single = [places[0] for places in by_parent.values() if len(set(places)) == 1]
    assert len(set(single)) > 1
    assert (place >= 0).all()
    assert (place < 1).all()


@pytest.mark.parametrize("file", ["", "md.extxyz#", "/runs/md.extxyz#"])
def test_rows_without_names_are_runs_of_their_atoms(file, tmp_path):
    """Neighbours in time must not lie in both halves."""
    aluminium, *_, oxide = list(load("eos_vasp_pbe", SAMPLES))[:8]
    frames = [aluminium] * 14 + [oxide] * 14
    named = [replace(frame, id=f"{file}{n}", split="val") for n, frame in enumerate(frames)]
    pack(named, Radius(4.0), tmp_path / "set", labels=["energy"])
    place = standing(PackedCrystals(tmp_path / "set"), np.arange(len(named)), seed=0)
    evenly = (np.arange(14) + 0.5) / 14
    np.testing.assert_allclose(place, [*evenly, *evenly], atol=1e-6)


def test_halves_do_not_follow_from_what_was_held_out(held_out, monkeypatch):
    """CRCs of names with two prefixes differ by a constant; halves must not."""
    from ase_crystalformer.data.holdout import split_by_name

    names = [f"mp-{number}/1" for number in range(100_000, 120_000)]
    monkeypatch.setattr(
        held_out, "ids", [n for n in names if split_by_name(n[:-2], 20261120) == "val"]
    )
    count = len(held_out.ids)
    monkeypatch.setitem(held_out.arrays, "source", np.zeros(count, dtype=int))
    place = standing(held_out, np.arange(count), seed=0)
    assert np.histogram(place, 4, (0, 1))[0] == pytest.approx(count / 4, rel=0.2)


def test_training_frames_are_drawn_until_every_element_is_known(held_out, monkeypatch):
    split = np.zeros(len(held_out), dtype=int)
    monkeypatch.setitem(held_out.arrays, "split", split)
    chosen = training_sample(held_out, seed=0)
    species = np.split(held_out.arrays["species"], held_out.atom_start[1:])
    assert set(np.concatenate([species[n] for n in chosen])) == set(np.concatenate(species))
    monkeypatch.setattr("ase_crystalformer.training.calibration.PER_ELEMENT", 1)
    assert len(training_sample(held_out, seed=0)) < len(chosen)


def test_only_the_uncertainty_is_new(calibrated, potential, wurtzite):
    [before], [after] = potential.predict([wurtzite]), calibrated.model.predict([wurtzite])
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)
    assert after["forces_uncertainty"].shape == (4,)
    assert potential.uncertainty is None


def test_the_card_tells_how_well_it_does(calibrated):
    told = json.loads(json.dumps(calibrated.model.card.uncertainty))
    forces, energy = calibrated.compared
    assert told["forces"]["n"] == len(forces.error) > 100
    assert told["energy"]["n"] == len(energy.error) > 5
    assert told["forces"]["mean_error"] == pytest.approx(forces.error.mean(), rel=1e-3)
    assert set(told["forces"]["by_element"]) >= {"Li"}
    assert told["novelty"]["inside"]["atoms"] > 100


def test_the_head_is_scaled_by_the_half_that_it_was_not_fitted_to(calibrated):
    head = calibrated.model.uncertainty
    forces, energy = calibrated.compared
    assert float(head.force_scale) == pytest.approx(forces.scale, rel=1e-5)
    assert float(head.energy_scale) == pytest.approx(energy.scale, rel=1e-5)


@pytest.mark.usefixtures("few_steps")
def test_calibration_is_repeatable(calibrated, potential, held_out):
    again = calibrate(potential, held_out.folder, progress=False)
    for one, other in zip(
        calibrated.model.uncertainty.state_dict().values(),
        again.model.uncertainty.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("few_steps")
def test_the_command_writes_model_card_and_plot(tmp_path, monkeypatch, potential, held_out):
    monkeypatch.chdir(tmp_path)
    potential.save("model")
    told = CliRunner().invoke(
        app, ["calibrate", "./model", str(held_out.folder), "-o", "new/model"]
    )
    assert told.exit_code == 0, told.output
    assert "miscalibration" in told.output
    assert Path("new/model-calibration.png").read_bytes()[:4] == b"\x89PNG"
    assert CrystalModel.load("new/model").card.uncertainty["forces"]["n"] > 100


@pytest.mark.usefixtures("few_steps")
def test_files_without_parts_are_held_out_as_a_whole(potential, held_out, caplog, tmp_path):
    samples = [SAMPLES / f"{name}.extxyz.gz" for name in ("mlearn", "monbtaw")]
    text = "".join(gzip.decompress(sample.read_bytes()).decode() for sample in samples)
    file = tmp_path / "mine.extxyz"
    file.write_text(text)  # all of it to train on
    with pytest.raises(MissingData, match="none that is held out"):
        calibrate(potential, file, progress=False)
    file.write_text(text.replace("split=train", ""))
    found = calibrate(potential, file, progress=False)
    assert "count as held out" in caplog.text
    assert found.model.card.uncertainty["forces"]["n"] > 50


def test_too_little_is_refused(potential, tmp_path):
    packed_set([c.in_split("val") for c in crystals_with_forces()], tmp_path, "energy")
    with pytest.raises(MissingData, match="too few"):
        calibrate(potential, tmp_path, progress=False)


@pytest.mark.parametrize(
    ("split", "told"),
    [("", "holds out 1 energies"), ("train", "has a part to train on and none that is held out")],
)
def test_messages_name_the_file_and_not_where_it_is_packed(
    potential, fcc, tmp_path, caplog, split, told
):
    fcc.info.update({"energy": -1.0, **({"split": split} if split else {})})
    write(tmp_path / "mine.extxyz", fcc)
    with pytest.raises(MissingData, match=rf"^{tmp_path}/mine\.extxyz {told}"):
        calibrate(potential, tmp_path / "mine.extxyz", progress=False)
    assert "packed" not in caplog.text
    assert ("mine.extxyz has no split" in caplog.text) is (split == "")


def test_energies_of_another_scale_are_none(potential, held_out, tmp_path):
    frames = [*load("mlearn", SAMPLES)][:6] + [*load("mp_perturbed_sevennet", SAMPLES)][:5]
    pack(frames, Radius(4.0), tmp_path / "set", labels=["energy"])
    packed = PackedCrystals(tmp_path / "set")
    judged = judge(potential, packed, np.arange(11), scale="mp", seed=0, progress=False)
    np.testing.assert_array_equal(judged.energy_error.isfinite(), [False] * 6 + [True] * 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(potential, "energy_scale", "elsewhere")
        with pytest.raises(MissingData, match="holds out 0 energies"):
            calibrate(potential, held_out.folder, progress=False)


def test_property_models_are_refused(tmp_path):
    with pytest.raises(NoForces):
        calibrate(tiny_properties(), tmp_path)


def test_training_on_drops_an_uncertainty_that_is_none_any_more(tmp_path):
    packed = packed_set(crystals_with_forces(), tmp_path / "set", "energy")
    start = calibrated_potential()
    start.card = replace(start.card, elements=())
    start.save(tmp_path / "start")
    same = asdict(start.encoder.config)
    recipe = potential_recipe(tmp_path / "set", start=str(tmp_path / "start"), model=same)
    model = build_model(recipe, packed, packed.where("train"))
    assert model.uncertainty is None
