"""Searches compare like with like; what cannot be told, continued or handed in is named."""

import json

import pytest
import torch
from small_runs import (
    TARGETS,
    crystals_with_forces,
    crystals_with_properties,
    packed_set,
    potential_recipe,
    property_recipe,
)
from test_leaderboard_jarvis import NAMES, ROWS, make_run
from typer.testing import CliRunner

from ase_crystalformer.cli import app
from ase_crystalformer.errors import BadModelFile, BadRecipe
from ase_crystalformer.leaderboards import contribution
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.optimizers import SHIFT_RATE
from ase_crystalformer.training.rate_finder import find_rate
from ase_crystalformer.training.record import checkpoint_of, write_record
from ase_crystalformer.training.run import fit
from ase_crystalformer.training.sweep import read_space, sweep

RECIPE = """
targets = ["band_gap"]
[data]
packed = "somewhere"
[model]
cutoff = 4.0
width = 16
heads = 2
[optim]
epochs = 3
"""

SPACE = '"optim.peak_lr" = [1e-3, 1e-2]\n"model.width" = [16, 32]\n'


@pytest.fixture
def recipe(tmp_path):
    """A recipe file; its data are not there."""
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def space(tmp_path):
    """A file of what may be chosen."""
    path = tmp_path / "space.toml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def fits(monkeypatch):
    """Stands for training; runs whose names are listed fail."""
    pytest.importorskip("optuna")
    failing = []

    def fit(recipe, folder, *, progress, callbacks):
        if folder.name in failing:
            raise BadRecipe("this one fails")
        callbacks[0].trial.report(recipe.optim.peak_lr, 0)

    monkeypatch.setattr("ase_crystalformer.training.sweep.fit", fit)
    return failing


@pytest.mark.parametrize(
    "entry",
    [
        '"model.cutoff" = [4.0, 4.5]',
        '"model.cutoff" = { low = 3.0, high = 5.0 }',
        '"model.mode" = ["smooth", "paper"]',
    ],
)
def test_what_needs_other_graphs_cannot_be_searched_for(recipe, space, tmp_path, fits, entry):
    space.write_text(f"{entry}\n")
    key = entry.split('"')[1].replace(".", r"\.")
    encoder = ["encoder='ecomformer'", "model={cutoff=4.0}"]
    with pytest.raises(BadRecipe, match=rf"^{key} cannot .*other graphs.*data\.packed"):
        sweep(recipe, space, tmp_path / "study", trials=4, overrides=encoder)
    assert not (tmp_path / "study").exists()


def test_models_of_other_graphs_to_start_from_cannot_be_searched_for(space, tmp_path, fits):
    for cutoff in (4.0, 5.0):
        config = {"width": 8, "heads": 2, "layers": 1, "cutoff": cutoff}
        CrystalModel("et", config, targets=[]).save(tmp_path / f"{cutoff}")
    bare = tmp_path / "bare.toml"
    bare.write_text(f'targets = ["band_gap"]\n[data]\npacked = "{tmp_path}/p"\n')
    space.write_text(f'"start_encoder" = ["{tmp_path}/4.0", "{tmp_path}/5.0"]\n')
    with pytest.raises(BadRecipe, match=r"^start_encoder cannot .*other graphs"):
        sweep(bare, space, tmp_path / "study", trials=2)


def test_encoders_of_the_same_graphs_may_be_compared(recipe, space, tmp_path, fits):
    space.write_text('"encoder" = ["crystalformer", "ecoformer"]\n"model.width" = [16, 7]\n')
    told = {"trials": 2, "overrides": ["model={cutoff=4.0}"]}
    assert sweep(recipe, space, tmp_path / "study", **told).finished == 2


@pytest.mark.parametrize(
    "key",
    [
        *("energy.force", "energy.force_knee", "weights.band_gap", "loss", "kinds.band_gap"),
        *("denoise.weight", "targets", "data.packed", "data.largest_crystal"),
    ],
)
def test_what_runs_are_judged_by_cannot_be_searched_for(space, key):
    space.write_text(f'{SPACE}"{key}" = [0.01, 2.0]')
    with pytest.raises(BadRecipe, match=rf"toml: {key} cannot be searched for"):
        read_space(space)


def test_names_that_only_begin_alike_can_be_searched_for(space):
    space.write_text('"data.share.mp" = [0.5, 1.0]\n"data.largest_one" = [1, 2]')
    assert list(read_space(space)) == ["data.share.mp", "data.largest_one"]


