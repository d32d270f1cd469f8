"""Crystals with energies and forces: read from a file, or made with ASE's EMT on the fly."""

import gzip
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from scipy.spatial.transform import Rotation

#: Metals of EMT and their lattice constants, Å.
METALS = {"Cu": 3.61, "Ag": 4.09, "Au": 4.08, "Pd": 3.89}

#: A file is cut into so many runs of frames; validation takes a fifth of them as wholes.
RUNS = 50


def frames_of(path: Path, only: Sequence[str] = ()) -> list[Atoms]:
    """Read every frame that has an energy and forces, and, if asked, only these elements."""
    if path.suffix == ".gz":
        # ASE reads a zipped text in quadratic time.
        with gzip.open(path, "rt", encoding="utf-8") as file:
            frames = read(StringIO(file.read()), ":", format="extxyz")
    else:
        frames = read(path, ":")
    known = [
        atoms
        for atoms in frames
        if {"energy", "forces"} <= set(_labels(atoms))
        and (not only or set(atoms.symbols) <= set(only))
    ]
    if not known:
        named = f" and no elements but {', '.join(only)}" if only else ""
        raise SystemExit(f"No frame in {path} has an energy and forces{named}.")
    return known


def emt_frames(number: int, seed: int = 0) -> list[Atoms]:
    """Make face-centred alloys of 32 atoms, strained and rattled, labelled by ASE's EMT."""
    random = np.random.default_rng(seed)
    frames = []
    for _ in range(number):
        names = random.choice(list(METALS), 32, p=random.dirichlet(np.ones(len(METALS))))
        constant = np.mean([METALS[name] for name in names])
        atoms = bulk("Cu", "fcc", a=constant, cubic=True).repeat(2)
        atoms.symbols = list(names)
        strain = np.eye(3) + random.normal(scale=0.02, size=(3, 3))
        atoms.set_cell(atoms.cell @ strain, scale_atoms=True)
        atoms.positions += random.normal(scale=random.uniform(0.05, 0.2), size=(32, 3))
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return frames


def split(frames: list[Atoms], largest: int, validation: int) -> tuple[list[Atoms], list[Atoms]]:
    """Draw crystals to train on, in random order, and crystals to judge by, each turned at random.

    Frames that follow each other are much alike, so validation takes other runs of frames than
    training. Supercells of one set often point the same way; turned, no model profits from it.

    Args:
        frames: In the order of the file.
        largest: How many to train on at most.
        validation: How many to judge by.
    """
    random = np.random.default_rng(0)
    runs = min(RUNS, len(frames))
    run = np.arange(len(frames)) * runs // len(frames)
    judged = np.isin(run, random.permutation(runs)[: runs // 5])
    parts = []
    for part, wanted in ((~judged, largest), (judged, validation)):
        found = random.permutation(np.flatnonzero(part))[:wanted]
        if len(found) < wanted:
            raise SystemExit(
                f"The plan asks for {largest} crystals and {validation} to judge by; of "
                f"{len(frames)} frames only {len(found)} are left for one of the two."
            )
        parts.append([turned(frames[number], random) for number in found])
    return parts[0], parts[1]


def turned(atoms: Atoms, random: np.random.Generator) -> Atoms:
    """Rotate a crystal with its energy and forces at random; other labels are dropped."""
    labels = _labels(atoms)
    turn = Rotation.random(rng=random).as_matrix().T
    result = Atoms(
        atoms.numbers, positions=atoms.positions @ turn, cell=atoms.cell @ turn, pbc=atoms.pbc
    )
    forces = np.asarray(labels["forces"]) @ turn
    result.calc = SinglePointCalculator(result, energy=labels["energy"], forces=forces)
    return result


def _labels(atoms: Atoms) -> dict[str, object]:
    return {} if atoms.calc is None else atoms.calc.results
