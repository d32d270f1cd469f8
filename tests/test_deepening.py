"""A model that starts from a smaller one: the same at first, and able to learn."""

from dataclasses import replace

import pytest
import torch
from small_runs import crystals_with_forces, packed_set, potential_recipe

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.build import build_model
from ase_crystalformer.training.config import Mixer
from ase_crystalformer.training.run import fit


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A packed set, the recipe of a trained model of one block, and its path."""
    folder = tmp_path_factory.mktemp("start")
    packed = packed_set(crystals_with_forces(), folder / "packed", "energy")
    recipe = potential_recipe(packed.folder, optim={"epochs": 1})
    fit(recipe, folder / "run", progress=False)
    return packed, recipe, str(folder / "run" / "model")


def deeper(recipe, path, **model):
    return replace(recipe, start=path, model={**recipe.model, **model})


@torch.no_grad()
def test_more_blocks_change_nothing_at_first_and_all_learn(start, tmp_path):
    packed, recipe, path = start
    which = packed.where("train")
    graph, _ = packed.batch(which[:3])
    grown = build_model(deeper(recipe, path, blocks=3), packed, which)
    before = CrystalModel.load(path)
    torch.testing.assert_close(grown.encoder(graph).invariant, before.encoder(graph).invariant)
    assert len(grown.encoder.blocks) == grown.encoder.config.blocks == 3

    trained = fit(deeper(recipe, path, blocks=3), tmp_path / "grown", progress=False)
    for block in trained.encoder.blocks[1:]:
        assert block.attention.out.weight.abs().max() > 0
        assert block.attention.moments_out.weight.abs().max() > 0
        assert block.shrink.weight.abs().max() > 0
    loaded = CrystalModel.load(tmp_path / "grown" / "model")
    again, there = (model.encoder(graph).invariant for model in (loaded, trained))
    torch.testing.assert_close(again, there, rtol=0, atol=0)


@pytest.mark.parametrize("model", [{"width": 32}, {"blocks": 2, "degree": 2}])
def test_a_start_of_another_shape_is_refused(start, model):
    packed, recipe, path = start
    with pytest.raises(BadRecipe, match="cannot have"):
        build_model(deeper(recipe, path, **model), packed, packed.where("train"))


def test_blocks_are_not_taken_away(start, tmp_path):
    packed, recipe, path = start
    grown = build_model(deeper(recipe, path, blocks=2), packed, packed.where("train"))
    grown.save(tmp_path / "grown")
    with pytest.raises(BadRecipe, match=r"blocks = 1 \(it has 2\)"):
        build_model(deeper(recipe, str(tmp_path / "grown")), packed, packed.where("train"))


def test_a_model_with_a_mixer_is_saved_as_deep_as_it_is(start, tmp_path):
    packed, recipe, path = start
    mixed = replace(recipe, start=path, mixer=Mixer())
    build_model(mixed, packed, packed.where("train")).save(tmp_path / "mixed")
    grown = build_model(
        deeper(mixed, str(tmp_path / "mixed"), blocks=2), packed, packed.where("train")
    )
    grown.save(tmp_path / "grown")
    assert len(CrystalModel.load(tmp_path / "grown").encoder.local.blocks) == 2
