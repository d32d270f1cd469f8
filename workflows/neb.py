"""Barrier between two states: a nudged elastic band with a climbing image.

    python workflows/neb.py before.extxyz after.extxyz
    python workflows/neb.py before.traj after.traj --calculator emt --images 7 -o hop

Both files hold the same atoms in the same order and the same cell, e.g. before and after an atom
has hopped. The ends are relaxed in a fixed cell; images between them start from the path that keeps
distances (S. Smidstrup et al., J. Chem. Phys. 140, 214106 (2014)) and slide down to the path of
least energy, and the highest climbs to the saddle (G. Henkelman et al., J. Chem. Phys. 113, 9901
(2000)). Writes ``neb.json`` (eV), a picture and ``path.extxyz``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ase import Atoms
from ase.geometry import find_mic
from ase.mep import NEB
from ase.optimize import FIRE
from matplotlib.figure import Figure
from programs import Out, Potential, at_rest, read_atoms, run, write_frames, write_results

from ase_crystalformer import CrystalformerError, load_calculator


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """Energies along the path of least energy.

    Attributes:
        forward: Height of the saddle above the first state, eV.
        backward: Above the last state, eV.
        reaction: Energy of the last state above the first, eV.
        distances: How far atoms have moved along the path, at every image, Å.
        energies: Above the first state, at every image, eV.
        force: Largest left across the path, eV/Å.
    """

    forward: float
    backward: float
    reaction: float
    distances: list[float]
    energies: list[float]
    force: float


def same_atoms(before: Atoms, after: Atoms) -> None:
    """Check that one state can become the other.

    Raises:
        CrystalformerError: Atoms or cells differ.
    """
    if not np.array_equal(before.numbers, after.numbers):
        raise CrystalformerError(
            f"The states hold {before.symbols} and {after.symbols}; give the same atoms in the "
            "same order."
        )
    if not np.allclose(before.cell, after.cell, atol=1e-6):
        raise CrystalformerError("The cells of the states differ; give both in one cell.")


def band(
    before: Atoms,
    after: Atoms,
    calculator: Callable[[], Any],
    *,
    images: int = 5,
    fmax: float = 0.03,
    steps: int = 500,
) -> list[Atoms]:
    """Find the path of least energy, ends included.

    Args:
        before: First state.
        after: Last state.
        calculator: Makes a calculator of ASE, one per image.
        images: Between the ends.
        fmax: Largest force left across the path, eV/Å.
        steps: How often the band may move.

    Raises:
        CrystalformerError: The states do not fit, or the band is still moving after so many steps.
    """
    same_atoms(before, after)
    first, last = (at_rest(end, calculator(), fmax=fmax / 3, cell=False) for end in (before, after))
    if find_mic(last.positions - first.positions, first.cell, first.pbc)[1].max() < 0.1:
        raise CrystalformerError("Both states relax to the same one; there is no barrier.")
    path = [first, *(first.copy() for _ in range(images)), last]
    for image in path[1:-1]:
        image.calc = calculator()
    rough = NEB(path, method="improvedtangent")
    rough.interpolate("idpp", mic=True)
    FIRE(rough, logfile=None).run(fmax=5 * fmax, steps=steps)
    climbing = NEB(path, method="improvedtangent", climb=True)
    if not FIRE(climbing, logfile=None).run(fmax=fmax, steps=steps):
        raise CrystalformerError(
            f"The band is still moving after {steps} steps. Give more --images or --steps, or a "
            "state between."
        )
    return path


def barrier(path: list[Atoms]) -> Barrier:
    """Read the energies of a path."""
    energies = np.array([image.get_potential_energy() for image in path])
    moved = [
        find_mic(one.positions - other.positions, one.cell, one.pbc)[0]
        for one, other in zip(path[1:], path[:-1], strict=True)
    ]
    lengths = [float(np.linalg.norm(move)) for move in moved]
    across = NEB(path, method="improvedtangent", climb=True)
    across.get_forces()
    return Barrier(
        forward=float(energies.max() - energies[0]),
        backward=float(energies.max() - energies[-1]),
        reaction=float(energies[-1] - energies[0]),
        distances=[0.0, *np.cumsum(lengths).tolist()],
        energies=(energies - energies[0]).tolist(),
        force=float(across.get_residual()),
    )


def draw(found: Barrier) -> Figure:
    """Draw the energies along the path."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.distances, found.energies, marker="o", color="C0")
    axes.set(xlabel="path (Å)", ylabel="energy (eV)")
    axes.set_title(f"{found.forward:.3f} eV there, {found.backward:.3f} eV back", fontsize=9)
    return figure


def main(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="Any file ASE reads.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The same atoms, moved.")],
    calculator: Potential = "default",
    images: Annotated[int, typer.Option(min=2, help="Between the ends.")] = 5,
    fmax: Annotated[float, typer.Option(help="Largest force left across, eV/Å.")] = 0.03,
    steps: Annotated[int, typer.Option(min=1, help="How often the band may move.")] = 500,
    out: Out = Path("neb"),
) -> None:
    """Find the path, and write."""
    path = band(
        read_atoms(before),
        read_atoms(after),
        lambda: load_calculator(calculator),
        images=images,
        fmax=fmax,
        steps=steps,
    )
    found = barrier(path)
    write_results(out, "neb", found, draw(found))
    write_frames(out / "path.extxyz", path)
    print(
        f"Barrier {found.forward:.3f} eV there, {found.backward:.3f} eV back; "
        f"reaction {found.reaction:.3f} eV"
    )


if __name__ == "__main__":
    run(main, __doc__)
