"""Make the data set ``mp_near_rest``; goes on where it was cut off.

python -m ase_crystalformer.training.near_rest_labels data sevenn.calculator:SevenNetCalculator
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.near_rest import AMOUNTS, parents
from ase_crystalformer.data.perturbations import perturbed
from ase_crystalformer.training.labelling import label_frames

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
    """
    module, _, factory = teacher.partition(":")
    crystals = parents(data_dir)
    frames = len(crystals) * (AMOUNTS.frames + 1)
    label_frames(moved(crystals), getattr(import_module(module), factory)(), out, total=frames)


if __name__ == "__main__":
    import typer

    typer.run(main)
