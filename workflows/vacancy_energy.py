"""Formation energies of vacancies: one atom of every kind of site is taken out.

    python workflows/vacancy_energy.py workflows/demo_structures/Si.cif
    python workflows/vacancy_energy.py NiAl.cif -c emt --reservoir Ni=-0.02 --reservoir Al=0.01

The crystal is relaxed and repeated; for each site that symmetry does not repeat, the energy of
taking its atom to a reservoir is E(without) + μ - E(with), with the other atoms relaxed in a fixed
cell. The reservoir of an element is the crystal itself; in a compound its energy μ per atom is
yours to tell, e.g. that of the pure element by the same calculator. Vacancies are neutral. One that
does not come to rest is named, and the others are done. Writes ``vacancy_energy.json`` (eV) and
``vacancies.extxyz``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import spglib
import typer
from ase import Atoms
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

from ase_crystalformer import CrystalformerError, load_calculator


@dataclass(frozen=True, kw_only=True)
class Vacancy:
    """One kind of site without its atom.

    Attributes:
        element: That is missing.
        site: Index of an atom of that kind in the crystal of the file.
        sites: How many of that kind there are in it.
        unrelaxed: Formation energy with the others where they were, eV.
        relaxed: Formation energy, eV.
    """

    element: str
    site: int
    sites: int
    unrelaxed: float
    relaxed: float


@dataclass(frozen=True, kw_only=True)
class Vacancies:
    """All of them.

    Attributes:
        formula: Of the crystal.
        atoms: In the supercell before.
        reservoirs: eV/atom.
        vacancies: The cheapest first.
        failed: Sites that were not computed, and why.
    """

    formula: str
    atoms: int
    reservoirs: dict[str, float]
    vacancies: list[Vacancy]
    failed: dict[str, str]


def kinds_of_sites(crystal: Atoms) -> dict[int, int]:
    """First atom of every kind of site, and how many there are."""
    told = (crystal.cell.array, crystal.get_scaled_positions(), crystal.numbers)
    found = spglib.get_symmetry_dataset(told, symprec=1e-3)
    first, counts = np.unique(found.equivalent_atoms, return_counts=True)
    return dict(zip(first.tolist(), counts.tolist(), strict=True))


def vacancy(
    crystal: Atoms, site: int, calculator: Any, *, reservoir: float, length: float = 10.0
) -> tuple[float, float, Atoms]:
    """Formation energy of one vacancy, unrelaxed and relaxed, eV, and the relaxed atoms.

    Args:
        crystal: At rest.
        site: Index of the atom to take out.
        calculator: Of ASE.
        reservoir: Energy of the atom where it is taken, eV.
        length: Least height of the supercell, Å.
    """
    whole = supercell(crystal, length)
    whole.calc = calculator
    energy = whole.get_potential_energy()
    without = whole.copy()
    del without[site]
    without.calc = calculator
    unrelaxed = without.get_potential_energy() + reservoir - energy
    rest = at_rest(without, calculator, fmax=0.01, cell=False)
    relaxed = rest.get_potential_energy() + reservoir - energy
    return float(unrelaxed), float(relaxed), with_results(rest)


def supercell(crystal: Atoms, length: float) -> Atoms:
    """Repeat a crystal until its images are far away; its first atoms stay the first."""
    heights = 1 / np.linalg.norm(crystal.cell.reciprocal(), axis=1)
    return crystal.repeat(np.maximum(1, np.ceil(length / heights - 1e-6)).astype(int))


def reservoirs_of(crystal: Atoms, told: list[str]) -> dict[str, float]:
    """Energy of every element where it is taken, eV/atom.

    Args:
        crystal: At rest, with its calculator.
        told: Such as ``Na=-1.31``.

    Raises:
        CrystalformerError: One is missing or no number.
    """
    elements = sorted(set(crystal.symbols))
    try:
        found = {symbol: float(value) for symbol, value in (text.split("=") for text in told)}
    except ValueError as error:
        raise CrystalformerError(
            f"--reservoir is {', '.join(told)}; give ELEMENT=ENERGY, such as Na=-1.31."
        ) from error
    if len(elements) == 1:
        found.setdefault(elements[0], crystal.get_potential_energy() / len(crystal))
    missing = [symbol for symbol in elements if symbol not in found]
    if missing:
        raise CrystalformerError(
            f"No reservoir of {', '.join(missing)}. In a compound, tell the energy per atom of "
            f"every element where it is taken: --reservoir {missing[0]}=ENERGY, in eV."
        )
    return found


def main(
    crystal: Crystal,
    calculator: Potential = "default",
    reservoir: Annotated[
        list[str] | None,
        typer.Option(metavar="ELEMENT=ENERGY", help="eV/atom; may be told often."),
    ] = None,
    length: Annotated[float, typer.Option(help="Least height of the supercell, Å.")] = 10.0,
    out: Out = Path("vacancy_energy"),
) -> None:
    """Relax the crystal, take atoms out, and write."""
    potential = load_calculator(calculator)
    rest = at_rest(read_crystal(crystal), potential, fmax=0.005)
    reservoirs = reservoirs_of(rest, reservoir or [])
    found: list[Vacancy] = []
    relaxed: list[Atoms] = []
    failed: dict[str, str] = {}
    for site, sites in kinds_of_sites(rest).items():
        element = rest.symbols[site]
        name = f"{element} (atom {site})"
        try:
            before, after, atoms = vacancy(
                rest, site, potential, reservoir=reservoirs[element], length=length
            )
        except Exception as error:  # of whatever calculator
            failed[name] = tell(name, error)
            continue
        found.append(
            Vacancy(element=element, site=site, sites=sites, unrelaxed=before, relaxed=after)
        )
        relaxed.append(atoms)
        print(f"{name}: {after:.3f} eV ({before:.3f} unrelaxed)")
    if not found:
        raise CrystalformerError("No vacancy could be computed.")
    result = Vacancies(
        formula=rest.get_chemical_formula(empirical=True),
        atoms=len(supercell(rest, length)),
        reservoirs=reservoirs,
        vacancies=sorted(found, key=lambda one: one.relaxed),
        failed=failed,
    )
    write_results(out, "vacancy_energy", result)
    write_frames(out / "vacancies.extxyz", relaxed)
    end(failed, "vacancies")


if __name__ == "__main__":
    run(main, __doc__)