@pytest.mark.parametrize(
    ("override", "choices", "named"),
    [
        ([], SPACE.replace("32]", "64]"), r"space\.model\.width"),
        ([], SPACE + '"seed" = [0, 1]', r"space\.seed"),
        (["optim.epochs=5"], SPACE, r"recipe\.optim\.epochs"),
        (["data.packed='other'"], SPACE, r"recipe\.data\.packed"),
        (["machine.precision='bf16-mixed'"], SPACE, r"recipe\.machine\.precision"),
    ],
)
def test_a_study_goes_on_with_its_own_recipe_and_space(
    recipe, space, tmp_path, fits, override, choices, named
):
    first = sweep(recipe, space, tmp_path / "study", trials=1)
    space.write_text(choices)
    with pytest.raises(BadRecipe, match=rf"began with another {named}\. Go on"):
        sweep(recipe, space, tmp_path / "study", trials=2, overrides=override)
    space.write_text(SPACE)
    elsewhere = ["machine.workers=3", "data.directory='d'", "name='other'"]
    assert sweep(recipe, space, tmp_path / "study", trials=1, overrides=elsewhere) == first


def test_failed_trials_are_told_apart_and_made_up_for(recipe, space, tmp_path, fits):
    fits += ["trial-001", "trial-002"]
    command = ["sweep", str(recipe), str(space), "--trials", "4", "-o", str(tmp_path / "study")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("best of 2 (2 more failed): validation loss")
    again = sweep(recipe, space, tmp_path / "study", trials=4)
    assert (again.finished, again.failed) == (4, 2)
    told = json.loads((tmp_path / "study" / "best.json").read_text())
    assert (told["finished"], told["failed"]) == (4, 2)


def test_too_few_batches_for_a_step_are_named(tmp_path):
    packed_set(crystals_with_properties(), tmp_path / "set", *TARGETS)
    recipe = property_recipe(tmp_path / "set", optim={"budget": 10**6, "accumulate": 3})
    with pytest.raises(BadRecipe, match=r"1 batches, fewer than optim\.accumulate = 3"):
        find_rate(recipe, steps=20, progress=False)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_energy_references_keep_their_faster_rate_in_a_search(tmp_path, monkeypatch, optimizer):
    packed_set(crystals_with_forces(), tmp_path / "set", "energy")
    step, seen = torch.optim.AdamW.step, []

    def remember(self, closure=None):
        loss = step(self, closure)
        seen.append([group["lr"] for group in self.param_groups])
        return loss

    monkeypatch.setattr(torch.optim.AdamW, "step", remember)
    recipe = potential_recipe(tmp_path / "set", optim={"budget": 10**6, "optimizer": optimizer})
    found = find_rate(recipe, steps=20, progress=False)
    assert [rates[0] for rates in seen] == pytest.approx(found.rates[: len(seen)])
    assert [rates[-1] / rates[0] for rates in seen] == pytest.approx([SHIFT_RATE] * len(seen))


@pytest.mark.parametrize("damage", [lambda x: x[: len(x) // 2], lambda _: b"", None])
def test_a_damaged_checkpoint_is_named(properties, tmp_path, damage):
    recipe = property_recipe(properties, optim={"epochs": 1})
    fit(recipe, tmp_path, progress=False)
    path = checkpoint_of(tmp_path)
    content = path.read_bytes()
    middle = len(content) // 2
    altered = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes(damage(content) if damage else altered)
    with pytest.raises(BadModelFile, match=r"last\.ckpt is damaged.*without --resume"):
        fit(recipe, tmp_path, resume=True, progress=False)
    assert not (tmp_path / "metrics.1.csv").exists()


@pytest.mark.parametrize("text", ['{"name": "sma', "", "null", "[1]"])
def test_a_damaged_recipe_of_a_run_is_named(recipe, tmp_path, text):
    run = tmp_path / "runs" / "small"
    write_record(property_recipe(tmp_path / "set"), run)
    (run / "recipe.json").write_text(text)
    for told in (["train", str(recipe), "--resume"], ["table"]):
        done = CliRunner().invoke(app, [*told, str(run)])
        assert done.exit_code == 1
        assert isinstance(done.exception, SystemExit)
        assert "recipe.json is damaged" in done.output


@pytest.mark.parametrize("name", ["mine-4", "JVASP-", "JVASP-4/1"])
def test_crystals_that_are_not_of_jarvis_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.delattr(contribution, "outcomes_of")
    run = make_run(tmp_path, "gap", names=(*NAMES[:-1], name), band_gap=[1.0 + row for row in ROWS])
    command = ["contribute", str(run), "--to", "jarvis", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert f"of which 1 are none of JARVIS-DFT, e.g. '{name}'" in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()
