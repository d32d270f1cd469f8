"""Many crystals relaxed at once on one device, atoms and cells."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from ase_crystalformer.batching import budget_of, out_of_memory
from ase_crystalformer.descent import Arrival, Descent, Walker
from ase_crystalformer.dispersion import Dispersion
from ase_crystalformer.errors import BadStructure, CrystalformerError, OutOfMemory
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.prediction import as_list
from ase_crystalformer.pretrained import Precision, shared_potential
from ase_crystalformer.structures import as_crystal, to_atoms

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True, eq=False, kw_only=True)
class Relaxed:
    """How one structure fared.

    Attributes:
        atoms: The structure at the end, with its energy, forces and stress; ``None`` if it could
            not even start.
        energy: eV; NaN if it failed.
        fmax: Largest force on an atom, eV/Å; NaN if it failed.
        stress: Voigt, eV/Å³, as ASE defines it; ``None`` if it failed or has no volume.
        converged: Whether forces and stress are as small as was asked.
        steps: How often it moved.
        error: Why it failed; ``None`` if it did not.
    """

    atoms: "Atoms | None"
    energy: float = np.nan
    fmax: float = np.nan
    stress: Float[ndarray, "6"] | None = None
    converged: bool = False
    steps: int = 0
    error: str | None = None


def relax(  # noqa: PLR0913  everything a relaxation may be told
    structures: Any,
    *,
    model: str | Path | CrystalModel = "default",
    fmax: float = 0.05,
    steps: int = 500,
    relax_cell: bool = True,
    device: str = "auto",
    dtype: Precision = "float32",
    dispersion: str | None = None,
    progress: bool = True,
) -> list[Relaxed]:
    """Relax many structures, as many at once as the device holds.

    Ends in the same minima as ASE's FIRE with a FrechetCellFilter, and by the same measure: no
    force on an atom, and no row of stress times volume per atom, exceeds ``fmax``. Cells relax
    along the directions they repeat; ``FixAtoms`` is kept.

    Args:
        structures: ASE, pymatgen or JARVIS structures, or one of them. They are not changed.
        model: A potential: a name (see ``list_models``), the path of a model, or a model.
        fmax: Force below which a structure is relaxed, eV/Å.
        steps: How often a structure may move.
        relax_cell: Relax the cell too.
        device: ``"auto"`` takes a CUDA device if there is one.
        dtype: Precision of forces; positions are always float64.
        dispersion: Add Grimme's D3 for PBE, ``"d3bj"`` or ``"d3zero"``, as the calculator does.
        progress: Show a bar.

    Returns:
        One result per structure, in their order. A structure that fails says why and leaves the
        others alone.

    Raises:
        UnknownName: There is no such model or dispersion.
        NoForces: The model is no potential, or its energy has kinks.
        MissingExtra: Dispersion is asked for and simple-dftd3 is not installed.

    Example:
        >>> from ase.build import bulk
        >>> from ase_crystalformer import relax
        >>> salt, silicon = relax([bulk("NaCl", "rocksalt", a=5.5), bulk("Si", a=5.5)])
    """
    from tqdm.auto import tqdm

    structures = as_list(structures)
    found = relax_each(
        structures,
        model=model,
        fmax=fmax,
        steps=steps,
        relax_cell=relax_cell,
        device=device,
        dtype=dtype,
        dispersion=dispersion,
    )
    with tqdm(total=len(structures), disable=not progress, unit="crystal") as bar:
        results: dict[int, Relaxed] = {}
        for number, result in found:
            results[number] = result
            bar.update()
    return [results[number] for number in range(len(structures))]


def relax_each(
    structures: Iterable[Any],
    *,
    model: str | Path | CrystalModel = "default",
    fmax: float = 0.05,
    steps: int = 500,
    relax_cell: bool = True,
    device: str = "auto",
    dtype: Precision = "float32",
    dispersion: str | None = None,
) -> Iterator[tuple[int, Relaxed]]:
    """Relax a stream of structures, however long; yield results as they are ready.

    Structures are read when there is room for them on the device, and forgotten when they are
    done. Arguments and errors are those of ``relax``.

    Yields:
        The number of a structure in the stream and its result, in any order.
    """
    relaxer = _Relaxer(shared_potential(model, device, dtype), fmax, steps, relax_cell)
    relaxer.dispersion = Dispersion(dispersion) if dispersion else None
    return relaxer.run(structures)


class _Run:
    """A structure that is relaxed, and what came in."""

    def __init__(self, number: int, structure: Any, model: CrystalModel, relax_cell: bool) -> None:
        crystal = as_crystal(structure)
        model.check_elements(torch.from_numpy(crystal.species))
        self.number = number
        is_ase = hasattr(structure, "get_atomic_numbers")
        self.atoms = structure.copy() if is_ase else to_atoms(crystal)
        free = _free_atoms(self.atoms)
        self.walker = Walker.of(crystal, model.encoder.rule.cutoff, free, relax_cell)

    def result(self, arrival: Arrival) -> Relaxed:
        """Write down how it fared."""
        from ase.calculators.singlepoint import SinglePointCalculator

        atoms, crystal = self.atoms, self.walker.mover.crystal
        cell = atoms.cell.array.copy()
        cell[crystal.periodic] = crystal.cell[crystal.periodic]
        atoms.set_cell(cell)
        atoms.set_positions(crystal.positions, apply_constraint=False)
        if isinstance(arrival.outcome, CrystalformerError):
            return Relaxed(atoms=atoms, steps=self.walker.steps, error=_told(arrival.outcome))
        atoms.calc = SinglePointCalculator(atoms, **arrival.outcome)
        return Relaxed(
            atoms=atoms,
            energy=arrival.outcome["energy"],
            fmax=arrival.fmax,
            stress=arrival.outcome.get("stress"),
            converged=arrival.converged,
            steps=self.walker.steps,
        )


class _Relaxer:
    """Keeps the device busy: structures that are done leave, waiting ones enter."""

    def __init__(self, model: CrystalModel, fmax: float, steps: int, relax_cell: bool) -> None:
        self.model, self.fmax, self.steps, self.relax_cell = model, fmax, steps, relax_cell
        self.dispersion: Dispersion | None = None
        self.budget = budget_of(model.device)
        self.waiting: deque[_Run] = deque()
        self.running: list[_Run] = []

    def run(self, structures: Iterable[Any]) -> Iterator[tuple[int, Relaxed]]:
        """Relax all; yield number and result as they are ready."""
        stream = enumerate(structures)
        while True:
            yield from self._admit(stream)
            if not self.running:
                return
            arrivals = self._move()
            done = [(self.running[arrival.number], arrival) for arrival in arrivals]
            for run, arrival in done:
                self.running.remove(run)
                yield run.number, run.result(arrival)

    def _admit(self, stream: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Relaxed]]:
        """Fill the batch; yield the failures of those that cannot even start."""
        spent = sum(run.walker.work for run in self.running)
        while spent < self.budget:
            if self.waiting:
                run = self.waiting.popleft()
            else:
                number, structure = next(stream, (None, None))
                if number is None:
                    return
                try:
                    run = _Run(number, structure, self.model, self.relax_cell)
                except CrystalformerError as error:
                    yield number, Relaxed(atoms=None, error=_told(error))
                    continue
            spent += run.walker.work
            if self.running and spent > self.budget:
                self.waiting.appendleft(run)
            else:
                self.running.append(run)

    def _move(self) -> list[Arrival]:
        """Move what is running until something is done; send half of it back if it does not fit."""
        walkers = [run.walker for run in self.running]
        try:
            return Descent(walkers, self.model, self.fmax, self.steps, self.dispersion).run()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        if len(walkers) == 1:
            told = f"{len(walkers[0].free)} atoms do not fit the memory. Use a smaller cell."
            return [Arrival(0, OutOfMemory(told))]
        self.budget = sum(walker.work for walker in walkers) // 2
        half = len(walkers) // 2
        self.waiting.extendleft(reversed(self.running[half:]))
        del self.running[half:]
        return []


def _free_atoms(atoms: "Atoms") -> Bool[ndarray, " atoms"]:
    """Say which atoms may move.

    Raises:
        BadStructure: if there are other constraints than fixed atoms.
    """
    from ase.constraints import FixAtoms

    free = np.ones(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms):
            raise BadStructure(
                f"{type(constraint).__name__} cannot be kept here; only FixAtoms can. Remove it, "
                "or relax with ASE's optimisers and CrystalformerCalculator."
            )
        free[constraint.index] = False
    return free


def _told(error: CrystalformerError) -> str:
    return f"{type(error).__name__}: {error}"
