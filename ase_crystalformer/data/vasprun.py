"""Frames of VASP's ``vasprun.xml``, and which of them have electrons that did not converge."""

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ase_crystalformer.errors import BadStructure

#: VASP's own number of electronic steps, where the file does not tell.
USUAL_STEPS = 60


def read_vasprun(path: Path) -> Iterator[tuple[Any, str | None]]:
    """Yield every ionic step as ``ase.Atoms``, and why it is of no use, if it is not.

    A step whose electrons took as many steps as ``NELM`` allows has not converged. Energies are
    those extrapolated to no smearing, ASE's and Materials Project's choice. A file cut off by the
    end of a job gives the steps that are complete.

    Args:
        path: May be gzip'd.

    Raises:
        BadStructure: This is no such file.
    """
    from ase.io import read

    stored = path.read_bytes()
    text = gzip.decompress(stored) if path.suffix == ".gz" else stored
    counts, allowed = _electronic_steps(text)
    try:
        frames = read(io.StringIO(text.decode("utf-8", "replace")), ":", format="vasp-xml")
    except Exception as error:
        raise BadStructure(
            f"ASE cannot read {path} as vasprun.xml ({type(error).__name__}: {error}). Was the job "
            "cut off before its first step?"
        ) from error
    for number, atoms in enumerate(frames):
        steps = counts[number] if number < len(counts) else 0
        if atoms.calc is None or "energy" not in atoms.calc.results:
            yield atoms, "It has no energy: the calculation was cut off in it."
        elif steps >= allowed:
            yield atoms, f"Its electrons did not converge within NELM = {allowed} steps."
        else:
            yield atoms, None


def _electronic_steps(text: bytes) -> tuple[list[int], int]:
    """Count the electronic steps of every ionic step, and read how many were allowed."""
    counts: list[int] = []
    allowed = USUAL_STEPS
    try:
        for event, element in ElementTree.iterparse(io.BytesIO(text), events=["start", "end"]):
            if event == "start" and element.tag == "calculation":
                counts.append(0)
            elif event == "end" and element.tag == "scstep":
                counts[-1] += 1
            elif event == "end" and element.get("name") == "NELM" and element.text:
                allowed = int(element.text)
    except ElementTree.ParseError:
        pass  # cut off: what was read counts
    return counts, allowed
