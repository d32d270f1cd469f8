"""Measure what the card of a bundled model tells, and write it there.

    python -m benchmarks.bundled_card runs/potential/model packed/potential
    python -m benchmarks.bundled_card runs/properties/model packed/properties

Errors are those of the validation part of the packed set of the model's recipe; of a potential, by
set, and the length of the force error by element. Besides them the card stays what it is. A plot of
predictions against labels is drawn beside the model. Calibrate a potential afterwards.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_crystalformer.card import Card
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.evaluate import Compared, collect, of_known_elements, score
from ase_crystalformer.training.parity import plot_parity

#: Sets of DFT with forces, and what the card calls them.
DFT = {
    "mlearn": "mlearn: Li, Mo, Ni, Cu, Si, Ge, DFT",
    "monbtaw": "Mo-Nb-Ta-W alloys, DFT",
    "polymlp_agau": "Ag-Au, DFT",
    "polymlp_mgo": "MgO, DFT",
    "polymlp_fe": "spin-polarised Fe, DFT",
    "polymlp_srtio3": "SrTiO3, DFT",
}

#: Of the errors of a potential.
UNITS = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³"}

#: Quantities, sets, the name of the error on the card, and what it is told to be measured on.
PERTURBED = "perturbed crystals, pseudo-labels of SevenNet-0 (unseen parents)"
OTHERS = "perturbed crystals, pseudo-labels of CHGNet 0.3.0 (unseen parents)"
ALL_DFT = "six DFT sets: mlearn, Mo-Nb-Ta-W, Ag-Au, MgO, Fe, SrTiO3 (held-out frames)"
AT_REST = "Materials Project crystals at rest (validation part; formation energy agrees)"
PRESSED = "cubic crystals under pressure, from bulk moduli of DFT (unseen crystals)"
POTENTIAL: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("energy", ("mp_labelled",), "energy", AT_REST),
    ("forces", tuple(DFT), "forces", ALL_DFT),
    ("stress", tuple(DFT), "stress", ALL_DFT),
    *(
        (name, ("mp_perturbed_sevennet",), f"{name}, perturbed", PERTURBED)
        for name in ("energy", "forces", "stress")
    ),
    *(
        (name, ("mp_perturbed_chgnet",), f"{name}, mp_perturbed_chgnet", OTHERS)
        for name in ("forces", "stress")
    ),
    ("stress", ("compressed",), "stress, compressed", PRESSED),
    (
        *("stress", ("eos_vasp_pbe",), "stress, eos_vasp_pbe"),
        "equations of state, PBE (unseen crystals)",
    ),
    *(
        (name, (source,), f"{name}, {source}", on)
        for source, on in DFT.items()
        for name in ("forces", "stress")
    ),
)

#: Errors of a potential whose predictions are drawn.
DRAWN = (
    "energy",
    "forces",
    "stress",
    "forces, perturbed",
    "stress, perturbed",
    "stress, compressed",
)

#: Predicted and labelled values in two rows, by name and unit of the quantity.
Pairs = dict[tuple[str, str], NDArray[np.float64]]

#: The set whose force errors are told by element, and of how many atoms at least.
BY_ELEMENT, FEWEST = "mp_perturbed_sevennet", 20


def measure(model: CrystalModel, packed: PackedCrystals) -> tuple[Card, Pairs]:
    """Return the card with the errors that are measured, and what is to be drawn."""
    return _potential(model, packed) if model.is_potential else _properties(model, packed)


def _potential(model: CrystalModel, packed: PackedCrystals) -> tuple[Card, Pairs]:
    by_source = {name: _compare(model, packed, name) for name in packed.meta["names"]["source"]}
    errors, drawn = {}, {}
    for quantity, sources, name, on in POTENTIAL:
        pairs = _pairs([by_source.get(source, {}) for source in sources], quantity)
        if pairs.size:
            errors[name] = _entry(pairs, UNITS[quantity], on)
            drawn[name, UNITS[quantity]] = pairs
    by_element = _by_element(packed, model, by_source[BY_ELEMENT])
    training = {**model.card.training, "force_error_by_element": by_element}
    chosen = {key: pairs for key, pairs in drawn.items() if key[0] in DRAWN}
    return replace(model.card, errors=errors, training=training), chosen


def _properties(model: CrystalModel, packed: PackedCrystals) -> tuple[Card, Pairs]:
    which = of_known_elements(model, packed, packed.where("val"))
    on = "Materials Project 2018 (MEGNet's validation part)"
    compared = collect(model, packed, which, progress=False)
    drawn = {(name, unit): _pairs([compared], name) for name, unit in compared}
    errors = {name: _entry(pairs, unit, on) for (name, unit), pairs in drawn.items()}
    return replace(model.card, errors=errors), drawn


def _compare(model: CrystalModel, packed: PackedCrystals, source: str) -> Compared:
    which = _of(model, packed, source)
    return collect(model, packed, which, progress=False) if len(which) else {}


def _of(model: CrystalModel, packed: PackedCrystals, source: str) -> NDArray[np.int64]:
    """Number the validation crystals of a set."""
    number = packed.meta["names"]["source"].index(source)
    val = packed.where("val")
    which = val[np.asarray(packed.arrays["source"])[val] == number]
    return of_known_elements(model, packed, which)


def _pairs(parts: Sequence[Compared], quantity: str) -> NDArray[np.float64]:
    """Predicted and labelled values of one quantity in several sets."""
    found = [
        np.stack(pair) for part in parts for (name, _), pair in part.items() if name == quantity
    ]
    values = np.concatenate([np.empty((2, 0)), *found], axis=1)
    return values[:, np.isfinite(values).all(0)]


def _entry(pairs: NDArray[np.float64], unit: str, on: str) -> dict[str, Any]:
    told = score(pairs[0], pairs[1], unit, on)
    return {"mae": float(f"{told.mae:.4g}"), "unit": unit, "n": told.n, "on": on}


def _by_element(packed: PackedCrystals, model: CrystalModel, compared: Compared) -> dict[str, Any]:
    """Mean length of the force error of every element."""
    which = _of(model, packed, BY_ELEMENT)
    rows = [
        slice(packed.atom_start[i], packed.atom_start[i] + packed.arrays["atoms"][i]) for i in which
    ]
    species = np.concatenate([np.asarray(packed.arrays["species"][row]) for row in rows])
    predicted, label = (values.reshape(-1, 3) for values in compared["forces", "eV/Å"])
    length = np.linalg.norm(predicted - label, axis=1)
    known = {int(z): length[species == z] for z in np.unique(species)}
    what = (
        "mean length of the force error on perturbed crystals of the validation part, eV/Å, "
        f"elements with at least {FEWEST} atoms there; the mean force is "
        f"{np.linalg.norm(label, axis=1).mean():.1f}"
    )
    values = {
        chemical_symbols[z]: round(float(errors.mean()), 3)
        for z, errors in known.items()
        if len(errors) >= FEWEST
    }
    return {"what": what, "values": values}


def main() -> None:
    """Measure, and rewrite the model where it lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", type=Path)
    parser.add_argument("packed", type=Path, help="the packed set of the recipe")
    asked = parser.parse_args()
    model, packed = CrystalModel.load(asked.model), PackedCrystals(asked.packed)
    model.card, drawn = measure(model, packed)
    model.save(asked.model)
    maes = {name: model.card.errors[name]["mae"] for name, _ in drawn}
    plot_parity(
        {key: (*pairs,) for key, pairs in drawn.items()}, maes, asked.model.with_suffix(".png")
    )
    for name, entry in model.card.errors.items():
        print(f"{name}: {entry['mae']} {entry['unit']} ({entry['n']:,}, {entry['on']})")


if __name__ == "__main__":
    main()
