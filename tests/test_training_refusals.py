"""What would spoil a run is refused before it begins: another fold, too few batches, bad labels."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from factories import tiny_properties
from small_runs import (
    TARGETS,
    crystals_with_properties,
    made_up,
    packed_set,
    property_recipe,
)
from typer.testing import CliRunner

from ase_crystalformer.cli import app
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.batches import PackedData
from ase_crystalformer.training.build import build_model
from ase_crystalformer.training.folds import is_done
from ase_crystalformer.training.record import changed_since, fold_overrides, write_record
from ase_crystalformer.training.run import fit


def begun(recipe, folder, epochs=None):
    """A run folder as if the recipe had been trained, for so many epochs."""
    write_record(recipe, folder)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"")
    if epochs is not None:
        model = tiny_properties()
        model.card = replace(model.card, training={"epochs": epochs})
        model.save(folder / "model")


@pytest.mark.parametrize(
    ("section", "changed"),
    [
        ("data", {"data": {"fold": 1}}),
        ("data", {"data": {"largest_crystal": 3}}),
        ("targets", {"targets": TARGETS[:2]}),
        ("kinds", {"kinds": {"band_gap": "linear"}}),
        ("pooling", {"pooling": {"band_gap": "attention"}}),
        ("model", {"model": {"blocks": 2}}),
        ("start", {"start": "default-properties"}),
    ],
)
def test_another_fold_or_model_is_no_resumed_run(properties, tmp_path, section, changed):
    begun(property_recipe(properties), tmp_path)
    with pytest.raises(BadRecipe, match=f"began with another {section};"):
        fit(property_recipe(properties, **changed), tmp_path, resume=True, progress=False)


def test_more_epochs_another_place_of_the_data_and_other_workers_are_no_other_run(
    properties, tmp_path, monkeypatch
):
    begun(property_recipe(properties), tmp_path, epochs=2)
    monkeypatch.chdir(properties.parent)
    same = {"machine": {"workers": 3, "accelerator": "auto"}}
    near = property_recipe(properties, data={"packed": properties.name, "directory": "d"}, **same)
    assert changed_since(tmp_path, near) == []
    assert is_done(tmp_path, near)
    assert not is_done(tmp_path, property_recipe(properties, optim={"epochs": 3}))


@pytest.mark.parametrize(
    "machine",
    [{"devices": 2}, {"nodes": 2}, {"strategy": "ddp"}, {"precision": "bf16-mixed"}],
)
def test_what_is_learned_depends_on_the_machine(properties, tmp_path, machine):
    begun(property_recipe(properties), tmp_path)
    assert changed_since(tmp_path, property_recipe(properties, machine=machine)) == ["machine"]


def test_a_run_of_another_recipe_is_not_taken_for_done(properties, tmp_path):
    begun(property_recipe(properties), tmp_path, epochs=2)
    for changed in ({"optim": {"peak_lr": 0.5}}, {"loss": "squared"}, {"seed": 3}):
        with pytest.raises(BadRecipe, match=f"with another {next(iter(changed))};"):
            is_done(tmp_path, property_recipe(properties, **changed))


def test_a_run_goes_on_with_its_own_fold(properties, tmp_path, monkeypatch):
    begun(property_recipe(properties, data={"fold": 3}), tmp_path / "runs" / "mine")
    assert fold_overrides(tmp_path) == []
    found = []
    monkeypatch.setattr(
        "ase_crystalformer.training.run.fit", lambda recipe, folder, **_: found.append(recipe)
    )
    path = tmp_path / "small.toml"
    path.write_text("[data]\npacked = 'p'\nfold = 0\n[rows.gap]\ntargets = ['band_gap']\n")
    told = ["train", str(path), "--row", "gap", "--resume", str(tmp_path / "runs" / "mine")]
    for more in ([], ["--set", "data.fold=1"]):
        done = CliRunner().invoke(app, [*told, *more])
        assert done.exit_code == 0, done.output
    assert [recipe.data.fold for recipe in found] == [3, 1]
    assert found[0].data.packed == properties


def of_processes(recipe, world):
    """The batches of the first of so many processes."""
    data = PackedData(PackedCrystals(recipe.data.packed), recipe)
    loop = SimpleNamespace(batch_progress=SimpleNamespace(is_last_batch=False))
    loop.batch_progress.current = SimpleNamespace(processed=2)
    fit_loop = SimpleNamespace(restarting=True, epoch_loop=loop)
    data.trainer = SimpleNamespace(
        global_rank=0, world_size=world, current_epoch=0, fit_loop=fit_loop
    )
    return data


def test_fewer_batches_than_processes_are_refused(properties):
    recipe = property_recipe(properties, optim={"budget": 10**6})
    assert of_processes(recipe, 1).steps(3) == 3
    with pytest.raises(BadRecipe, match=r"Lower optim\.budget, use fewer devices"):
        of_processes(recipe, 2).steps(3)


def test_shares_of_sources_that_are_not_there_are_refused(properties):
    recipe = property_recipe(properties, data={"share": {"mp_labelled": 0.5, "mp_labeled": 0.5}})
    with pytest.raises(BadRecipe, match=r"mp_labeled, of which .* It holds mp_labelled"):
        PackedData(PackedCrystals(properties), recipe)


def test_fewer_crystals_that_judge_than_processes_are_refused(properties, tmp_path):
    recipe = property_recipe(properties)
    of_processes(recipe, 4).setup("fit")
    with pytest.raises(BadRecipe, match="4 crystals for validation, fewer than the 5 processes"):
        of_processes(recipe, 5).setup("fit")
    packed_set(made_up(band_gap=1.0), tmp_path / "set", "band_gap")
    of_processes(property_recipe(tmp_path / "set"), 5).setup("fit")  # none are none to miss


def test_batches_cut_otherwise_do_not_go_on_inside_an_epoch(properties):
    recipe = property_recipe(properties, optim={"budget": 150})
    state = of_processes(recipe, 1).state_dict()
    for world, budget in ((2, 150), (1, 160)):
        other = replace(recipe, optim=replace(recipe.optim, budget=budget))
        data = of_processes(other, world)
        data.load_state_dict(state)
        with pytest.raises(BadRecipe, match="cut off inside an epoch whose batches were others"):
            data.train_dataloader()
        data.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True
        data.train_dataloader()
    same = of_processes(recipe, 1)
    same.load_state_dict(state)
    assert same.train_dataloader().sampler.skip == 2


@pytest.mark.parametrize(("value", "name"), [(0.0, "bulk_modulus"), (np.inf, "band_gap")])
def test_labels_that_cannot_be_are_named_with_start_too(
    properties, tmp_path, monkeypatch, value, name
):
    packed = PackedCrystals(properties)
    train = packed.where("train")
    first = property_recipe(properties, targets=[name])
    build_model(first, packed, train).save(tmp_path / "model")
    labels = packed.label(name).copy()
    labels[train[1]] = value
    monkeypatch.setattr(PackedCrystals, "label", lambda *_: labels)
    for start in ({}, {"start": str(tmp_path / "model")}):
        recipe = property_recipe(properties, targets=[name], **start)
        with pytest.raises(BadRecipe, match=f"{value} .* of {packed.ids[train[1]]}"):
            build_model(recipe, packed, train)


def test_a_model_to_start_from_keeps_its_kinds(properties, tmp_path):
    packed = PackedCrystals(properties)
    plain = {"targets": ["band_gap"], "kinds": {"band_gap": "linear"}}
    train = packed.where("train")
    build_model(property_recipe(properties, **plain), packed, train).save(tmp_path / "model")
    start = {"start": str(tmp_path / "model"), "targets": ["band_gap"]}
    for kinds in ({}, {"band_gap": "linear"}):
        model = build_model(property_recipe(properties, kinds=kinds, **start), packed, train)
        assert model.targets[0].kind == "linear"
    with pytest.raises(BadRecipe, match="as 'linear', but kinds asks for 'gap'"):
        build_model(property_recipe(properties, kinds={"band_gap": "gap"}, **start), packed, train)
    weighted = property_recipe(properties, pooling={"band_gap": "attention"}, **start)
    with pytest.raises(BadRecipe, match="as 'mean', but pooling asks for 'attention'"):
        build_model(weighted, packed, train)


def test_a_source_of_share_nought_teaches_and_judges_nothing(tmp_path):
    own, foreign = crystals_with_properties(), made_up(formation_energy_per_atom=50.0)
    foreign[0] = foreign[0].in_split("val")
    packed = packed_set([*own, *foreign], tmp_path / "both", *TARGETS)
    alone = packed_set(own, tmp_path / "own", *TARGETS)
    recipe = property_recipe(packed.folder, data={"share": {"tests": 0}})
    data = PackedData(packed, recipe)
    plain = PackedData(alone, property_recipe(alone.folder))
    assert (len(data.train), len(data.val)) == (len(plain.train), len(plain.val))
    models = [build_model(one.recipe, one.packed, one.train) for one in (data, plain)]
    assert models[0].targets == models[1].targets
    assert models[0].card.elements == models[1].card.elements
    with pytest.raises(BadRecipe, match=r"none to train on.*data\.share"):
        PackedData(alone, property_recipe(alone.folder, data={"share": {own[0].source: 0}}))


def test_a_model_keeps_how_its_atoms_count(properties, tmp_path):
    packed = PackedCrystals(properties)
    recipe = property_recipe(properties, pooling={"band_gap": "attention"})
    model = build_model(recipe, packed, packed.where("train"))
    assert {one.name: one.pooling for one in model.targets}["band_gap"] == "attention"
    graph, _ = packed.batch([0, 3])
    equal = model.eval()(graph)["band_gap"]
    torch.nn.init.normal_(model.head.scores["band_gap"].weight)
    model.save(tmp_path / "model")
    again = CrystalModel.load(tmp_path / "model")(graph)["band_gap"]
    assert torch.equal(again, model(graph)["band_gap"])
    assert not torch.allclose(again, equal)
