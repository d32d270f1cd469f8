"""Surface energies of a crystal: slabs of every plane, as they are cut and relaxed.

    python workflows/surface_energy.py workflows/demo_structures/KMgF3.cif --miller 1,0,0
    python workflows/surface_energy.py Cu.cif --calculator emt --max-index 2 -o copper

The crystal is relaxed, then cut by pymatgen along each plane that symmetry does not repeat, at each
height that differs; atoms of the slab are relaxed in a fixed cell. Both faces are alike, and the
slab has the formula of the crystal: others, whose energy depends on chemical potentials, are left
out and counted. The energy is (slab - crystal) / (2 area). A slab that does not come to rest is
named, and the others are done. Writes ``surface_energy.json`` (J/m²), a picture and
``slabs.extxyz``.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ase import Atoms, units
from matplotlib.figure import Figure
from programs import (
    Crystal,
    Out,
    Potential,
    at_rest,
    end,
    read_crystal,
    run,
    tell,
    with_results,
    write_frames,
    write_results,
)
from pymatgen.analysis.wulff import WulffShape
from pymatgen.core import Structure
from pymatgen.core.surface import SlabGenerator, get_symmetrically_distinct_miller_indices
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from scipy.spatial import QhullError

from ase_crystalformer import CrystalformerError, load_calculator

#: eV/Å² in J/m².
JOULE = units.m**2 / units.J

Plane = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Surface:
    """One way to cut a crystal.

    Attributes:
        plane: Miller indices in the conventional cell.
        shift: Height of the cut, as a share of the distance of equal planes.
        atoms: Of the slab.
        cut: Energy as cut, J/m².
        relaxed: Energy relaxed, J/m².
    """

    plane: Plane
    shift: float
    atoms: int
    cut: float
    relaxed: float


@dataclass(frozen=True, kw_only=True)
class Surfaces:
    """All of them.

    Attributes:
        formula: Of the crystal.
        surfaces: The lowest first.
        left_out: Slabs that are not symmetric with the formula of the crystal, by plane.
        failed: Slabs that were not computed, by plane and shift, and why.
        wulff: Mean energy of the crystal's equilibrium shape of these planes, J/m².
    """

    formula: str
    surfaces: list[Surface]
    left_out: dict[str, int]
    failed: dict[str, str]
    wulff: float | None


def conventional(crystal: Atoms) -> Structure:
    """Return the conventional cell, in which planes are counted."""
    structure = AseAtomsAdaptor.get_structure(Atoms(crystal))
    return SpacegroupAnalyzer(structure, symprec=1e-3).get_conventional_standard_structure()


def slabs(crystal: Structure, plane: Plane, *, thickness: float, vacuum: float) -> list[Any]:
    """Cut a crystal along a plane, at all heights that differ."""
    generator = SlabGenerator(
        crystal, plane, thickness, vacuum, center_slab=True, primitive=True, lll_reduce=True
    )
    return list(generator.get_slabs())


def good(slab: Any, crystal: Structure) -> bool:
    """Whether both faces are alike and the formula is that of the crystal."""
    same = slab.composition.reduced_formula == crystal.composition.reduced_formula
    return bool(same and slab.is_symmetric())


def surface(slab: Any, plane: Plane, energy: float, calculator: Any) -> tuple[Surface, Atoms]:
    """Compute the energy of a slab, as it is cut and relaxed.

    Args:
        slab: Of pymatgen.
        plane: It was cut along.
        energy: Of the crystal, eV/atom.
        calculator: Of ASE.
    """
    atoms = Atoms(AseAtomsAdaptor.get_atoms(slab))
    atoms.calc = calculator
    area = 2 * float(np.linalg.norm(np.cross(*atoms.cell[:2])))
    cut = (atoms.get_potential_energy() - energy * len(atoms)) / area
    rest = at_rest(atoms, calculator, fmax=0.01, cell=False)
    relaxed = (rest.get_potential_energy() - energy * len(atoms)) / area
    found = Surface(
        plane=plane,
        shift=float(slab.shift),
        atoms=len(atoms),
        cut=float(cut * JOULE),
        relaxed=float(relaxed * JOULE),
    )
    return found, with_results(rest)


def surfaces(
    crystal: Atoms, calculator: Any, planes: list[Plane], *, thickness: float, vacuum: float
) -> Iterator[tuple[str, tuple[Surface, Atoms] | Exception | None]]:
    """Compute all surfaces of some planes, each by the name of its plane, or of plane and shift.

    What is left out comes as ``None``, what fails as the error.

    Args:
        crystal: At rest.
        calculator: Of ASE.
        planes: In the conventional cell.
        thickness: Of slabs, Å.
        vacuum: Between them, Å.
    """
    cell = conventional(crystal)
    bulk = AseAtomsAdaptor.get_atoms(cell)
    bulk.calc = calculator
    energy = float(bulk.get_potential_energy()) / len(bulk)
    for plane in planes:
        name = ",".join(map(str, plane))
        for slab in slabs(cell, plane, thickness=thickness, vacuum=vacuum):
            if not good(slab, cell):
                yield name, None
                continue
            try:
                yield name, surface(slab, plane, energy, calculator)
            except Exception as error:  # of whatever calculator
                yield f"{name} at shift {slab.shift:.3f}", error


def wulff(crystal: Atoms, found: list[Surface]) -> float | None:
    """Mean energy of the shape that some planes enclose, J/m²; ``None`` if they enclose none."""
    lowest: dict[Plane, float] = {}
    for one in found:
        lowest[one.plane] = min(one.relaxed, lowest.get(one.plane, np.inf))
    try:
        shape = WulffShape(conventional(crystal).lattice, list(lowest), list(lowest.values()))
    except QhullError:
        return None
    return float(shape.weighted_surface_energy)


def draw(found: Surfaces) -> Figure:
    """Draw the energies as bars."""
    figure = Figure(figsize=(max(4, 0.6 * len(found.surfaces) + 2), 3.4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(found.surfaces))
    axes.bar(places - 0.2, [one.cut for one in found.surfaces], 0.4, label="cut", color="0.7")
    axes.bar(places + 0.2, [one.relaxed for one in found.surfaces], 0.4, label="relaxed")
    axes.set_xticks(places, ["".join(map(str, one.plane)) for one in found.surfaces])
    axes.set(xlabel="plane", ylabel="surface energy (J/m²)", title=found.formula)
    axes.legend(frameon=False)
    return figure


def read_plane(text: str) -> Plane:
    """Read ``1,-1,0``.

    Raises:
        CrystalformerError: It is no plane.
    """
    try:
        first, second, third = map(int, text.split(","))
    except ValueError as error:
        raise CrystalformerError(f"--miller is {text!r}; give h,k,l such as 1,1,0.") from error
    if first == second == third == 0:
        raise CrystalformerError("--miller is 0,0,0, which is no plane; give h,k,l such as 1,1,0.")
    return first, second, third


def main(
    crystal: Crystal,
    calculator: Potential = "default",
    miller: Annotated[
        list[str] | None, typer.Option(metavar="H,K,L", help="A plane; may be told often.")
    ] = None,
    max_index: Annotated[int, typer.Option(min=1, help="Largest index, without --miller.")] = 1,
    thickness: Annotated[float, typer.Option(min=1, help="Of slabs, Å.")] = 12.0,
    vacuum: Annotated[float, typer.Option(min=5, help="Between slabs, Å.")] = 12.0,
    out: Out = Path("surface_energy"),
) -> None:
    """Relax the crystal, cut it, and write."""
    planes = [read_plane(text) for text in miller or []]
    potential = load_calculator(calculator)
    rest = at_rest(read_crystal(crystal), potential, fmax=0.005)
    planes = planes or get_symmetrically_distinct_miller_indices(conventional(rest), max_index)
    kept: list[Surface] = []
    relaxed: list[Atoms] = []
    left_out: Counter[str] = Counter()
    failed: dict[str, str] = {}
    cuts = surfaces(rest, potential, planes, thickness=thickness, vacuum=vacuum)
    for name, made in cuts:
        if made is None:
            left_out[name] += 1
        elif isinstance(made, Exception):
            failed[name] = tell(name, made)
        else:
            one, atoms = made
            kept.append(one)
            relaxed.append(atoms)
            print(f"{one.plane}: {one.relaxed:.3f} J/m² ({one.cut:.3f} as cut), {one.atoms} atoms")
    if left_out:
        print(f"Left out, not symmetric with the crystal's formula: {dict(left_out)}")
    if not kept:
        raise CrystalformerError(
            f"No slab is left; {len(failed)} failed. Try other planes by --miller."
        )
    found = Surfaces(
        formula=rest.get_chemical_formula(empirical=True),
        surfaces=sorted(kept, key=lambda one: one.relaxed),
        left_out=dict(left_out),
        failed=failed,
        wulff=wulff(rest, kept),
    )
    write_results(out, "surface_energy", found, draw(found))
    write_frames(out / "slabs.extxyz", relaxed)
    end(failed, "slabs")


if __name__ == "__main__":
    run(main, __doc__)
