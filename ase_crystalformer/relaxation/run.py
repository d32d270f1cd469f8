"""Many crystals relaxed at once on one device, atoms and cells."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch

from ase_crystalformer.batching import budget_of, out_of_memory
from ase_crystalformer.dispersion import Dispersion
from ase_crystalformer.errors import CrystalformerError, OutOfMemory, unknown_name
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.model_file import digest
from ase_crystalformer.outside import outside, warn_outside
from ase_crystalformer.prediction import as_list
from ase_crystalformer.pretrained import Precision, digest_of, name_of, shared_potential
from ase_crystalformer.relaxation.descent import OPTIMISERS, Arrival, Descent, Walker
from ase_crystalformer.relaxation.freedom import CellFreedom, Freedom, check_cell_freedom, symmetric
from ase_crystalformer.relaxation.relaxed import Relaxed, put_results
from ase_crystalformer.relaxation.trajectories import Trajectories, check_trajectory
from ase_crystalformer.structures import as_atoms, as_crystal


def relax(  # noqa: PLR0913  what is asked, where it runs
    structures: Any,
    *,
    model: str | Path | CrystalModel = "default",
    fmax: float = 0.05,
    steps: int = 500,
    relax_cell: CellFreedom = True,
    keep_symmetry: bool = False,
    optimiser: str = "fire",
    device: str = "auto",
    dtype: Precision = "float32",
    dispersion: str | None = None,
    trajectory: str | Path | Sequence[str | Path] | None = None,
    progress: bool = True,
) -> list[Relaxed]:
    """Relax many structures, as many at once as the device holds.

    Takes the steps of ASE's FIRE with a FrechetCellFilter, and stops when no force on an atom, and
    no row of stress times volume per atom, exceeds ``fmax``. Cells relax along the directions they
    repeat. ``FixAtoms``, ``FixScaled`` and ``FixSymmetry`` are kept, and where the cell is fixed
    ``FixCartesian``, ``FixedLine`` and ``FixedPlane``; a structure with another constraint fails.

    Args:
        structures: ASE, pymatgen or JARVIS structures, or one of them. They are not changed.
        model: A potential: a name (see ``list_models``), the path of a model, or a model.
        fmax: Force below which a structure is relaxed, eV/Å.
        steps: How often a structure may move.
        relax_cell: Relax the cell too; ``"volume"`` or ``"shape"`` alone; or six times true or
            false for the strains xx, yy, zz, yz, xz, xy.
        keep_symmetry: Move structures onto the symmetry they have within 0.01 Å, and keep it.
        optimiser: ``"fire"``, or ``"lbfgs"``, which needs fewer steps.
        device: ``"auto"`` takes a CUDA device if there is one.
        dtype: Precision of forces; positions are always float64.
        dispersion: Add Grimme's D3 for PBE, ``"d3bj"`` or ``"d3zero"``, as the calculator does.
        trajectory: A folder for the way of every structure, as files that ASE reads, called by
            number; or one path per structure. A file appears when its structure is done; a
            structure whose file is there, of the same start and settings, is not relaxed again.
        progress: Show a bar.

    Returns:
        One result per structure, in their order. A structure that fails says why and leaves the
        others alone.

    Raises:
        UnknownName: There is no such model, optimiser or dispersion.
        NoForces: The model is no potential, or its energy has kinks.
        MissingExtra: Dispersion is asked for and simple-dftd3 is not installed.
        ValueError: ``relax_cell`` is none of the above, or ``fmax`` or ``steps`` is negative.
        BadRecipe: ``trajectory`` is neither a folder nor one path per structure.

    Warns:
        OutsideTraining: Once, if structures ended outside of what a calibrated potential knows.

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
        keep_symmetry=keep_symmetry,
        optimiser=optimiser,
        device=device,
        dtype=dtype,
        dispersion=dispersion,
        trajectory=trajectory,
    )
    with tqdm(total=len(structures), disable=not progress, unit="crystal") as bar:
        results: dict[int, Relaxed] = {}
        for number, result in found:
            results[number] = result
            bar.update()
    name = model.card.name if isinstance(model, CrystalModel) else str(model)
    warn_outside(_strange(results), len(results), name)
    return [results[number] for number in range(len(structures))]


def relax_each(  # noqa: PLR0913  as of relax
    structures: Iterable[Any],
    *,
    model: str | Path | CrystalModel = "default",
    fmax: float = 0.05,
    steps: int = 500,
    relax_cell: CellFreedom = True,
    keep_symmetry: bool = False,
    optimiser: str = "fire",
    device: str = "auto",
    dtype: Precision = "float32",
    dispersion: str | None = None,
    trajectory: str | Path | Sequence[str | Path] | None = None,
) -> Iterator[tuple[int, Relaxed]]:
    """Relax a stream of structures, however long; yield results as they are ready.

    Structures are read when there is room for them on the device, and forgotten when they are
    done. Arguments and errors are those of ``relax``.

    Yields:
        The number of a structure in the stream and its result, in any order.
    """
    if optimiser not in OPTIMISERS:
        raise unknown_name("optimiser", optimiser, OPTIMISERS)
    check_cell_freedom(relax_cell)
    _check_limits(fmax, steps)
    added = Dispersion(dispersion) if dispersion else None
    task = _Task(fmax, steps, relax_cell, keep_symmetry, optimiser, added)
    count = len(structures) if isinstance(structures, Sized) else None
    paths = None if trajectory is None else check_trajectory(trajectory, count)
    potential = shared_potential(model, device, dtype)
    made_by = {"model": name_of(model), "sha256": digest_of(model)}
    made_by |= {"device": str(potential.device), "dtype": dtype, "dispersion": dispersion}
    ways = None
    if paths is not None:
        settings = {**vars(task), "dispersion": dispersion, "dtype": dtype}
        settings["model"] = digest(potential.state_dict())
        ways = Trajectories(paths, settings, made_by)
    return _Relaxer(potential, task, ways, made_by).run(structures)


