"""The mixture property models are trained on: formation energy, band gap, elastic moduli."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ase_crystalformer.data.crystals import LabelledCrystal, Labels
from ase_crystalformer.data.duplicates import Duplicates
from ase_crystalformer.data.readers import load

PROPERTIES = ("formation_energy_per_atom", "band_gap", "bulk_modulus", "shear_modulus")
MODULI = ("bulk_modulus", "shear_modulus")

#: Moduli beyond these are failed calculations, GPa.
SANE_MODULI = (0.1, 1000.0)

#: How MatBench's rows must be joined to their cells to be believed.
SURE_JOINS = ("verified", "unique")

#: Elemental references of MEGNet's formation energies minus those of MatBench's, eV per atom of
#: the element. Of 17,052 crystals that have both and hold such an element, the median disagreement
#: falls from 1.4 to 0.005 meV/atom.
MEGNET_MINUS_MATBENCH: dict[int, float] = {
    6: -0.0013,
    15: -0.0046,
    19: -0.0044,
    37: -0.0476,
    39: -0.0057,
    41: -0.0815,
    49: -0.0270,
    55: -0.0350,
    66: -0.0056,
    74: -0.0242,
    89: -0.0219,
}


def properties(data_dir: Path | str) -> Iterator[LabelledCrystal]:
    """Read Materials Project crystals with the labels known of each, one row per crystal.

    Formation energies are on the scale of ``mp_labelled``. Validation rows are those of its
    official split, for every label. Moduli of reserved crystals, and of crystals that look like
    one, are left out; so are crystals that look like a validation crystal, unless the official
    split has them.
    """
    labelled = list(load("mp_labelled", data_dir))
    joined = [row for row in load("matbench_mp_joined", data_dir) if is_sure(row)]
    measured = [row for row in load("matbench_log_kgvrh", data_dir) if is_sure(row)]
    reserved = reserved_ids(data_dir)
    forbidden = Duplicates(row for row in [*labelled, *joined, *measured] if row.id in reserved)
    moduli = {
        row.id: sane_moduli(row.labels)
        for row in measured
        if row.id not in reserved and row not in forbidden
    }
    seen = Duplicates(row for row in labelled if row.split == "val")
    named: set[str] = set()
    for row in [*labelled, *map(on_megnet_scale, joined), *measured]:
        if row.id in named or (row.split is None and row in seen):
            continue
        named.add(row.id)
        labels = _known(row, moduli, drop_own=row in forbidden)
        if labels:
            yield row.labelled(labels).in_split(row.split or "train")


def on_megnet_scale(crystal: LabelledCrystal) -> LabelledCrystal:
    """Move a MatBench formation energy to the elemental references of ``mp_labelled``."""
    labels = dict(crystal.labels)
    if "formation_energy_per_atom" in labels:
        shifts = [MEGNET_MINUS_MATBENCH.get(int(z), 0.0) for z in crystal.species]
        labels["formation_energy_per_atom"] += sum(shifts) / crystal.atoms
    return crystal.labelled(labels).in_group("mp")


def reserved_ids(data_dir: Path | str) -> frozenset[str]:
    """Names of the crystals whose elastic moduli and phonons are kept for outside tests."""
    return frozenset((Path(data_dir) / "reserved_ids.txt").read_text().split())


def _known(row: LabelledCrystal, moduli: Mapping[str, Labels], *, drop_own: bool) -> Labels:
    """Labels of a row that may be trained on, and the moduli known of its crystal."""
    own = {name: row.labels[name] for name in PROPERTIES if name in row.labels}
    elastic = {} if drop_own else sane_moduli(own)
    others = {name: value for name, value in own.items() if name not in MODULI}
    return {**others, **(elastic or moduli.get(row.id, {}))}


def sane_moduli(labels: Labels) -> Labels:
    """Both moduli, or neither where one is missing or absurd: they come from one tensor."""
    low, high = SANE_MODULI
    found: Labels = {name: labels[name] for name in MODULI if name in labels}
    sane = len(found) == len(MODULI) and all(low <= value <= high for value in found.values())
    return found if sane else {}


def is_sure(row: LabelledCrystal) -> bool:
    """Say whether a MatBench row is known to belong to its cell."""
    return row.info["join"] in SURE_JOINS
