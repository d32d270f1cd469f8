"""Relaxations as trajectories of ASE: one whole file per structure, which is not made twice."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.quantities import UNCERTAINTIES, Quantities
from ase_crystalformer.relaxation.relaxed import Relaxed, put_results
from ase_crystalformer.structures import as_atoms, as_crystal
from ase_crystalformer.writing import whole

if TYPE_CHECKING:
    from ase import Atoms

SUFFIX = ".traj"

FORMS = "Give a folder, or a list with one path per structure."


@dataclass(frozen=True, eq=False)
class Place:
    """Where a structure was on its way.

    Attributes:
        positions: Å.
        cell: Å.
        known: Energy, forces and stress there.
    """

    positions: Float[ndarray, "atoms 3"]
    cell: Float[ndarray, "3 3"]
    known: Quantities


def check_trajectory(
    told: str | Path | Sequence[str | Path], structures: int | None
) -> Path | list[Path]:
    """Say where trajectories go, before anything is computed for them.

    Args:
        told: A folder, or one path per structure; of a single one also the path of its file,
            which ends in ``.traj``.
        structures: How many there are; ``None`` if that will only show.

    Raises:
        BadRecipe: There are more or fewer paths than structures, one is there twice, a folder is
            named for a file, or a file for a folder.
    """
    if isinstance(told, str | Path):
        folder = Path(told)
        if folder.suffix == SUFFIX and not folder.is_dir():
            if structures != 1:
                raise BadRecipe(f"trajectory: {folder} is a file, and not one of each. {FORMS}")
            return check_trajectory([folder], structures)
        _check_folders([folder])
        return folder
    paths = [Path(path) for path in told]
    if structures is not None and len(paths) != structures:
        raise _other_count(len(paths), str(structures))
    if twice := {path for path, count in Counter(paths).items() if count > 1}:
        raise BadRecipe(f"trajectory names {min(twice)} twice. {FORMS}")
    if folders := [path for path in paths if path.is_dir()]:
        raise BadRecipe(f"trajectory: {folders[0]} is a folder, and stands for a file. {FORMS}")
    _check_folders({path.parent for path in paths})
    return paths


def _check_folders(folders: Iterable[Path]) -> None:
    """Refuse folders that cannot be made because a file is in the way."""
    for place in (place for folder in folders for place in (folder, *folder.parents)):
        if place.exists() and not place.is_dir():
            raise BadRecipe(f"trajectory: {place} is a file, and stands for a folder. {FORMS}")


def _other_count(paths: int, structures: str) -> BadRecipe:
    return BadRecipe(f"trajectory names {paths} paths for {structures} structures. {FORMS}")


@dataclass(frozen=True)
class Trajectories:
    """Where the trajectories of a stream of structures are.

    Attributes:
        paths: A folder, in which files are called by the number of the structure; or one file per
            structure.
        settings: What decides a way, as plain values. A file says them, and is made anew under
            others.
        made_by: What computes, as the frames tell it.
    """

    paths: Path | Sequence[Path]
    settings: dict[str, Any]
    made_by: Mapping[str, Any]

    def path(self, number: int) -> Path:
        """Name the file of a structure."""
        if isinstance(self.paths, Path):
            return self.paths / f"{number:06d}{SUFFIX}"
        if number >= len(self.paths):
            raise _other_count(len(self.paths), f"more than {number}")
        return self.paths[number]

    def finished(self, number: int, structure: Any) -> Relaxed | None:
        """Read how a structure fared; ``None`` if it was not relaxed from there in this way."""
        from ase.io.trajectory import Trajectory

        path = self.path(number)
        if not path.is_file():
            return None
        try:
            with Trajectory(path) as frames:
                last, told = frames[-1], frames.description or {}
        except Exception:  # of whatever reads it: then it is no trajectory
            return None
        if told.get("of") != self._mark(structure) or told["error"]:
            return None
        return _at_the_end(structure, last, told, self.made_by)

    def write(self, number: int, structure: Any, relaxed: Relaxed, way: Sequence[Place]) -> None:
        """Write the way of a structure; the file appears complete or not at all.

        Args:
            number: Of the structure.
            structure: Where it came in.
            relaxed: How it fared.
            way: Where it was, from the first place to the last.
        """
        from ase.io.trajectory import Trajectory

        if relaxed.atoms is None or not way:
            return
        path = self.path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial, Trajectory(partial, "w") as file:
            file.set_description({"of": self._mark(structure), **_told(relaxed)})
            for place in way:
                frame = _frame(relaxed.atoms, place.positions, place.cell)
                put_results(frame, place.known, self.made_by)
                file.write(frame)

    def _mark(self, structure: Any) -> str:
        """Tell apart starts and settings."""
        crystal = as_crystal(structure)
        total = hashlib.sha256(repr(sorted(self.settings.items())).encode())
        for part in (crystal.species, crystal.positions, crystal.cell, crystal.periodic):
            total.update(np.ascontiguousarray(part).tobytes())
        if constraints := getattr(structure, "constraints", None):
            total.update(repr([one.todict() for one in constraints]).encode())
        return total.hexdigest()


def _frame(
    atoms: "Atoms", positions: Float[ndarray, "atoms 3"], cell: Float[ndarray, "3 3"]
) -> "Atoms":
    """Put atoms somewhere."""
    frame = atoms.copy()
    vectors = frame.cell.array.copy()
    vectors[frame.pbc] = cell[frame.pbc]
    frame.set_cell(vectors, apply_constraint=False)
    frame.set_positions(positions, apply_constraint=False)
    return frame


def _told(relaxed: Relaxed) -> dict[str, Any]:
    """What ASE's frames do not say of the end, as plain values."""
    uncertain = {name: getattr(relaxed, name) for name in UNCERTAINTIES}
    return {
        "error": relaxed.error,
        "fmax": relaxed.fmax,
        "converged": relaxed.converged,
        "steps": relaxed.steps,
        **{name: np.asarray(v).tolist() for name, v in uncertain.items() if v is not None},
    }


def _at_the_end(
    structure: Any, last: "Atoms", told: dict[str, Any], made_by: Mapping[str, Any]
) -> Relaxed:
    atoms = _frame(as_atoms(structure), last.positions, last.cell.array)
    uncertain = {name: told[name] for name in UNCERTAINTIES if name in told}
    arrays: dict[str, Any] = {k: np.asarray(v) if np.ndim(v) else v for k, v in uncertain.items()}
    known = {**last.calc.results, **arrays}
    put_results(atoms, known, made_by)
    return Relaxed(
        atoms=atoms,
        energy=float(known["energy"]),
        fmax=told["fmax"],
        stress=known.get("stress"),
        converged=told["converged"],
        steps=told["steps"],
        **arrays,
    )
