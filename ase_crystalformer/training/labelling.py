"""Let a teacher, any ASE calculator, label frames one by one; what is done is on disk at once."""

import io
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from ase_crystalformer.data.crystals import leave_out
from ase_crystalformer.writing import whole

if TYPE_CHECKING:
    from ase import Atoms


def label_frames(
    frames: Iterable["Atoms"],
    teacher: Any,
    path: Path,
    *,
    total: int | None = None,
    progress: bool = True,
) -> dict[str, str]:
    """Append every frame with the energy, forces and stress of a teacher to an extended XYZ file.

    Frames whose ``info["id"]`` the file holds already are not computed again. A frame that the
    teacher cannot compute is named in a warning, and the others go on.

    Args:
        frames: Each with an ``id`` in its info; read one by one.
        teacher: An ASE calculator. Where it has no stress, frames have none.
        path: The file; what an interrupt left of a frame at its end is removed.
        total: How many frames, for the progress bar.
        progress: Show a bar with the rate.

    Returns:
        What failed, by id, and why.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _repair(path)
    failed: dict[str, str] = {}
    bar = tqdm(frames, total=total, unit=" frames", desc="label", disable=not progress)
    with path.open("a", encoding="utf-8") as file:
        for atoms in bar:
            name = str(atoms.info["id"])
            if name in done:
                continue
            try:
                text = _labelled(atoms, teacher)
            except Exception as error:  # a foreign calculator may raise anything
                failed[name] = f"{type(error).__name__}: {error}"
                leave_out(name, failed[name])
                continue
            file.write(text)
            file.flush()
    return failed


def _labelled(atoms: "Atoms", teacher: Any) -> str:
    """Compute a frame and write it as text."""
    from ase.calculators.calculator import PropertyNotImplementedError
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    asked = atoms.copy()
    asked.calc = teacher
    labels: dict[str, Any] = {
        "energy": float(asked.get_potential_energy()),
        "forces": np.array(asked.get_forces()),
    }
    if atoms.pbc.all():
        with suppress(PropertyNotImplementedError, NotImplementedError):
            labels["stress"] = np.array(asked.get_stress())
    for name, value in labels.items():
        if not np.isfinite(value).all():
            raise ValueError(f"the teacher's {name} is not finite")
    frame = atoms.copy()
    frame.calc = SinglePointCalculator(frame, **labels)
    text = io.StringIO()
    write(text, frame, format="extxyz")
    return text.getvalue()


def _repair(path: Path) -> set[str]:
    """Cut a file behind its last whole frame; return the ids it holds."""
    from ase.io.extxyz import key_val_str_to_dict

    if not path.is_file():
        return set()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    done, start = set(), 0
    while start < len(lines) and lines[start].strip().isdigit():
        end = start + int(lines[start]) + 2
        if end > len(lines) or not lines[end - 1].endswith("\n"):
            break
        done.add(str(key_val_str_to_dict(lines[start + 1].strip())["id"]))
        start = end
    if start < len(lines):
        with whole(path) as kept:
            kept.write_text("".join(lines[:start]), encoding="utf-8")
    return done
