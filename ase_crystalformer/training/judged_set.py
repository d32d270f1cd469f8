"""Crystals that judge a model: a packed set, or a file packed for it, and which part of them."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.packed import SPLITS, PackedCrystals
from ase_crystalformer.data.packing import pack
from ase_crystalformer.data.readers import load
from ase_crystalformer.data.unread import ARRAYS, tell_unread
from ase_crystalformer.errors import MissingData, unknown_name
from ase_crystalformer.model import CrystalModel

LOGGER = logging.getLogger(__name__)

#: How many crystals of a set are in each part; None are those that are in none.
Parts = Counter[str | None]


def open_or_pack(
    model: CrystalModel,
    dataset: Path,
    scratch: Path,
    data_dir: str | Path | None = None,
    split: str | None = None,
) -> tuple[PackedCrystals, str | None]:
    """Open a packed set, or pack a file or a public data set as the model's encoder wants it.

    Of a split, crystals of the others are not packed.

    Args:
        model: Whose encoder and labels it is for.
        dataset: A packed set, a file of labelled crystals, or the name of a public data set.
        scratch: Where to pack.
        data_dir: The folder with the files of public data sets.
        split: ``train``, ``val`` or ``test``; None for all.

    Returns:
        The set, and the split that judges: None, after a warning, if no crystal is in any.

    Raises:
        UnknownName: There is no such split.
        MissingData: No crystal is in that split, though others are in one; or none can be read.
    """
    if split not in (None, *SPLITS):
        raise unknown_name("split", split, SPLITS, "For all of them: None, or --split all.")
    if (dataset / "meta.json").is_file():
        packed = PackedCrystals(dataset)
        return packed, _judging(split, _parts_of(packed), dataset)
    read: Parts = Counter()
    crystals = tell_unread(load(str(dataset), data_dir), judged_by(model), str(dataset))
    left_out = pack(
        _of_part(crystals, split, read),
        model.encoder.rule,
        scratch / "packed",
        labels=[name for name in judged_by(model) if name not in ARRAYS],
        by_symmetry=not model.is_potential and model.encoder.claims.orbits is True,
    )
    for line in left_out:
        LOGGER.warning("Left out %s", line)
    packed = PackedCrystals(scratch / "packed", called=dataset)
    judging = _judging(split, read, dataset)
    if len(packed) == 0:
        part = f" of split {split}" if split else ""
        raise MissingData(f"{dataset} holds no labelled crystal{part} that can be read.")
    return packed, judging


def judged_by(model: CrystalModel) -> list[str]:
    """Name the labels that a model is held against."""
    return ["energy", *ARRAYS] if model.is_potential else [one.name for one in model.targets]


def _of_part(
    crystals: Iterable[LabelledCrystal], split: str | None, read: Parts
) -> Iterator[LabelledCrystal]:
    """Pass on crystals of a split, and of none; count those of all parts in ``read``."""
    for one in crystals:
        read[one.split] += 1
        if split is None or one.split in (split, None):
            yield one


def _parts_of(packed: PackedCrystals) -> Parts:
    """Count the crystals of a packed set in each part."""
    numbers = Counter(np.asarray(packed.arrays["split"]).tolist())
    return Counter({None if one < 0 else SPLITS[one]: count for one, count in numbers.items()})


def _judging(split: str | None, parts: Mapping[str | None, int], dataset: Path) -> str | None:
    """Choose the part that judges: the split asked for, or all where nobody has said any."""
    if split is None or parts.get(split):
        return split
    if known := {name: parts[name] for name in SPLITS if parts.get(name)}:
        told = ", ".join(f"{name} {count}" for name, count in known.items())
        rest = f", and {parts[None]} in none" if parts.get(None) else ""
        raise MissingData(
            f"No crystal of {dataset} is of split {split}; it has {told}{rest}. Choose one of "
            "these, or all."
        )
    LOGGER.warning("These crystals are in no split: all %d are judged.", sum(parts.values()))
    return None


def check_judged(model: CrystalModel, packed: PackedCrystals) -> None:
    """Refuse a set that was packed without any label a model can be judged by.

    Raises:
        MissingData: Naming the labels there are, and those that are wanted.
    """
    wanted = judged_by(model)
    if set(wanted).isdisjoint(packed.labels):
        raise MissingData(
            f"{packed.called} was packed with the labels {', '.join(packed.labels) or 'none'}; "
            f"{model.card.name!r} is judged by {', '.join(wanted)}. Pack a set that has them, or "
            "give the file itself."
        )
