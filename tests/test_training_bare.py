"""Training from packed tensors needs neither ASE nor what crystals are read with."""

import json
import subprocess
import sys
from pathlib import Path

from small_runs import crystals_with_forces, packed_set, potential_recipe

from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.config import recipe_dict

FOREIGN = ("ase", "jarvis", "matminer", "pandas", "pymatgen", "spglib", "vesin")

PROGRAM = """
import json, sys
sys.modules.update(dict.fromkeys({FOREIGN}))
from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.run import fit
fit(check_recipe(json.loads(sys.argv[1])), sys.argv[2], progress=False)
"""


def test_training_runs_on_a_bare_machine(tmp_path):
    packed_set(crystals_with_forces(), tmp_path / "set", "energy")
    recipe = potential_recipe(tmp_path / "set", optim={"epochs": 1})
    program = PROGRAM.format(FOREIGN=set(FOREIGN))
    given = [json.dumps(recipe_dict(recipe)), str(tmp_path / "run")]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program, *given],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert CrystalModel.load(tmp_path / "run" / "model").card.errors["forces"]["n"] > 0
