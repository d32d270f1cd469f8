"""Sets that change under a run, runs cut off early, labels that cannot be: told, never mixed up."""

import json
from dataclasses import replace

import numpy as np
import pytest
from factories import tiny_potential
from small_runs import (
    RULE,
    TARGETS,
    crystals_with_properties,
    made_up,
    packed_set,
    potential_recipe,
    property_recipe,
)

from ase_crystalformer.data.files import read_file
from ase_crystalformer.data.holdout import split_by_fold
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import pack, remove_packed
from ase_crystalformer.errors import BadRecipe, MissingData
from ase_crystalformer.leaderboards import judged
from ase_crystalformer.leaderboards.runs import open_run
from ase_crystalformer.training.build import build_model
from ase_crystalformer.training.calibration import calibrate
from ase_crystalformer.training.config import read_recipe
from ase_crystalformer.training.evaluate import evaluate
from ase_crystalformer.training.fitting import SHORT, typical_force
from ase_crystalformer.training.run import fit


@pytest.fixture
def done(tmp_path):
    """A recipe, and the folder of its run of two epochs."""
    packed_set(crystals_with_properties(), tmp_path / "packed", *TARGETS)
    recipe = property_recipe(tmp_path / "packed")
    fit(recipe, tmp_path / "run", progress=False)
    return recipe, tmp_path / "run"


def cut_off(run, epochs):
    """Let a run seem killed before its first checkpoint, with a model of so many epochs."""
    (run / "checkpoints" / "last.ckpt").unlink()
    told = json.loads((run / "model.json").read_text())
    told["card"]["training"]["epochs"] = epochs
    (run / "model.json").write_text(json.dumps(told))


def test_a_run_cut_off_before_its_first_checkpoint_begins_anew(done, caplog):
    recipe, run = done
    cut_off(run, epochs=1)
    model = fit(recipe, run, resume=True, progress=False)
    assert model.card.training["epochs"] == 2
    assert "before its first checkpoint, and begins anew" in caplog.text


