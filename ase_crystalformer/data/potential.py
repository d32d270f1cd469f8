"""The mixture potentials are trained on: energies, forces and stresses from many sources."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ase_crystalformer.data.crystals import LabelledCrystal, Labels, Split
from ase_crystalformer.data.holdout import split_by_block, split_by_name, split_by_series
from ase_crystalformer.data.readers import load

#: Sets of runs of frames, of which neighbours resemble each other.
RUNS = ("mlearn", "monbtaw", "polymlp_agau", "polymlp_mgo", "polymlp_fe", "polymlp_srtio3")

#: Frames with a force component beyond this are collisions no simulation should reach, eV/Å.
LARGEST_FORCE = 50.0

SEED = 20261120


def potential(
    data_dir: Path | str,
    *,
    seed: int = SEED,
    largest_force: float = LARGEST_FORCE,
    chgnet: bool = False,
) -> Iterator[LabelledCrystal]:
    """Read every set with energies, forces or stresses, each split into training and validation.

    Where a crystal has an official part its frames follow it. ``group`` names the scale a total
    energy stands on: give each its own elemental references.

    Args:
        data_dir: Folder with the data sets.
        seed: Chooses what is held out where the source has no split.
        largest_force: Frames with a larger force component are left out, eV/Å.
        chgnet: Whether to include CHGNet's pseudo-labels, of another energy scale.
    """
    for crystal in _every(data_dir, seed, chgnet):
        forces = crystal.labels.get("forces")
        if forces is None or np.abs(forces).max() <= largest_force:
            yield crystal


def _every(data_dir: Path | str, seed: int, chgnet: bool) -> Iterator[LabelledCrystal]:
    parts: dict[str, Split] = {}
    for crystal in load("mp_labelled", data_dir):
        parts[crystal.id] = crystal.split or split_by_name(crystal.id, seed)
        if "energy_per_atom" in crystal.labels:
            yield at_rest(crystal.in_split(parts[crystal.id]))
    for name in ("mp_perturbed_sevennet", *(("mp_perturbed_chgnet",) if chgnet else ())):
        for crystal in load(name, data_dir):
            parent = crystal.info["material_id"]
            yield crystal.in_split(parts.get(parent) or split_by_name(parent, seed))
    yield from split_by_series(load("eos_vasp_pbe", data_dir), seed)
    for name in RUNS:
        yield from split_by_block(load(name, data_dir), seed)


def at_rest(crystal: LabelledCrystal) -> LabelledCrystal:
    """Label a relaxed crystal: total energy, and in training no forces and no stress.

    Only cells of the calculation that gave the energy are at rest; newer cells are not.
    """
    energy = crystal.labels["energy_per_atom"]
    labels: Labels = {"energy": energy * crystal.atoms}
    if crystal.split == "train" and crystal.info["structure_source"] == "mp_2018":
        labels["forces"] = np.zeros((crystal.atoms, 3))
        labels["stress"] = np.zeros((3, 3))
    return crystal.labelled(labels)
