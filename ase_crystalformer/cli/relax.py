"""``crystalformer relax``: structures to where forces and stress vanish."""

import hashlib
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ase_crystalformer.cli.jobs import Device, Job, ModelName, Structures, errors_told, with_units
from ase_crystalformer.cli.outputs import STRUCTURES, results

if TYPE_CHECKING:
    from pandas import DataFrame

    from ase_crystalformer.structure_files import NamedStructure

EXAMPLE = """\b
Example:
  crystalformer relax candidates/*.cif --fmax 0.1 -o relaxed.extxyz > summary.csv
  crystalformer relax slab.xyz --fixed-cell --steps 200
  crystalformer relax candidates.extxyz --keep-symmetry --optimiser lbfgs
  crystalformer relax layered/*.cif --dispersion d3bj
  crystalformer relax candidates/*.cif --trajectories ways
"""

AT_ONCE = 512


class Cell(StrEnum):
    """What of a cell may change."""

    all = "all"
    volume = "volume"
    shape = "shape"
    none = "none"


FREEDOM: dict[Cell, bool | str] = {
    Cell.all: True,
    Cell.volume: "volume",
    Cell.shape: "shape",
    Cell.none: False,
}

CellOption = Annotated[
    Cell | None,
    typer.Option(
        help="What of the cell may change, the atoms always moving. All if left out.",
        show_default=False,
    ),
]
Trajectories = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        file_okay=False,
        help="Keep every step, one ASE trajectory per structure, by its name; what is there is not "
        "redone, in any order.",
    ),
]

UNITS = {
    "energy": "eV",
    "energy_per_atom": "eV/atom",
    "fmax": "eV/Å",
    "volume": "Å³",
    "energy_uncertainty": "eV",
    "novelty": "1",
}


@errors_told()
def relax(  # noqa: PLR0913  what is asked, where it runs
    structures: Structures,
    *,
    model: ModelName = "default",
    fmax: Annotated[
        float, typer.Option(min=0, metavar="NUMBER", help="Largest force left on an atom, eV/Å.")
    ] = 0.05,
    steps: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Steps after which to give up.")
    ] = 500,
    fixed_cell: Annotated[bool, typer.Option("--fixed-cell", help="Move atoms alone.")] = False,
    cell: CellOption = None,
    keep_symmetry: Annotated[
        bool, typer.Option("--keep-symmetry", help="Keep the space group found within 0.01 Å.")
    ] = False,
    optimiser: Annotated[
        str, typer.Option(metavar="NAME", help="fire, or lbfgs, which needs fewer steps.")
    ] = "fire",
    dispersion: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Add D3 dispersion for PBE: d3bj or d3zero."),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="Extended XYZ of what was relaxed.")
    ] = Path("relaxed.extxyz"),
    trajectories: Trajectories = None,
    device: Device = "auto",
) -> None:
    """Relax atoms and cells of many structures.

    Writes structures with energy, forces and stress to a file, and a summary to standard output:
    CSV, one row per structure in their order. A structure that did not converge is written as it
    was after the last step; it is told, and no failure: the command ends with 0. One that failed is
    not written, and it ends with 1. With --trajectories, the same command goes on where it was cut
    off.
    """
    from ase_crystalformer.pretrained import load_model
    from ase_crystalformer.relaxation import relax as relax_all

    relax_cell = _freedom(fixed_cell, cell)
    potential = load_model(model, device=device)
    calibrated = potential.uncertainty is not None
    # Each call of the library has a bar of its own, which moves more often.
    job = Job(structures, made=[out, trajectories], bar=False)
    restless = 0
    with results(out, STRUCTURES) as write, results(None, ()) as summarise:
        for found in job.chunks(AT_ONCE):
            relaxed = relax_all(
                [item.atoms for item in found],
                model=potential,
                fmax=fmax,
                steps=steps,
                relax_cell=relax_cell,
                keep_symmetry=keep_symmetry,
                optimiser=optimiser,
                device=device,
                dispersion=dispersion,
                trajectory=trajectories and _paths(trajectories, found),
                progress=sys.stderr.isatty(),
            )
            rows = job.rows(_summary(relaxed, calibrated), found)
            restless += int((~rows["converged"] & rows["error"].isna()).sum())
            write(rows[["name", "converged", "steps", "error"]], [one.atoms for one in relaxed])
            summarise(with_units(rows, UNITS), ())
    if restless:
        typer.echo(f"{restless} of {job.done} did not converge in {steps} steps.", err=True)
    job.end()


def _freedom(fixed_cell: bool, cell: Cell | None) -> bool | str:
    """What of the cell may change, from the two options that say so.

    Raises:
        typer.BadParameter: They contradict each other.
    """
    if fixed_cell and cell not in (None, Cell.none):
        raise typer.BadParameter(
            f"--fixed-cell moves atoms alone, and --cell {cell} changes the cell. Give one of them."
        )
    return False if fixed_cell else FREEDOM[cell or Cell.all]


def _paths(folder: Path, found: "list[NamedStructure]") -> list[Path]:
    """Name trajectories after their structures, whatever others there are and in which order."""
    return [folder / f"{_readable(item.name)}-{_mark(item.name)}.traj" for item in found]


def _readable(name: str) -> str:
    """Write file and folder of a name in letters that every file system takes.

    Small ones: ASE takes every file with POSCAR or CONTCAR in its name for VASP's.
    """
    end = "/".join(name.split("/")[-2:])
    return re.sub(r"[^\w.#+-]+", "_", end)[-50:].lstrip("._-").lower()


def _mark(name: str) -> str:
    """Tell apart what is written alike: ``a/b.cif`` and ``a_b.cif``."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]


def _summary(relaxed: list[Any], calibrated: bool) -> "DataFrame":
    """Numbers that matter of every relaxation, in the same columns whatever became of them."""
    from pandas import DataFrame

    rows = [
        {
            "converged": one.converged,
            "steps": one.steps,
            "energy": one.energy,
            "energy_per_atom": one.energy / len(one.atoms) if one.atoms else None,
            "fmax": one.fmax,
            "volume": one.atoms.cell.volume or None if one.atoms else None,
            "energy_uncertainty": one.energy_uncertainty,
            "novelty": None if one.novelty is None else one.novelty.max(),
            "error": one.error,
        }
        for one in relaxed
    ]
    table = DataFrame(rows)
    unknown = ["energy_uncertainty", "novelty"]
    if not calibrated:
        return table.drop(columns=unknown)
    return table.astype(dict.fromkeys(unknown, "float64"))
