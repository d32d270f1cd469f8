"""Runs that fail, and what is left of them: old checkpoints, weights that left all bounds."""

from dataclasses import replace

import pytest
import torch
from small_runs import (
    TARGETS,
    Stopped,
    assert_same_weights,
    crystals_with_properties,
    packed_set,
    potential_recipe,
    property_recipe,
)

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.training.module import Fitting
from ase_crystalformer.training.run import fit


def with_old_names(state):
    """Call the mask of foreign energy scales what it was called once."""
    return {key.replace("objective.foreign", "objective.own"): one for key, one in state.items()}


def test_checkpoints_with_the_old_name_of_the_foreign_scales_go_on(potential, tmp_path):
    short, long = (potential_recipe(potential, optim={"epochs": epochs}) for epochs in (1, 2))
    for folder in ("old", "new"):
        fit(short, tmp_path / folder, progress=False)
    path = tmp_path / "old" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)  # noqa: TID251  Lightning's
    for name in ("state_dict", "current_model_state"):
        assert "objective.foreign" in checkpoint[name]
        checkpoint[name] = with_old_names(checkpoint[name])
    torch.save(checkpoint, path)  # noqa: TID251  Lightning's
    old, new = (fit(long, tmp_path / one, resume=True, progress=False) for one in ("old", "new"))
    assert_same_weights(old, new)


@pytest.fixture
def unjudged(tmp_path):
    """A packed set without a validation part."""
    rows = [row.in_split("train") for row in crystals_with_properties()]
    packed_set(rows, tmp_path / "unjudged", *TARGETS)
    return tmp_path / "unjudged"


@pytest.mark.parametrize("ema", [None, 0.5])
def test_a_run_that_diverges_at_once_leaves_no_model(properties, unjudged, tmp_path, ema):
    told = {"optim": {"epochs": 1, "peak_lr": 1e6, "budget": 150, "ema": ema}}
    with pytest.raises(BadRecipe, match=r"epoch 1: 4 of 4 validation predictions .* never wr"):
        fit(property_recipe(properties, **told), tmp_path / "run", progress=False)
    with pytest.raises(BadRecipe, match=r"training losses, the last ones of the epoch, are not"):
        fit(property_recipe(unjudged, **told), tmp_path / "other", progress=False)
    for folder in (tmp_path / "run", tmp_path / "other"):
        assert not (folder / "model.json").exists()
        assert not (folder / "checkpoints" / "last.ckpt").exists()


@pytest.fixture
def ruin(monkeypatch):
    """Ruin the weights in the course of the second epoch; and let the run break, if asked to."""
    step = Fitting.training_step

    def begin(breaks):
        def ruined(self, batch, number):
            if breaks and self.current_epoch == 1 and number == 3:
                raise Stopped
            loss = step(self, batch, number)
            if self.current_epoch == 1 and number == 1:
                next(self.parameters()).data.fill_(torch.nan)
            return loss

        monkeypatch.setattr(Fitting, "training_step", ruined)

    return begin


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("breaks", [True, False])
def test_the_last_sound_model_and_checkpoint_stay(
    properties, unjudged, tmp_path, ruin, judged, breaks, monkeypatch
):
    """Also where the run breaks before the end of the epoch tells that it has diverged."""
    packed = properties if judged else unjudged
    recipe = property_recipe(packed, optim={"epochs": 3, "budget": 150})
    short = replace(recipe, optim=replace(recipe.optim, epochs=1))
    fit(short, tmp_path / "run", progress=False)
    model = (tmp_path / "run" / "model.safetensors").read_bytes()
    ruin(breaks)
    told = r"in epoch 2.*stays that of an epoch before"
    with pytest.raises(Stopped if breaks else BadRecipe, match=None if breaks else told):
        fit(recipe, tmp_path / "run", resume=True, progress=False)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == model
    monkeypatch.undo()
    after = fit(recipe, tmp_path / "run", resume=True, progress=False)
    assert after.card.training["epochs"] == 3
    assert all(weight.isfinite().all() for weight in after.parameters())


def test_one_prediction_that_is_no_number_is_told_and_the_run_goes_on(
    properties, tmp_path, monkeypatch, caplog
):
    judge = Fitting.validation_step

    def lost(self, batch, number):
        judge(self, batch, number)
        if number == 0:
            self.errors.add("band_gap", torch.tensor([torch.nan]))

    monkeypatch.setattr(Fitting, "validation_step", lost)
    model = fit(property_recipe(properties), tmp_path / "run", progress=False)
    assert "1 validation predictions are not finite, and in no error" in caplog.text
    assert model.card.errors["band_gap"]["n"] == 4
