"""What users' recipes and files do to training: told by name, before or instead of a wrong run."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from small_runs import MODEL, crystals_with_forces, packed_set, potential_recipe, property_recipe

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.defaults import ALONE
from ase_crystalformer.training.finetuning import finetune
from ase_crystalformer.training.optimizers import make_optimizer
from ase_crystalformer.training.prepare import prepare
from ase_crystalformer.training.run import fit
from ase_crystalformer.training.settings import Machine, Optim
from ase_crystalformer.training.surroundings import accelerator_of


@pytest.fixture
def frames(tmp_path):
    """A run of 40 frames; every fifth did not converge, and the last two are one."""
    atoms, told = bulk("Cu", cubic=True), []
    random = np.random.default_rng(0)
    for number in range(40):
        atoms.positions += 0.02 * random.normal(size=(4, 3)) * (number != 39)
        frame = atoms.copy()
        frame.calc = EMT()
        known = {"energy": frame.get_potential_energy(), "forces": frame.get_forces()}
        frame.calc = SinglePointCalculator(frame, **known)
        frame.info["converged"] = number % 5 != 0
        told.append(frame)
    write(tmp_path / "md.extxyz", told)
    return tmp_path / "md.extxyz"


def recipe_of(frames, **sections):
    data = {"source": str(frames), **sections.pop("data", {})}
    return potential_recipe(frames.parent / "packed", data=data, **sections)


def test_one_file_of_a_potential_is_split_in_runs_like_a_list(frames):
    packed = prepare(recipe_of(frames))
    assert len(packed) == 40 - 8 - 1
    held_out = np.sort(packed.where("val"))
    assert 1 <= len(held_out) <= 4
    assert np.ptp(held_out) == len(held_out) - 1
    assert packed.meta["source"] == {"md.extxyz": frames.stat().st_size}


@pytest.mark.parametrize(
    "changed", [{"hold_out": 0.5}, {"replay": 1.0}, {"largest": {"md": 3}}], ids=str
)
def test_a_set_packed_by_other_entries_is_refused(frames, changed):
    prepare(recipe_of(frames))
    with pytest.raises(BadRecipe, match=rf"packed with another data\.{next(iter(changed))}"):
        prepare(recipe_of(frames, data=changed))
    kept = recipe_of(frames, data=changed)
    prepare(replace(kept, data=replace(kept.data, source=None)))


def test_a_packed_set_of_another_source_is_refused_and_a_changed_one_told(frames, caplog):
    prepare(recipe_of(frames))
    prepare(recipe_of(frames))
    assert "has changed since" not in caplog.text
    other = frames.rename(frames.with_name("other.extxyz"))
    with pytest.raises(BadRecipe, match=r"packed from md\.extxyz, but data\.source is other"):
        prepare(recipe_of(other))
    frames.write_text(other.read_text()[:-1])
    prepare(recipe_of(frames))
    assert "md.extxyz has changed since" in caplog.text


def test_weights_of_labels_that_are_not_there_are_told(frames, caplog):
    frames.write_text(frames.read_text().replace("forces:R:3", "REF_forces:R:3"))
    fit(recipe_of(frames, optim={"epochs": 1}), frames.parent / "run", progress=False)
    assert "holds no forces: its weight in [energy] does nothing" in caplog.text
    assert "holds no stress" in caplog.text


def test_a_run_that_nothing_judges_says_so(frames, caplog):
    recipe = recipe_of(frames, data={"hold_out": 0.0}, optim={"epochs": 1})
    fit(recipe, frames.parent / "run", progress=False)
    assert "no crystal that judges" in caplog.text


def test_sizes_of_sources_that_are_not_there_are_told(frames, caplog):
    prepare(recipe_of(frames, data={"largest": {"mine": 3}}))
    assert "data.largest names mine, of which nothing was read; there is own" in caplog.text


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"energy": {}, "weights": {"energy": 3.0}}, "weights are of properties"),
        ({"energy": {}, "kinds": {"band_gap": "linear"}}, "kinds are of properties"),
        ({"energy": {}, "pooling": {"band_gap": "mean"}}, "pooling are of properties"),
        ({"energy": {}, "loss": "squared"}, "loss are of properties"),
        ({"denoise": {}, "pooling": {"band_gap": "attention"}}, "this recipe learns none"),
        ({"energy": {"energy": 0.0, "force": 0.0, "stress": 0.0}}, "nothing would be learned"),
        ({"targets": ["band_gap"], "data": {"packed": "p", "replay": 4}}, "replay is of pot"),
        ({"energy": {}, "data": {"packed": "p", "source": ["a"], "fold": 1}}, "list of files"),
        ({"energy": {}, "seed": -1}, "seed"),
        ({"energy": {}, "optim": {"peak_lr": float("inf")}}, "peak_lr"),
        ({"energy": {}, "machine": {"accelerator": "mps"}}, "no double precision"),
    ],
)
def test_entries_that_do_nothing_or_harm_are_refused(entry, reason):
    with pytest.raises(BadRecipe, match=reason):
        check_recipe({"name": "x", "data": {"packed": "p"}, **entry})


@pytest.mark.parametrize(
    "machine", [{"accelerator": "cuda0"}, {"devices": 0}, {"devices": "x"}, {"strategy": "nosuch"}]
)
def test_machines_that_cannot_be_are_told_before_anything_is_packed(frames, machine):
    recipe = recipe_of(frames, machine=machine)
    with pytest.raises(BadRecipe, match=r"machine: accelerator = .* do not go together"):
        fit(recipe, frames.parent / "run", progress=False)
    assert not (frames.parent / "packed").exists()


def test_what_computes_is_chosen_where_double_precision_is(monkeypatch):
    for there, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert accelerator_of(Machine()) == name
        assert accelerator_of(Machine(accelerator="gpu")) == "gpu"


def test_a_start_of_another_encoder_is_refused(tmp_path):
    packed_set(crystals_with_forces(), tmp_path / "packed", "energy")
    CrystalModel("crystalformer", MODEL, energy_scale="mp").save(tmp_path / "start")
    recipe = check_recipe(
        {
            "name": "other",
            "encoder": "ecoformer",
            "model": {"cutoff": MODEL["cutoff"]},
            "data": {"packed": str(tmp_path / "packed")},
            "energy": {},
            "start": str(tmp_path / "start"),
            "machine": {"accelerator": "cpu", "devices": 1},
        }
    )
    with pytest.raises(BadRecipe, match=r"is a crystalformer, but encoder is 'ecoformer'"):
        fit(recipe, tmp_path / "run", progress=False)


def test_fine_tuning_runs_in_one_process_and_keeps_its_history(frames):
    told = {"overrides": ["optim.epochs=1"], "replay": 0.0, "progress": False}
    for entry in ("machine.devices=2", 'machine.strategy="ddp"'):
        with pytest.raises(BadRecipe, match="this verb runs in one process"):
            finetune(frames, frames.parent / "run", overrides=[entry])
    done = finetune(frames, frames.parent / "run", **told)
    again = finetune(frames, frames.parent / "run", resume=True, progress=False)
    assert again.model.card.training == done.model.card.training
    assert again.model.card.training["epochs"] == 1
    recipe = json.loads((frames.parent / "run" / "recipe.json").read_text())
    assert {key: recipe["machine"][key] for key in ALONE} == ALONE


def test_a_finished_run_that_goes_on_with_nothing_keeps_its_card(tmp_path):
    packed_set(crystals_with_forces(), tmp_path / "packed", "energy")
    recipe = potential_recipe(tmp_path / "packed", optim={"epochs": 1})
    done = fit(recipe, tmp_path / "run", progress=False)
    again = fit(recipe, tmp_path / "run", resume=True, progress=False)
    assert again.card == done.card


def test_how_little_muon_moves_is_told(caplog):
    optim = Optim(optimizer="muon")
    make_optimizer(CrystalModel("equiformer", {}, energy_scale="mp"), optim)
    assert "Muon moves 3 % of these weights" in caplog.text
    caplog.clear()
    optimizer = make_optimizer(CrystalModel("crystalformer", MODEL, energy_scale="mp"), optim)
    assert "Muon moves" not in caplog.text
    assert len(copy.deepcopy(optimizer).parts) == 2


def test_a_recipe_for_properties_keeps_its_weights(tmp_path):
    recipe = property_recipe(tmp_path, weights={"band_gap": 2.0}, kinds={"band_gap": "linear"})
    assert recipe.weights == {"band_gap": 2.0}
