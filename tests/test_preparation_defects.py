"""Files that say something else than they seem to, and sets that became others: told by name."""

import pytest
from small_runs import TARGETS, crystals_with_properties, packed_set, property_recipe
from typer.testing import CliRunner

from ase_crystalformer.cli import app
from ase_crystalformer.data.packing import remove_packed
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.leaderboards.runs import open_run
from ase_crystalformer.training.run import fit


def test_a_run_is_not_judged_by_a_set_packed_anew(tmp_path):
    """It may have learned from the crystals that judge now."""
    rows = crystals_with_properties()
    recipe = property_recipe(tmp_path / "packed")
    packed_set(rows, recipe.data.packed, *TARGETS)
    fit(recipe, tmp_path / "ra", progress=False)
    remove_packed(recipe.data.packed)
    turned = [row.in_split("val" if row.split == "train" else "train") for row in rows]
    packed_set(turned, recipe.data.packed, *TARGETS)
    fit(recipe, tmp_path / "rb", progress=False)
    with pytest.raises(BadRecipe, match=r"not the set the run in .*ra began with"):
        open_run(tmp_path / "ra", "val")
    done = CliRunner().invoke(app, ["table", str(tmp_path / "ra"), str(tmp_path / "rb")])
    assert done.exit_code == 1
    assert "is not the set the run in" in done.output
    assert done.output.count("| packed |") == len(TARGETS)
