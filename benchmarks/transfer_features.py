"""Features of crystals for the transfer benchmark, kept on disk so that none is computed twice."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure

from ase_crystalformer import CrystalformerFeaturizer
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.encoders.base import AtomFeatures
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.model_file import read_card
from ase_crystalformer.neighbours import build
from ase_crystalformer.pretrained import find_model, load_model
from ase_crystalformer.structures import Crystal
from ase_crystalformer.writing import whole

Table = NDArray[np.float64]
Structures = Sequence[Structure]

#: Crystals whose features are written at once.
CHUNK = 100


def structure_of(crystal: LabelledCrystal) -> Structure:
    """Turn a labelled crystal into pymatgen's."""
    lattice = Lattice(crystal.cell)
    return Structure(lattice, crystal.species, crystal.positions, coords_are_cartesian=True)


def magpie(structures: Structures) -> Table:
    """Compute statistics of elemental properties: matminer's Magpie preset, 132 columns."""
    from matminer.featurizers.composition import ElementProperty

    featurizer = ElementProperty.from_preset("magpie", impute_nan=True)
    return _rows(featurizer, [structure.composition for structure in structures])


def structural(structures: Structures) -> Table:
    """Compute density, symmetry, and statistics of site fingerprints (CrystalNN): 130 columns."""
    from matminer.featurizers.structure import (
        DensityFeatures,
        GlobalSymmetryFeatures,
        SiteStatsFingerprint,
    )

    names = ["spacegroup_num", "crystal_system_int", "is_centrosymmetric", "n_symmetry_ops"]
    sites = SiteStatsFingerprint.from_preset("CrystalNNFingerprint_ops")
    kinds = [DensityFeatures(), GlobalSymmetryFeatures(names), sites]
    return np.hstack([_rows(kind, structures) for kind in kinds])


def embedding(structures: Structures) -> Table:
    """Compute what the featurizer gives by default: the embedding and predicted properties."""
    return np.array(CrystalformerFeaturizer().featurize_many(list(structures), pbar=False))


def potential(structures: Structures) -> Table:
    """Compute the embedding of the bundled potential."""
    featurizer = CrystalformerFeaturizer("default")
    return np.array(featurizer.featurize_many(list(structures), pbar=False))


def spread(structures: Structures) -> Table:
    """Compute standard deviation, least and largest of the atoms' features, by channel."""
    model = load_model("default-properties")
    found = []
    for one in structures:
        periodic = np.ones(3, dtype=bool)
        cell = np.array(one.lattice.matrix)
        crystal = Crystal(np.array(one.atomic_numbers), np.array(one.cart_coords), cell, periodic)
        graph: CrystalGraph = build(crystal, model.encoder.rule)
        with torch.no_grad():
            atoms: AtomFeatures = model.encoder(graph.to(model.device, model.dtype))
        values = atoms.invariant.double().cpu()
        parts = (values.std(0, correction=0), values.amin(0), values.amax(0))
        found.append(torch.cat(parts).numpy())
    return np.array(found)


#: Kinds of features; sets of them are compared.
KINDS: dict[str, Callable[[Structures], Table]] = {
    "magpie": magpie,
    "structural": structural,
    "embedding": embedding,
    "spread": spread,
    "potential": potential,
}


#: Bundled models that kinds of features come from.
MODELS = {
    "embedding": "default-properties",
    "spread": "default-properties",
    "potential": "default",
}


def fingerprint(kind: str, ids: Sequence[str]) -> str:
    """Say of which rows features are, and of which weights: what is kept is good for no others."""
    weights = read_card(find_model(MODELS[kind]))["sha256"] if kind in MODELS else ""
    return hashlib.sha256("\n".join([weights, *ids]).encode()).hexdigest()[:16]


def features(kind: str, structures: Structures, folder: Path) -> Table:
    """Compute the features of crystals, a chunk at a time; what is on disk is read."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks = []
    for start in range(0, len(structures), CHUNK):
        path = folder / f"{kind}-{start:05d}.npy"
        if not path.is_file():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of electronegativities that noble gases lack
                found = KINDS[kind](structures[start : start + CHUNK])
            with whole(path) as partial:
                np.save(partial, found)
        chunks.append(np.load(path, allow_pickle=False))
    return np.vstack(chunks)


def _rows(featurizer: Any, entries: Sequence[Any]) -> Table:
    """Featurize entry by entry; NaN where matminer cannot."""
    rows = []
    width = len(featurizer.feature_labels())
    for entry in entries:
        try:
            rows.append([float(value) for value in featurizer.featurize(entry)])
        except (ValueError, RuntimeError, ArithmeticError, TypeError):
            rows.append([float("nan")] * width)
    return np.array(rows)
