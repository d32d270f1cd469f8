"""The mixture potentials are trained on: energies, forces and stresses from many sources."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from ase_crystalformer.data.close_pairs import close_pairs
from ase_crystalformer.data.compressed import compressed
from ase_crystalformer.data.consistency import HUBBARD, contradicted
from ase_crystalformer.data.crystals import LabelledCrystal, Labels, Split
from ase_crystalformer.data.duplicates import Duplicates
from ase_crystalformer.data.holdout import drawn, split_by_block, split_by_name, split_by_series
from ase_crystalformer.data.near_rest import near_rest
from ase_crystalformer.data.properties import is_sure, reserved_ids, sane_moduli
from ase_crystalformer.data.readers import load
from ase_crystalformer.data.references import (
    elements,
    energy_per_atom,
    isolated_atoms,
    most_stable,
)

#: Sets of runs of frames, of which neighbours resemble each other.
RUNS = ("mlearn", "monbtaw", "polymlp_agau", "polymlp_mgo", "polymlp_fe", "polymlp_srtio3")

#: Frames with a force component beyond this are collisions no simulation should reach, eV/Å.
LARGEST_FORCE = 50.0

SEED = 20261120

#: Share of the relaxed crystals that are labelled with vanishing forces and stress, and its seed.
AT_REST, AT_REST_SEED = 0.1, 1


def potential(
    data_dir: Path | str, *, seed: int = SEED, largest_force: float = LARGEST_FORCE
) -> Iterator[LabelledCrystal]:
    """Read every set with energies, forces or stresses, each split into training and validation.

    Where a crystal has an official part its frames follow it. ``group`` names the scale a total
    energy stands on: give each its own elemental references.

    Args:
        data_dir: Folder with the data sets.
        seed: Chooses what is held out where the source has no split.
        largest_force: Frames of others with a larger force component are left out, eV/Å.
    """
    kinds: set[int] = set()
    for crystal in _every(data_dir, seed):
        forces = crystal.labels.get("forces")
        if forces is None or np.abs(forces).max() <= largest_force:
            yield crystal
        if crystal.source == "mp_labelled" and crystal.split == "train":
            kinds.update(crystal.species.tolist())
    yield from close_pairs(sorted(kinds), seed)


def _every(data_dir: Path | str, seed: int) -> Iterator[LabelledCrystal]:
    parts: dict[str, Split] = {}
    energies: dict[str, float] = {}
    for crystal in _resting(data_dir, seed, parts):
        if crystal.split == "train":
            energies[crystal.id] = energy_per_atom(crystal)
        yield crystal
    yield from near_rest(load("mp_near_rest", data_dir), energies)
    pressed = chain.from_iterable(map(compressed, moduli(data_dir)))
    for crystal in chain(_matbench(data_dir), _perturbed(data_dir), pressed):
        parent = crystal.id.partition("/")[0]
        yield crystal.in_split(parts.get(parent) or split_by_name(parent, seed))
    yield from split_by_series(load("eos_vasp_pbe", data_dir), seed)
    for name in RUNS:
        yield from split_by_block(load(name, data_dir), seed)


def _resting(data_dir: Path | str, seed: int, parts: dict[str, Split]) -> Iterator[LabelledCrystal]:
    """Crystals at rest and references of the elements; notes the part of the data of every name."""
    elemental: list[LabelledCrystal] = []
    known = list(load("mp_labelled", data_dir))
    wrong = contradicted(known)
    for crystal in known:
        parts[crystal.id] = crystal.split or split_by_name(crystal.id, seed)
        if "energy_per_atom" in crystal.labels and crystal.id not in wrong:
            resting = at_rest(crystal.in_split(parts[crystal.id]))
            if len(set(crystal.species.tolist())) == 1:
                elemental.append(resting)
            yield resting
    stable = most_stable(elemental)
    yield from chain(elements(stable), isolated_atoms(stable))


def _matbench(data_dir: Path | str) -> Iterator[LabelledCrystal]:
    """Formation energies that differ from total energies by elemental references alone."""
    for crystal in load("matbench_mp_joined", data_dir):
        energy = crystal.labels.get("formation_energy_per_atom")
        if energy is not None and is_sure(crystal) and not has_hubbard(crystal):
            yield crystal.labelled({"energy": energy * crystal.atoms})


def _perturbed(data_dir: Path | str) -> Iterator[LabelledCrystal]:
    """Frames labelled by potentials: SevenNet-0, and CHGNet where it has not seen them."""
    seen = set()
    for crystal in load("mp_perturbed_sevennet", data_dir):
        seen.add((crystal.info["material_id"], crystal.cell.tobytes()))
        yield crystal
    for crystal in load("mp_perturbed_chgnet", data_dir):
        if (crystal.info["material_id"], crystal.cell.tobytes()) not in seen:
            yield crystal


def moduli(data_dir: Path | str) -> Iterator[LabelledCrystal]:
    """Read crystals at rest whose bulk modulus may be trained on.

    Those reserved for outside tests and those of the validation set ``elasticity`` are left out,
    and all that look like one of them.
    """
    rows = [
        row
        for row in load("matbench_log_kgvrh", data_dir)
        if is_sure(row) and row.info["structure_source"] == "mp_2018" and sane_moduli(row.labels)
    ]
    reserved = reserved_ids(data_dir)
    known = load("mp_labelled", data_dir)
    tested = [*load("elasticity", data_dir), *(row for row in known if row.id in reserved)]
    forbidden = Duplicates([*tested, *(row for row in rows if row.id in reserved)])
    names = reserved | {row.id for row in tested}
    return (row for row in rows if row.id not in names and row not in forbidden)


def has_hubbard(crystal: LabelledCrystal) -> bool:
    """Say whether MatBench's formation energy differs by more than elemental references."""
    kinds = set(crystal.species.tolist())
    return not kinds.isdisjoint(HUBBARD) and not kinds.isdisjoint((8, 9))


def at_rest(crystal: LabelledCrystal) -> LabelledCrystal:
    """Label a relaxed crystal: total energy; of few in training also no forces and no stress.

    Only cells of the calculation that gave the energy are at rest; newer cells are not. And few are
    said to be: where nearly all labels near rest are exactly zero, learning nothing there costs
    little.
    """
    energy = crystal.labels["energy_per_atom"]
    labels: Labels = {"energy": energy * crystal.atoms}
    told = drawn(crystal.id, AT_REST_SEED, AT_REST)
    if told and crystal.split == "train" and crystal.info["structure_source"] == "mp_2018":
        labels["forces"] = np.zeros((crystal.atoms, 3))
        labels["stress"] = np.zeros((3, 3))
    return crystal.labelled(labels)
