"""What the programs about one crystal share: options, rest, and results that are written whole."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.io import write
from ase.optimize import BFGS, FIRE

from ase_crystalformer import CrystalformerError, read_structures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Crystal = Annotated[
    Path,
    typer.Argument(metavar="CRYSTAL", help="Any file ASE reads.", show_default=False),
]
Potential = Annotated[
    str,
    typer.Option(
        "-c",
        "--calculator",
        metavar="NAME",
        help="default, the path of a model, a calculator of ASE's such as emt, or "
        "package.module:factory, where factory() returns an ASE calculator.",
    ),
]
Out = Annotated[
    Path, typer.Option("-o", "--out", metavar="FOLDER", help="For numbers and pictures.")
]


def run(main: Callable[..., None], documentation: str) -> None:
    """Run a program; its documentation is its help, and what goes wrong is told in a sentence.

    Args:
        main: With typer's annotations.
        documentation: An introduction, examples and more, with empty lines between them.
    """
    introduction, example, more = documentation.split("\n\n", 2)
    app = typer.Typer(
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.command(help=f"{introduction}\n\n{more}", epilog=f"\b\nExample:\n{example}")(main)
    try:
        app()
    except (CrystalformerError, NotImplementedError, OSError) as error:
        raise SystemExit(f"Error: {error}") from error


def read_atoms(path: Path) -> Atoms:
    """Read the last structure of a file.

    Raises:
        CrystalformerError: It cannot be read.
    """
    *_, last = read_structures([path])
    if last.atoms is None:
        raise CrystalformerError(f"{last.name} cannot be read: {last.error}")
    return last.atoms


def read_crystal(path: Path) -> Atoms:
    """Read a crystal that is periodic in three directions.

    Raises:
        CrystalformerError: The file cannot be read, or holds no such crystal.
    """
    atoms = read_atoms(path)
    if not atoms.pbc.all():
        raise CrystalformerError(
            f"{path} is periodic in {int(atoms.pbc.sum())} directions; give a crystal, "
            "periodic in three."
        )
    return atoms


def at_rest(
    atoms: Atoms, calculator: Any, *, fmax: float = 0.001, steps: int = 1000, cell: bool = True
) -> Atoms:
    """Return a relaxed copy.

    Args:
        atoms: Not changed.
        calculator: Of ASE.
        fmax: Largest force left on an atom, and row of stress times volume per atom, eV/Å.
        steps: How often atoms may move.
        cell: Relax the cell too.

    Raises:
        CrystalformerError: It is still moving after so many steps.
    """
    moving = atoms.copy()
    moving.calc = calculator
    optimiser = (
        FIRE(FrechetCellFilter(moving), logfile=None) if cell else BFGS(moving, logfile=None)
    )
    with warnings.catch_warnings():
        # Of the logarithm of strains that are all but zero.
        warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
        arrived = optimiser.run(fmax=fmax, steps=steps)
    if not arrived:
        raise CrystalformerError(
            f"{moving.get_chemical_formula()} is still moving after {steps} steps. Relax it "
            "before, or look at it: the potential may not hold it together."
        )
    return moving


def tell(name: str, error: Exception) -> str:
    """Say what failed and why, while the others go on; return the reason."""
    reason = str(error) or type(error).__name__
    print(f"{name}: {reason}", file=sys.stderr)
    return reason


def end(failed: Mapping[str, str], kind: str) -> None:
    """Exit with 1 if something failed, as ``crystalformer`` does.

    Args:
        failed: What has failed, and why.
        kind: What they are called.
    """
    if failed:
        typer.echo(f"{len(failed)} {kind} failed: {', '.join(failed)}.", err=True)
        raise typer.Exit(1)


def with_results(atoms: Atoms) -> Atoms:
    """Return a copy that keeps its energy and forces when the calculator goes on to others."""
    kept = atoms.copy()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    kept.calc = SinglePointCalculator(kept, energy=energy, forces=forces)
    return kept


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Name a file to write, which takes its place when it is written."""
    partial = path.with_name(f".partial-{path.name}")
    yield partial
    partial.replace(path)


def write_frames(path: Path, frames: list[Atoms]) -> None:
    """Write structures as extended XYZ, all or none."""
    with whole(path) as partial:
        write(partial, frames, format="extxyz")


def write_results(out: Path, name: str, found: Any, figure: "Figure | None" = None) -> None:
    """Write ``name.json`` and ``name.png``, each whole or not at all.

    Args:
        out: A folder, made if need be.
        name: Of the files, without ending.
        found: A dataclass; arrays become lists.
        figure: To draw.
    """
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(found), indent=1, default=lambda array: array.tolist())
    with whole(out / f"{name}.json") as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    if figure is not None:
        with whole(out / f"{name}.png") as partial:
            figure.savefig(partial, dpi=120)
