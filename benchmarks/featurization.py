"""Features of crystals: ours, batched and row by row, next to matminer's most used ones.

They describe different things; what is compared is what a column costs to have.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.io.ase import AseAtomsAdaptor

from benchmarks.crystals import real_crystals
from benchmarks.models import bundled_or_random
from benchmarks.timing import Effort, Row, Way, compare


def run(effort: Effort) -> list[Row]:
    """Featurize real crystals, given as pymatgen structures."""
    from matminer.featurizers.composition import ElementProperty
    from matminer.featurizers.structure import SiteStatsFingerprint

    from ase_crystalformer.featurizer import CrystalformerFeaturizer

    crystals = real_crystals(2 if effort.small else 50)
    structures = [AseAtomsAdaptor.get_structure(atoms) for atoms in crystals]
    compositions = [structure.composition for structure in structures]
    model = bundled_or_random("default-properties")
    ours = CrystalformerFeaturizer(model, device="cpu")
    sites = SiteStatsFingerprint.from_preset("CrystalNNFingerprint_ops")
    magpie = ElementProperty.from_preset("magpie")
    runs: dict[str, tuple[Any, Callable[[], Any]]] = {
        "Crystalformer, batched": (ours, lambda: ours.featurize_many(structures, pbar=False)),
        "Crystalformer, row by row": (ours, lambda: [ours.featurize(one) for one in structures]),
        "SiteStatsFingerprint CrystalNNFingerprint_ops": (sites, _each(sites, structures)),
        "ElementProperty magpie": (magpie, _each(magpie, compositions)),
    }
    ways = [
        Way(
            name=f"{name}, {len(featurizer.feature_labels())} features",
            run=work,
            read=_numbers if featurizer is ours else None,
            items=(len(crystals), "crystals"),
        )
        for name, (featurizer, work) in runs.items()
    ]
    case = f"{len(crystals)} real crystals of 2-8 atoms, {model.card.name}"
    return compare(case, ways, effort, tolerance=1e-3)


def _each(featurizer: Any, entries: list[Any]) -> Callable[[], list[list[float]]]:
    """Make a function that featurizes entry after entry, without processes or a bar."""

    def work() -> list[list[float]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [featurizer.featurize(entry) for entry in entries]

    return work


def _numbers(rows: list[list[float]]) -> NDArray[np.float64]:
    return np.array(rows)
