"""A user's own frames: files, folders and globs of them, each frame once, each with its labels."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ase_crystalformer.data.crystals import LabelledCrystal, leave_out
from ase_crystalformer.data.files import read_file
from ase_crystalformer.errors import BadStructure, MissingData
from ase_crystalformer.writing import is_partial

#: What the frames are called as a source.
SOURCE = "own"

#: Files that are read where a folder is given; each may be gzip'd.
PATTERNS = ("*.extxyz", "*.xyz", "*.db", "*.aselmdb", "*.traj", "*vasprun*.xml")

#: Remarks by which files say that a calculation came to no good end.
CONVERGED = ("converged", "scf_converged", "electronic_converged")
NO = ("False", "false", "F", "0", "0.0", "no")

#: Frames that agree to this many digits of an Å are the same.
DIGITS = 3

#: What a frame needs at least one of.
WANTED = ("energy", "forces", "stress")


def read_frames(sources: Iterable[str | Path], *, group: str) -> Iterator[LabelledCrystal]:
    """Read every frame with an energy, forces or a stress; a warning names each that is left out.

    Left out are frames that cannot be read or have no label, whose calculation did not converge,
    and those seen before.

    Args:
        sources: Extended XYZ, ASE databases (SQLite, LMDB) and trajectories, ``vasprun.xml``,
            whatever else ``read_file`` takes; folders, searched at every depth; globs. Energies in
            eV, forces in eV/Å, stresses in eV/Å³ with ASE's sign, as ASE gives them.
        group: The scale their energies stand on.

    Raises:
        MissingData: A source does not exist, or holds no file that is read.
    """
    seen: dict[bytes, LabelledCrystal] = {}
    for path in files_of(sources):
        try:
            for frame in read_file(path, group=group):
                own = replace(frame, id=f"{path}#{frame.id}", source=SOURCE)
                problem = _problem(own, seen)
                if problem is None:
                    yield own
                else:
                    leave_out(own.id, problem)
        except BadStructure as error:
            leave_out(str(path), str(error))


def files_of(sources: Iterable[str | Path]) -> list[Path]:
    """Name every file once, those of folders and globs in alphabetical order.

    Files that were never written to their end are passed by.

    Raises:
        MissingData: A source stands for no file.
    """
    found: dict[Path, None] = {}
    for source in map(Path, sources):
        if source.is_file():
            matches = [source]
        elif source.is_dir():
            patterns = [name for base in PATTERNS for name in (base, f"{base}.gz")]
            matches = sorted({path for name in patterns for path in source.rglob(name)})
        else:
            matches = sorted(Path(source.anchor).glob(str(source.relative_to(source.anchor))))
        if not source.is_file():
            matches = [path for path in matches if path.is_file() and not is_partial(path)]
        if not matches:
            raise MissingData(
                f"{source} is no file, and no folder or glob that holds one. Folders are searched "
                f"for {', '.join(PATTERNS)}, gzip'd or not; give others by name."
            )
        found |= dict.fromkeys(matches)
    return list(found)


def _problem(frame: LabelledCrystal, seen: dict[bytes, LabelledCrystal]) -> str | None:
    """Say why a frame is not used; remember it if it is."""
    if not any(name in frame.labels for name in WANTED):
        return "It has neither energy nor forces nor stress. Was the result written along?"
    if any(frame.info.get(key) in NO for key in CONVERGED):
        return "Its calculation says that it did not converge."
    key = _fingerprint(frame)
    if key in seen:
        twin = seen[key]
        first, second = (float(one.labels.get("energy", np.nan)) for one in (twin, frame))
        apart = (
            "" if np.isnan(first - second) else f"; energies differ by {abs(first - second):.2g} eV"
        )
        return f"The same frame as {twin.id}{apart}."
    seen[key] = frame
    return None


def _fingerprint(frame: LabelledCrystal) -> bytes:
    """Bytes that two frames share if they agree to a thousandth of an Å."""
    places = np.round(np.concatenate([frame.cell, frame.positions]), DIGITS) + 0.0  # no -0
    return frame.species.tobytes() + frame.periodic.tobytes() + places.tobytes()


def run_of(frame: LabelledCrystal) -> tuple[str, bytes]:
    """Name the run a frame belongs to: its file, and the atoms in it."""
    return frame.id.rpartition("#")[0], frame.species.tobytes()


def set_aside(
    frames: Sequence[LabelledCrystal], fraction: float, seed: int
) -> list[LabelledCrystal]:
    """Give each frame its part: as its file says; else hold out a fraction, in whole runs.

    Of each run of ten frames or more, consecutive ones of one file with the same atoms, a stretch
    is held out: neighbours in time are nearly the same frame. Shorter runs are held out whole if
    there are ten or more of them, else a stretch of all their frames.

    Args:
        frames: In their order.
        fraction: To hold out, at least one frame; none of a single frame.
        seed: Of the choice.
    """
    if any(frame.split for frame in frames):
        return [frame.in_split(frame.split or "train") for frame in frames]
    random = np.random.default_rng(seed)
    runs: dict[tuple[str, bytes], list[int]] = {}
    for number, frame in enumerate(frames):
        runs.setdefault(run_of(frame), []).append(number)
    long = [run for run in runs.values() if len(run) >= 10]
    short = [run for run in runs.values() if len(run) < 10]
    out: set[int] = set()
    for run in long:
        out.update(_stretch(run, fraction, random))
    if len(short) >= 10:
        count = max(1, round(fraction * len(short))) if fraction else 0
        for index in random.permutation(len(short))[:count]:
            out.update(short[index])
    elif not long:
        out.update(_stretch([number for run in short for number in run], fraction, random))
    return [
        frame.in_split("val" if number in out else "train") for number, frame in enumerate(frames)
    ]


def _stretch(run: list[int], fraction: float, random: np.random.Generator) -> list[int]:
    """Choose consecutive members of a run; never all."""
    length = min(max(1, round(fraction * len(run))) if fraction else 0, len(run) - 1)
    start = int(random.integers(len(run) - length + 1))
    return run[start : start + length]
