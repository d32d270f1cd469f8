"""Crystals a little out of rest: DFT says where rest is, a potential how energies rise around it.

A potential errs about where a crystal is at rest, and much less about how stiff it is there. So its
forces and stress at the positions DFT found are subtracted from those of every frame, and from its
energy what they do on the way there: what is left vanishes where DFT says, and curves as the
potential does.
"""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ase_crystalformer.data.crystals import LabelledCrystal, Labels
from ase_crystalformer.data.duplicates import Duplicates
from ase_crystalformer.data.perturbations import Perturbation
from ase_crystalformer.data.properties import reserved_ids
from ase_crystalformer.data.readers import load

#: Benchmarks with curvatures to be found; their crystals are no parents.
TESTED = ("elasticity", "phonon_heat_capacity")

#: How far the crystals are moved.
AMOUNTS = Perturbation(frames=3, rattle=(0.01, 0.08), strain=0.03, squeeze=0.02, seed=1)

#: Larger crystals are no parents, and neither are sparser ones, Å³ per atom.
LARGEST, SPARSEST = 12, 60.0

#: Where a potential finds more force (eV/Å) or stress (eV/Å³) in a crystal that DFT has relaxed, it
#: does not know the crystal.
LARGEST_FORCE, LARGEST_STRESS = 0.3, 0.03


def parents(data_dir: Path | str, seed: int = 0) -> list[LabelledCrystal]:
    """Training crystals that DFT has relaxed, in random order; none that benchmarks test on.

    Crystals of other sets that look like one of those are left out, too.
    """
    reserved = reserved_ids(data_dir)
    known = list(load("mp_labelled", data_dir))
    tested = [row for row in known if row.id in reserved]
    for name in TESTED:
        tested += load(name, data_dir)
    names, twins = {row.id for row in tested}, Duplicates(tested)
    found = [row for row in known if is_parent(row) and row.id not in names]
    random.Random(seed).shuffle(found)
    return [row for row in found if row not in twins and row.volume <= SPARSEST * row.atoms]


def is_parent(row: LabelledCrystal) -> bool:
    """Say whether a crystal is small, to be trained on, and at rest in the calculation at hand."""
    relaxed = row.info["structure_source"] == "mp_2018" and "energy_per_atom" in row.labels
    return relaxed and row.atoms <= LARGEST and row.split == "train"


def near_rest(
    frames: Iterable[LabelledCrystal], energies: dict[str, float]
) -> Iterator[LabelledCrystal]:
    """Yield the moved frames of every crystal, with labels counted from its frame at rest.

    Args:
        frames: Of ``kind`` "rest", and then the others of the same ``parent``.
        energies: Energy of every parent at rest, eV/atom; of others no frame is taken.
    """
    rest: LabelledCrystal | None = None
    for frame in frames:
        parent = frame.info["parent"]
        if frame.info["kind"] == "rest":
            rest = frame if parent in energies and _is_known(frame.labels) else None
        elif rest is not None and rest.info["parent"] == parent:
            rise, stress = linear_rise(rest, frame)
            labels: Labels = dict(frame.labels)
            labels["energy"] += energies[parent] * frame.atoms - rest.labels["energy"] - rise
            labels["forces"] = frame.labels["forces"] - rest.labels["forces"]
            labels["stress"] = frame.labels["stress"] - stress
            yield frame.labelled(labels).in_split("train")


def linear_rise(
    rest: LabelledCrystal, frame: LabelledCrystal
) -> tuple[float, Float[ndarray, "3 3"]]:
    r"""Energy that forces and stress at rest account for, eV, and its stress, eV/Å³.

    .. math::

        E = V \sigma : (C - 1) - \sum_i F_i \cdot u_i, \quad
        V' \sigma' = \mathrm{sym}\,(V C^T \sigma - \sum_i u_i F_i^T)

    where the cell is changed by C, and atoms are moved by u besides.
    """
    change = np.linalg.solve(rest.cell, frame.cell)
    moved = frame.positions - rest.positions @ change
    virial = rest.volume * rest.labels["stress"]
    rise = np.sum(virial * (change - np.eye(3))) - np.sum(rest.labels["forces"] * moved)
    slope = change.T @ virial - moved.T @ rest.labels["forces"]
    return float(rise), (slope + slope.T) / (2 * frame.volume)


def _is_known(labels: Labels) -> bool:
    forces, stress = np.abs(labels["forces"]).max(), np.abs(labels["stress"]).max()
    return bool(forces <= LARGEST_FORCE and stress <= LARGEST_STRESS)
