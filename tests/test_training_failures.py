"""Runs that fail, and what is left of them: old checkpoints, weights that left all bounds."""

import pytest
import torch
from small_runs import assert_same_weights, crystals_with_forces, packed_set, potential_recipe

from ase_crystalformer.training.run import fit


@pytest.fixture(scope="module")
def potential(tmp_path_factory):
    """A packed set of crystals with energies and forces, on two scales."""
    folder = tmp_path_factory.mktemp("packed") / "potential"
    packed_set(crystals_with_forces(), folder, "energy")
    return folder


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
