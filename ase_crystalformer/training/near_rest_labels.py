"""Make the data set ``mp_near_rest``; goes on where it was cut off.

python -m ase_crystalformer.training.near_rest_labels data sevenn.calculator:SevenNetCalculator
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.near_rest import AMOUNTS, parents
from ase_crystalformer.data.perturbations import perturbed
from ase_crystalformer.errors import BadRecipe, UnknownName
from ase_crystalformer.training.labelling import label_frames
from ase_crystalformer.training.record import write_json

if TYPE_CHECKING:
    from ase import Atoms


def moved(crystals: list[LabelledCrystal]) -> Iterator["Atoms"]:
    """Yield every crystal at rest, and then its moved frames."""
    from ase import Atoms

    for row in crystals:
        atoms = Atoms(numbers=row.species, positions=row.positions, cell=row.cell, pbc=row.periodic)
        yield from perturbed(atoms, row.id, AMOUNTS)


def main(data_dir: Path, teacher: str, out: Path = Path("mp_near_rest.extxyz")) -> None:
    """Label what ``data_dir`` holds of Materials Project by ``teacher``, module:factory.

    Any part of the file, from its beginning, serves; packed by gzip it belongs into ``data_dir``.

    Raises:
        UnknownName: There is no such teacher.
        BadRecipe: Another teacher began the file.
    """
    calculator = _made(teacher)
    settings, plan = out.with_suffix(".json"), {"teacher": teacher, "amounts": asdict(AMOUNTS)}
    if not out.exists():
        write_json(settings, plan)
    elif not settings.is_file() or json.loads(settings.read_text()) != json.loads(json.dumps(plan)):
        raise BadRecipe(f"{out} was not begun by {teacher}. Choose another file, or remove it.")
    crystals = parents(data_dir)
    frames = len(crystals) * (AMOUNTS.frames + 1)
    label_frames(moved(crystals), calculator, out, total=frames)


def _made(teacher: str) -> Any:
    module, _, factory = teacher.partition(":")
    try:
        return getattr(import_module(module), factory)()
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownName(
            f"There is no teacher {teacher!r}: {error}. Name module:factory."
        ) from error


if __name__ == "__main__":
    import typer

    typer.run(main)