def _check_limits(fmax: float, steps: int) -> None:
    """Refuse what no relaxation can reach."""
    if not isinstance(fmax, Real) or not fmax >= 0:
        raise ValueError(f"fmax is {fmax!r}; give a force in eV/Å, zero or more.")
    if not isinstance(steps, Integral) or steps < 0:
        raise ValueError(f"steps is {steps!r}; give a whole number, zero or more.")


@dataclass(frozen=True)
class _Task:
    """What is asked; see ``relax``."""

    fmax: float
    steps: int
    relax_cell: CellFreedom
    keep_symmetry: bool
    optimiser: str
    dispersion: Dispersion | None


class _Run:
    """A structure that is relaxed, and what came in."""

    def __init__(self, number: int, structure: Any, model: CrystalModel, task: _Task) -> None:
        crystal = as_crystal(structure)
        model.check_elements(torch.from_numpy(crystal.species))
        self.number = number
        self.atoms = as_atoms(structure).copy()
        held = symmetric(self.atoms) if task.keep_symmetry else self.atoms
        freedom = Freedom.of(held, task.relax_cell)
        cutoff = model.encoder.rule.cutoff
        self.start = structure
        self.walker = Walker.of(as_crystal(held), cutoff, freedom, task.optimiser)

    def result(self, arrival: Arrival, made_by: dict[str, Any]) -> Relaxed:
        """Write down how it fared."""
        atoms, mover = self.atoms, self.walker.mover
        cell = atoms.cell.array.copy()
        cell[atoms.pbc] = mover.cell[atoms.pbc]
        atoms.set_cell(cell, apply_constraint=False)
        atoms.set_positions(mover.positions, apply_constraint=False)
        if isinstance(arrival.outcome, CrystalformerError):
            return Relaxed(atoms=atoms, steps=self.walker.steps, error=_told(arrival.outcome))
        known = arrival.outcome
        put_results(atoms, known, made_by)
        return Relaxed(
            atoms=atoms,
            energy=known["energy"],
            energy_uncertainty=known.get("energy_uncertainty"),
            forces_uncertainty=known.get("forces_uncertainty"),
            novelty=known.get("novelty"),
            fmax=arrival.fmax,
            stress=known.get("stress"),
            converged=arrival.converged,
            steps=self.walker.steps,
        )


class _Relaxer:
    """Keeps the device busy: structures that are done leave, waiting ones enter."""

    def __init__(
        self,
        model: CrystalModel,
        task: _Task,
        ways: Trajectories | None,
        made_by: dict[str, Any],
    ) -> None:
        self.model, self.task, self.ways, self.made_by = model, task, ways, made_by
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
                relaxed = run.result(arrival, self.made_by)
                if self.ways:
                    self.ways.write(run.number, run.start, relaxed, run.walker.way or [])
                yield run.number, relaxed

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
                    if self.ways and (known := self.ways.finished(number, structure)):
                        yield number, known
                        continue
                    run = _Run(number, structure, self.model, self.task)
                    run.walker.way = [] if self.ways else None
                except (CrystalformerError, MemoryError) as error:
                    yield number, Relaxed(atoms=None, error=_told(error))
                    continue
            spent += run.walker.work
            if self.running and spent > self.budget:
                self.waiting.appendleft(run)
            else:
                self.running.append(run)

    def _move(self) -> list[Arrival]:
        """Move what is running until something is done; send half of it back if it does not fit."""
        walkers, task = [run.walker for run in self.running], self.task
        try:
            return Descent(walkers, self.model, task.fmax, task.steps, task.dispersion).run()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if len(walkers) == 1:
            told = f"{walkers[0].atoms} atoms do not fit the memory. Use a smaller cell."
            return [Arrival(0, OutOfMemory(told))]
        self.budget = sum(walker.work for walker in walkers) // 2
        half = len(walkers) // 2
        self.waiting.extendleft(reversed(self.running[half:]))
        del self.running[half:]
        return []


def _strange(results: dict[int, Relaxed]) -> dict[int, str]:
    """Name what ended outside of what the model knows."""
    ended = [(number, one.atoms, one.novelty) for number, one in results.items()]
    return {number: outside(new, atoms.numbers) for number, atoms, new in ended if atoms}


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
