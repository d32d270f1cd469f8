"""The folder of a contribution: its files, a program that trains anew, and the recipes it reads."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.training.config import Recipe, recipe_dict
from ase_crystalformer.writing import whole

AGAIN = '''\
"""Train what these results are of anew: python run.py, where the packed data of the recipes lie."""

import json
from pathlib import Path

from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.run import fit

for path in sorted(Path(__file__).parent.glob("recipes/*.json")):
    fit(check_recipe(json.loads(path.read_text(encoding="utf-8"))), Path("runs") / path.stem)
'''

#: What a contribution holds besides ``run.py``, whichever leaderboard it is for.
WRITTEN = (
    "recipes/*.json",
    "AI-SinglePropertyPrediction-*.csv.zip",
    "results.json.gz",
    "info.json",
    "metadata.json",
    "run.sh",
)


def check_ours(out: Path) -> None:
    """Refuse a folder in which files of somebody else would be lost.

    Raises:
        BadRecipe: It holds such files, and the program of no contribution.
    """
    held = [path for name in ("run.py", *WRITTEN) for path in out.glob(name)]
    if held and not _is_ours(out):
        raise BadRecipe(
            f"{held[0]} would be lost, and {out} is no earlier contribution. Name another folder."
        )


def begin(out: Path) -> None:
    """Begin a contribution: what an earlier one left goes, other files stay."""
    for path in [path for name in WRITTEN for path in out.glob(name)]:
        path.unlink()
    put(out / "run.py", AGAIN.encode())


def _is_ours(out: Path) -> bool:
    """Say whether a contribution was begun here."""
    program = out / "run.py"
    first = AGAIN.partition("\n")[0]
    return program.is_file() and program.read_bytes().startswith(first.encode())


def put_recipes(out: Path, recipes: Mapping[str, Recipe]) -> None:
    """Write recipes by their names, which the runs made anew bear too."""
    for name, recipe in recipes.items():
        put_json(out / "recipes" / f"{name}.json", recipe_dict(recipe))


def put_json(path: Path, content: Any) -> None:
    """Write plain values."""
    put(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def put(path: Path, content: bytes) -> None:
    """Write a file; it appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        partial.write_bytes(content)
