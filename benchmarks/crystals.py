"""Crystals to work on: textbook ones, random ones, and a hundred real ones."""

from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers
from ase.geometry import cellpar_to_cell
from ase.spacegroup import crystal
from numpy.typing import NDArray

from ase_crystalformer.data.extxyz import read_extxyz

SAMPLES = Path(__file__).parents[1] / "tests" / "samples"

ELEMENTS = ("Li", "O", "Mg", "Al", "Si", "S", "Ti", "Mn", "Fe", "Ni", "Cu", "Zn", "Zr", "Ba")

VOLUME = 20.0
"""Å³ per atom of a random crystal."""

CLOSEST = 1.9
"""Å between atoms of a random crystal."""


def silicon(times: int) -> Atoms:
    """8 atoms, repeated along each axis."""
    return bulk("Si", "diamond", a=5.43, cubic=True) * times


def silicon_block(cells: int) -> Atoms:
    """8 atoms, in a block of cells that is as near to a cube as their number allows."""
    first = max(n for n in range(1, round(cells ** (1 / 3)) + 2) if cells % n == 0)
    rest = cells // first
    second = max(n for n in range(1, round(rest**0.5) + 1) if rest % n == 0)
    return silicon(1) * (first, second, rest // second)


def salt(times: int) -> Atoms:
    """8 atoms, repeated along each axis."""
    return bulk("NaCl", "rocksalt", a=5.64, cubic=True) * times


def copper(times: int) -> Atoms:
    """4 atoms, repeated along each axis."""
    return bulk("Cu", "fcc", a=3.61, cubic=True) * times


def perovskite(times: int) -> Atoms:
    """SrTiO3: 5 atoms, repeated along each axis."""
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
    cell = [3.905, 3.905, 3.905, 90, 90, 90]
    return crystal(("Sr", "Ti", "O"), sites, spacegroup=221, cellpar=cell) * times


def spinel(a: float) -> Atoms:
    """MgAl2O4: 56 atoms of three kinds of site, in the cubic cell."""
    sites = [(0.125,) * 3, (0.5,) * 3, (0.2625,) * 3]
    cell = [a, a, a, 90, 90, 90]
    return crystal(("Mg", "Al", "O"), sites, spacegroup=227, setting=2, cellpar=cell)


def shaken(atoms: Atoms, frames: int, by: float = 0.02) -> list[Atoms]:
    """Copies of a crystal, every atom moved by about ``by`` Å along each axis, as in dynamics."""
    copies = [atoms.copy() for _ in range(frames)]
    for seed, copy in enumerate(copies):
        copy.rattle(by, seed=seed)
    return copies


def random_crystals(count: int, fewest: int, most: int, seed: int = 0) -> list[Atoms]:
    """Crystals of two or three elements without symmetry, no atoms closer than 1.9 Å."""
    rng = np.random.default_rng(seed)
    return [_random_crystal(rng, int(rng.integers(fewest, most + 1))) for _ in range(count)]


def _random_crystal(rng: np.random.Generator, atoms: int) -> Atoms:
    lengths, angles = rng.uniform(0.85, 1.15, 3), rng.uniform(75, 105, 3)
    cell = cellpar_to_cell([*lengths, *angles])
    cell *= np.cbrt(VOLUME * atoms / abs(np.linalg.det(cell)))
    placed = np.empty((0, 3))
    while len(placed) < atoms:
        place = rng.uniform(size=3)
        if _nearest(placed - place, cell) > CLOSEST:
            placed = np.vstack([placed, place])
    names = rng.choice(ELEMENTS, size=rng.integers(2, 4), replace=False)
    numbers = [atomic_numbers[name] for name in rng.choice(names, size=atoms)]
    return Atoms(numbers, scaled_positions=placed, cell=cell, pbc=True)


def _nearest(steps: NDArray[np.float64], cell: NDArray[np.float64]) -> float:
    """Length of the shortest of some fractional steps and their periodic images, Å."""
    images = np.array(list(product((-1, 0, 1), repeat=3)))
    vectors = (steps[:, None] - np.rint(steps)[:, None] + images) @ cell
    return float(np.linalg.norm(vectors, axis=-1).min(initial=np.inf))


@cache
def real_crystals(count: int) -> tuple[Atoms, ...]:
    """Crystals of Materials Project and MatBench, of 2 to 8 atoms; see tests/samples."""
    files = ("mp_labelled", "matbench_perovskites", "matbench_mp_joined")
    frames = [frame for file in files for frame in read_extxyz(SAMPLES / f"{file}.extxyz.gz")]
    every = max(1, len(frames) // count)
    return tuple(
        Atoms(frame.species, positions=frame.positions, cell=frame.cell, pbc=frame.periodic)
        for frame in frames[::every][:count]
    )
