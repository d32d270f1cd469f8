"""Pack the data of a recipe, once."""

import logging
import time
from dataclasses import fields

import numpy as np
import torch

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import pack, rule_dict
from ase_crystalformer.encoders import ENCODERS
from ase_crystalformer.encoders.base import Encoder
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.mixer import MixedEncoder, make_encoder
from ase_crystalformer.training.config import Recipe, mixer_of
from ase_crystalformer.training.origin import check_origin, origin_of
from ase_crystalformer.training.processes import is_first
from ase_crystalformer.training.reading import crystals_of

LOGGER = logging.getLogger(__name__)

#: What every encoder that has it needs at least one of.
COUNTED = frozenset(("basis", "blocks", "elements", "feedforward", "heads", "layers", "width"))


def prepare(recipe: Recipe) -> PackedCrystals:
    """Open the packed set of a recipe; make it first if it is not there.

    Of crystals that are in no part yet, 5 % are set aside for validation, chosen by name and the
    seed of the recipe that packs the set: one of another seed finds the parts that are there, and
    a warning tells so. Of the processes of a run, the first makes the set, and the others wait
    until it is there.

    Raises:
        BadRecipe: There is neither a packed set nor a source, or the set has another graph, was
            split by another fold, or holds elements beyond those of the encoder.
    """
    encoder = _encoder(recipe)
    folder = recipe.data.packed
    while not is_first() and not (folder / "meta.json").is_file():
        time.sleep(1)
    _pack_once(recipe, encoder)
    packed = PackedCrystals(folder)
    check_origin(packed, recipe)
    check_rule(packed, encoder, f"encoder {recipe.encoder!r} as configured in [model]")
    if packed.meta["by_symmetry"] and not _by_orbits(recipe):
        raise BadRecipe(
            f"{folder} keeps one atom of each orbit, and so neither forces nor atoms that can be "
            "moved. Name another folder in data.packed, and data.source to pack it from."
        )
    _check_elements(packed, encoder, recipe)
    _tell_edgeless(packed)
    return packed


def _pack_once(recipe: Recipe, encoder: Encoder) -> None:
    """Pack the source of a recipe, unless it is done; of several runs one does, the others wait."""
    folder = recipe.data.packed.resolve()  # "." has no name
    if (folder / "meta.json").is_file():
        return
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not (folder / "meta.json").is_file():
            _pack(recipe, encoder)


def _pack(recipe: Recipe, encoder: Encoder) -> None:
    left_out = pack(
        crystals_of(recipe),
        encoder.rule,
        recipe.data.packed,
        labels=list(recipe.targets) if recipe.energy is None else ["energy"],
        by_symmetry=_by_orbits(recipe) and encoder.claims.orbits is True,
        remembered=origin_of(recipe),
        processes=max(recipe.machine.workers, 1),
    )
    for line in left_out:
        LOGGER.warning("Left out %s", line)


def _by_orbits(recipe: Recipe) -> bool:
    """Whether one atom of each orbit is enough."""
    return recipe.energy is None and recipe.denoise is None


def check_rule(packed: PackedCrystals, encoder: Encoder, whose: str) -> None:
    """Refuse a set whose graphs are not those the encoder reads.

    Raises:
        BadRecipe: Naming both rules; or one atom stands for its orbit, which the encoder cannot do.
    """
    if packed.meta["by_symmetry"] and encoder.claims.orbits is not True:
        raise BadRecipe(
            f"{packed.folder} keeps one atom of each orbit, which {whose} cannot learn from "
            f"({encoder.claims.orbits.because}). Name another folder in data.packed, and "
            "data.source to pack it from."
        )
    wanted = rule_dict(encoder.rule)
    if packed.meta["rule"] != wanted:
        raise BadRecipe(
            f"{packed.folder} was packed with {packed.meta['rule']}, but {whose} asks for {wanted}."
            " Name another folder in data.packed, and data.source to pack it from."
        )


def _check_elements(packed: PackedCrystals, encoder: Encoder, recipe: Recipe) -> None:
    """Refuse crystals that are learned from, with elements that the encoder has no place for."""
    network = encoder.local if isinstance(encoder, MixedEncoder) else encoder
    species, last = packed.arrays["species"], int(network.config.elements)
    if species.max(initial=0) <= last:
        return
    from ase_crystalformer.training.batches import learned_from  # Lightning, to train alone

    owner = np.repeat(np.arange(len(packed)), packed.arrays["atoms"])
    strange = np.flatnonzero(learned_from(packed, recipe)[owner] & (species > last))
    if len(strange):
        heaviest = int(species[strange].max())
        raise BadRecipe(
            f"[model] elements is {last}, but {packed.ids[owner[strange[0]]]} in {packed.folder} "
            f"and others hold elements up to number {heaviest}. Set model.elements={heaviest} or "
            "more, or leave these crystals out."
        )


def _tell_edgeless(packed: PackedCrystals) -> None:
    """Warn of crystals of which a network sees no pair of atoms; an atom alone has none."""
    several = (packed.arrays["atoms"] > 1) | packed.arrays["periodic"].any(1)
    if lost := int((several & (packed.arrays["edges"] == 0)).sum()):
        LOGGER.warning(
            "%d of %d crystals in %s have no edge: no atom has a neighbour. Raise the cutoff in "
            "[model] (the rule is %s), and name another folder in data.packed.",
            *(lost, len(packed), packed.folder, packed.meta["rule"]),
        )


def _encoder(recipe: Recipe) -> Encoder:
    _, config = ENCODERS[recipe.encoder]
    for name in COUNTED & recipe.model.keys():
        if isinstance(recipe.model[name], int | float) and not recipe.model[name] >= 1:
            raise BadRecipe(
                f"[model] {name} is {recipe.model[name]}. Write one or more, or leave it out."
            )
    try:
        with torch.random.fork_rng(devices=[]):
            return make_encoder(recipe.encoder, recipe.model, mixer_of(recipe))
    except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise BadRecipe(
            f"[model] does not fit encoder {recipe.encoder!r}: {error}. Its keys: "
            f"{', '.join(entry.name for entry in fields(config))}."
        ) from error