def test_a_finished_run_without_checkpoint_is_not_begun_anew(done):
    recipe, run = done
    cut_off(run, epochs=2)
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(BadRecipe, match="no checkpoint to continue from"):
        fit(recipe, run, resume=True, progress=False)
    assert (run / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("told", [{"epochs": 3}, {"hours": 100.0}], ids=str)
def test_a_model_whose_checkpoint_was_lost_is_not_replaced(done, told):
    """Whether more epochs are asked for, or fewer were made than it was begun for."""
    recipe, run = done
    cut_off(run, epochs=2)
    if "hours" in told:
        card = json.loads((run / "model.json").read_text())
        card["card"]["training"] |= {"epochs": 1, **told}
        (run / "model.json").write_text(json.dumps(card))
    before = (run / "model.safetensors").read_bytes()
    epochs = told.get("epochs", recipe.optim.epochs)
    with pytest.raises(BadRecipe, match="no checkpoint to continue from"):
        fit(replace(recipe, optim=replace(recipe.optim, epochs=epochs)), run, resume=True)
    assert (run / "model.safetensors").read_bytes() == before


def test_fewer_epochs_than_are_done_are_refused_and_the_record_stays(done):
    recipe, run = done
    before = (run / "recipe.json").read_text()
    with pytest.raises(BadRecipe, match=r"has made 2 epochs, and optim\.epochs is 1"):
        fit(replace(recipe, optim=replace(recipe.optim, epochs=1)), run, resume=True)
    assert (run / "recipe.json").read_text() == before


def test_a_run_does_not_go_on_with_other_labels(done):
    recipe, run = done
    more = replace(recipe, optim=replace(recipe.optim, epochs=3))
    moved = [
        row.labelled({name: value + 100 for name, value in row.labels.items() if name in TARGETS})
        for row in crystals_with_properties()
    ]
    remove_packed(recipe.data.packed)
    packed_set(moved, recipe.data.packed, *TARGETS)
    with pytest.raises(BadRecipe, match=r"is not the set the run in .* began with"):
        fit(more, run, resume=True, progress=False)
    packed_set(crystals_with_properties(), recipe.data.packed, *TARGETS)
    assert fit(more, run, resume=True, progress=False).card.training["epochs"] == 3


def test_crystals_of_one_name_are_all_judged(done):
    recipe, run = done
    named = [replace(row, id="AB2") for row in crystals_with_properties()]
    packed_set(named, recipe.data.packed, *TARGETS)
    by_name = {one.target.name: one for one in judged.judge(run, "val", progress=False)}
    packed = PackedCrystals(recipe.data.packed)
    labels = packed.label("band_gap")[packed.where("val")]
    assert len(by_name["band_gap"].labels) == np.isfinite(labels).sum() > 1
    assert by_name["band_gap"].ids[0] == f"AB2 (1 of {len(labels)})"
    assert np.allclose(by_name["band_gap"].labels, labels[np.isfinite(labels)])


def test_what_is_kept_of_a_run_outlives_its_packed_set(done):
    recipe, run = done
    before = judged.judge(run, "val", progress=False)
    remove_packed(recipe.data.packed)
    assert [one.score for one in judged.judge(run, "val")] == [one.score for one in before]
    (run / "predicted-val.json").unlink()
    with pytest.raises(MissingData, match="which is not there"):
        judged.judge(run, "val")


def test_runs_that_may_only_be_read_are_judged(done, monkeypatch, caplog):
    def refuse(*args):
        raise PermissionError("read-only")

    monkeypatch.setattr(judged, "write_json", refuse)
    assert judged.judge(done[1], "val", progress=False)
    assert "are not kept: read-only" in caplog.text


def test_a_run_is_judged_by_what_its_recipe_leaves_in(done):
    recipe, run = done
    told = json.loads((run / "recipe.json").read_text())
    whole = len(open_run(run, "val").which)
    judged.judge(run, "val", progress=False)
    told["data"]["largest_crystal"] = 2
    (run / "recipe.json").write_text(json.dumps(told))
    atoms = PackedCrystals(recipe.data.packed).arrays["atoms"]
    kept = open_run(run, "val").which
    assert len(kept) < whole
    assert (np.asarray(atoms)[kept] <= 2).all()
    again = judged.judge(run, "val", progress=False)  # not what was kept of the whole part
    assert max(len(one.ids) for one in again) <= len(kept)


def test_a_stress_without_a_volume_is_no_label(tmp_path):
    (bulk, *_) = made_up(energy=1.0, stress=np.eye(3))
    molecule = replace(bulk, cell=np.zeros((3, 3)), periodic=np.zeros(3, dtype=bool))
    packed = packed_set([bulk, molecule], tmp_path / "packed", "energy")
    assert np.array_equal(packed.arrays["stress"][0], np.eye(3))
    assert np.isnan(packed.arrays["stress"][1]).all()


def test_a_set_without_the_labels_of_a_model_is_named(tmp_path):
    packed_set(crystals_with_properties(), tmp_path / "packed", *TARGETS)
    model = fit(property_recipe(tmp_path / "packed"), tmp_path / "run", progress=False)
    packed_set(crystals_with_properties(), tmp_path / "gaps", "band_gap")
    scores = evaluate(model, tmp_path / "gaps", split=None, out=tmp_path / "out", progress=False)
    assert set(scores) == {"band_gap"}
    packed_set(crystals_with_properties(), tmp_path / "other", "energy_above_hull")
    with pytest.raises(MissingData, match=r"labels energy_above_hull; 'small' is judged by form"):
        evaluate(model, tmp_path / "other", split=None, out=tmp_path / "out", progress=False)
    potential = tiny_potential(cutoff=RULE.cutoff)
    with pytest.raises(MissingData, match=r"labels band_gap; .* is judged by energy"):
        calibrate(potential, tmp_path / "gaps", progress=False)


def test_crystals_in_no_part_are_said_to_be_all(tmp_path):
    rows = [replace(row, split=None) for row in crystals_with_properties()]
    packed_set(crystals_with_properties(), tmp_path / "packed", *TARGETS)
    model = fit(property_recipe(tmp_path / "packed"), tmp_path / "run", progress=False)
    packed_set(rows, tmp_path / "none", *TARGETS)
    scores = evaluate(model, tmp_path / "none", split="val", out=tmp_path / "out", progress=False)
    assert scores["band_gap"].on == "all"


def test_every_fold_has_a_folder_of_its_own_whatever_is_overridden(tmp_path):
    (tmp_path / "r.toml").write_text(
        'encoder = "crystalformer"\ntargets = ["band_gap"]\n[data]\npacked = "packed"\n'
    )
    told = ["name='another'", "data.packed='mine'"]
    read = [read_recipe(tmp_path / "r.toml", told, fold=fold) for fold in range(5)]
    assert [one.name for one in read] == [f"another-fold-{fold}" for fold in range(5)]
    assert [one.data.packed.name for one in read] == [f"mine-fold-{fold}" for fold in range(5)]
    assert read_recipe(tmp_path / "r.toml", told).name == "another"


def test_yes_and_no_of_a_table_are_labels(tmp_path):
    from pymatgen.core import Lattice, Structure

    structure = Structure(Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    text = json.dumps(structure.as_dict()).replace('"', '""')
    rows = [f'"{text}",{told}' for told in ("True", "false", "1", "")]
    (tmp_path / "t.csv").write_text("structure,is_metal\n" + "\n".join(rows))
    read = [row.labels.get("is_metal") for row in read_file(tmp_path / "t.csv")]
    assert read == [1.0, 0.0, 1.0, None]


def test_folds_may_be_blank_or_written_as_decimals():
    rows = [
        replace(row, info={"fold_test": told})
        for row, told in zip(made_up(energy=0.0), ("0.0", "1", " ", "None"), strict=True)
    ]
    split = list(split_by_fold(rows, 0, seed=0))
    assert [row.split == "test" for row in split] == [True, False]
    with pytest.raises(BadRecipe, match="made-up/0 is said to be of fold 'third'"):
        list(split_by_fold([replace(rows[0], info={"fold_test": "third"})], 0, seed=0))


def test_a_set_is_known_again_by_what_is_in_it(tmp_path):
    rows = made_up(energy=1.0)
    first = packed_set(rows, tmp_path / "first", "energy").fingerprint()
    pack(rows, RULE, tmp_path / "again", labels=["energy"], remembered={"source": {"a": 1}})
    assert PackedCrystals(tmp_path / "again").fingerprint() == first
    (row, *rest) = rows
    pushed = row.labelled({"energy": 1.0, "forces": np.ones((row.atoms, 3))})
    moved = replace(row, positions=row.positions + np.array([0.01, 0, 0]))
    for number, other in enumerate([pushed, moved]):
        packed = packed_set([other, *rest], tmp_path / f"other-{number}", "energy")
        assert packed.fingerprint() != first


def test_forces_scale_a_network_whose_energies_are_explained_by_composition(tmp_path):
    (row, *_) = made_up(energy=1.0)
    forces = np.random.default_rng(0).normal(size=(row.atoms, 3))
    row = row.labelled({"energy": 1.0, "forces": forces})
    pack([row], RULE, tmp_path / "one", labels=["energy"])
    packed = PackedCrystals(tmp_path / "one")
    train = packed.where("train")
    model = build_model(potential_recipe(tmp_path / "one"), packed, train)
    force = np.sqrt((forces**2).mean())
    assert typical_force(packed, train) == pytest.approx(force)
    assert float(model.head.scale) == pytest.approx(SHORT * force)
