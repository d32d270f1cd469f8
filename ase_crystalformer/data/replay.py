"""A few of the frames the bundled potential was trained on, so that fine-tuning does not forget.

They come with the package. Made by ``python -m ase_crystalformer.data.replay DATA_FOLDER``.
"""

import gzip
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from ase_crystalformer.data.crystals import LabelledCrystal, Labels
from ase_crystalformer.data.extxyz import Frame, read_extxyz, real_array
from ase_crystalformer.data.holdout import drawn
from ase_crystalformer.data.packed import REPLAY
from ase_crystalformer.writing import whole

FILE = "replay.extxyz.gz"

#: The scale of their energies: Materials Project's. Energies on others are left out.
SCALE = "mp"

#: The part that is never trained on, to see what was forgotten.
SET_ASIDE = 0.1

SEED = 20261121

#: How many frames of each source, and of how many atoms at most.
QUOTAS: dict[str, tuple[int, int]] = {
    "mp_labelled": (800, 12),
    "elements": (100, 12),
    "isolated_atoms": (100, 1),
    "mp_near_rest": (600, 12),
    "mp_perturbed_sevennet": (1200, 12),
    "mp_perturbed_chgnet": (400, 10),
    "compressed": (200, 8),
    "eos_vasp_pbe": (300, 8),
    "mlearn": (40, 64),
    "monbtaw": (80, 16),
    "polymlp_agau": (40, 16),
    "polymlp_mgo": (10, 64),
    "polymlp_fe": (20, 32),
    "polymlp_srtio3": (12, 40),
}

#: Sources of which the mixture holds copies.
COPIED = ("elements", "isolated_atoms")

#: The source whose elements the potential has energies of; frames of others are left out.
KNOWN = "mp_labelled"

#: Frames with a larger force component are left out, eV/Å: they teach collisions, not crystals.
LARGEST_FORCE = 15.0


@cache
def replay_frames() -> tuple[LabelledCrystal, ...]:
    """Read the frames: nine tenths to train on, the others (``test``) to see what was forgotten.

    Energies stand on Materials Project's scale; frames of sets on other scales have none.
    """
    path = files("ase_crystalformer.data") / FILE
    return tuple(map(_crystal, read_extxyz(Path(str(path)))))


def _crystal(frame: Frame) -> LabelledCrystal:
    labels: Labels = {}
    if "energy" in frame.info:
        labels["energy"] = float(frame.info["energy"])
    if "forces" in frame.columns:
        labels["forces"] = frame.columns["forces"]
    if "stress" in frame.info:
        labels["stress"] = real_array(frame.info["stress"], (3, 3))
    name = frame.info["id"]
    # Frames of one crystal stay together, wherever their names begin alike.
    kept = not drawn(name.split("/")[1], SEED, SET_ASIDE)
    return LabelledCrystal(
        species=frame.species,
        positions=frame.positions,
        cell=frame.cell,
        periodic=frame.periodic,
        labels=labels,
        id=name,
        split="train" if kept else "test",
        source=REPLAY,
        group=SCALE,
        info={"from": name.split("/")[0]},
    )


def choose(crystals: Iterable[LabelledCrystal], seed: int = SEED) -> list[LabelledCrystal]:
    """Draw frames to replay from a mixture: a quota of every source, rare elements first.

    A frame is drawn with a weight of the mean, over its elements, of one over the number of frames
    that hold the element.

    Args:
        crystals: The mixture; only what is trained on is drawn.
        seed: Of the draw.
    """
    pools: dict[str, list[LabelledCrystal]] = {name: [] for name in QUOTAS}
    for crystal in crystals:
        if crystal.split == "train" and _is_small(crystal):
            pools[crystal.source].append(crystal)
    known = {int(kind) for crystal in pools[KNOWN] for kind in crystal.species}
    chosen = []
    for number, (source, pool) in enumerate(pools.items()):
        singled = [crystal for crystal in pool if known.issuperset(crystal.species.tolist())]
        if source in COPIED:
            singled = [crystal for crystal in singled if crystal.id.endswith("/0")]
        weight = _rarity(singled)
        noise = np.random.default_rng([seed, number]).gumbel(size=len(singled))
        best = np.argsort(-(np.log(weight) + noise), kind="stable")[: QUOTAS[source][0]]
        chosen += [singled[index] for index in np.sort(best)]
    return chosen


def _is_small(crystal: LabelledCrystal) -> bool:
    if crystal.source not in QUOTAS or crystal.atoms > QUOTAS[crystal.source][1]:
        return False
    forces = crystal.labels.get("forces")
    if forces is None:
        return crystal.group == SCALE
    return bool(np.abs(forces).max() <= LARGEST_FORCE)


def _rarity(pool: list[LabelledCrystal]) -> np.ndarray:
    kinds = [np.unique(crystal.species) for crystal in pool]
    if not kinds:
        return np.zeros(0)
    frequency = np.bincount(np.concatenate(kinds), minlength=119)
    return np.array([(1 / frequency[kind]).mean() for kind in kinds])


def write_replay(crystals: Iterable[LabelledCrystal], path: Path) -> None:
    """Write frames as gzip'd extended XYZ: lengths to 0.0001 Å, forces to 0.001 eV/Å."""
    text = "".join(_text(crystal) for crystal in crystals)
    with whole(path) as partial:
        # No name and no time inside: the same frames are the same file.
        partial.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _text(crystal: LabelledCrystal) -> str:
    from ase.data import chemical_symbols

    def told(numbers: np.ndarray | float, digits: int) -> str:
        flat = np.round(np.atleast_1d(numbers).ravel(), digits) + 0.0  # no -0
        return " ".join(f"{value:.{digits}f}".rstrip("0").rstrip(".") for value in flat)

    labels = crystal.labels
    columns = "species:S:1:pos:R:3" + (":forces:R:3" if "forces" in labels else "")
    pairs = [f'Lattice="{told(crystal.cell, 4)}"', f"Properties={columns}"]
    pairs.append(f'id="{crystal.source}/{crystal.id}"')
    if "energy" in labels and crystal.group == SCALE:
        pairs.append(f"energy={told(labels['energy'], 4)}")
    if "stress" in labels:
        pairs.append(f'stress="{told(labels["stress"], 5)}"')
    pairs.append('pbc="{} {} {}"'.format(*("FT"[int(flag)] for flag in crystal.periodic)))
    rows = [
        f"{chemical_symbols[number]} {told(place, 4)}"
        for number, place in zip(crystal.species, crystal.positions, strict=True)
    ]
    if "forces" in labels:
        forces = np.asarray(labels["forces"])
        rows = [f"{row} {told(force, 3)}" for row, force in zip(rows, forces, strict=True)]
    return "\n".join([str(crystal.atoms), " ".join(pairs), *rows, ""])


def make_replay(data_dir: Path | str, path: Path | str | None = None) -> Path:
    """Choose frames from the mixture of the bundled potential and write the file of the package.

    Args:
        data_dir: Folder with the data sets.
        path: Where to write; the file of the package unless told.
    """
    from ase_crystalformer.data.potential import potential

    out = Path(path or str(files("ase_crystalformer.data") / FILE))
    bare = (replace(crystal, info={}) for crystal in potential(data_dir))
    write_replay(choose(bare), out)
    return out


if __name__ == "__main__":
    make_replay(*sys.argv[1:3])
