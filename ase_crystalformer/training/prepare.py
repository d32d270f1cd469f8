"""Pack the data of a recipe, once."""

import logging
from collections.abc import Iterator

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.packed import PackedCrystals, pack
from ase_crystalformer.encoders import ENCODERS
from ase_crystalformer.errors import BadRecipe, unknown_name
from ase_crystalformer.training.config import Recipe

LOGGER = logging.getLogger(__name__)


def prepare(recipe: Recipe) -> PackedCrystals:
    """Open the packed set of a recipe; make it first if it is not there.

    A set without a validation part gets 5 % set aside, chosen by name and seed.

    Raises:
        BadRecipe: if there is neither a packed set nor a source, or the set has another graph.
    """
    if recipe.encoder not in ENCODERS:
        raise unknown_name("encoder", recipe.encoder, ENCODERS)
    build, config = ENCODERS[recipe.encoder]
    try:
        encoder = build(config(**recipe.model))
    except (TypeError, ValueError) as error:
        raise BadRecipe(f"[model] does not fit encoder {recipe.encoder!r}: {error}") from error
    folder = recipe.data.packed
    if not (folder / "meta.json").is_file():
        labels = list(recipe.targets) or ["energy"]
        symmetric = bool(recipe.targets) and encoder.claims.orbits is True
        left_out = pack(_crystals(recipe), encoder.rule, folder, labels=labels, by_symmetry=symmetric)
        for line in left_out:
            LOGGER.warning("left out: %s", line)
    packed = PackedCrystals(folder)
    wanted = {"kind": type(encoder.rule).__name__, **vars(encoder.rule)}
    if packed.meta["rule"] != wanted:
        raise BadRecipe(
            f"{folder} was packed with {packed.meta['rule']}, but the encoder asks for {wanted}. "
            "Name another folder in data.packed, and data.source to pack it from."
        )
    return packed


def _crystals(recipe: Recipe) -> Iterator[LabelledCrystal]:
    from ase_crystalformer.data.holdout import split_by_name

    for crystal in _source(recipe):
        if len(crystal.species) <= recipe.data.largest.get(crystal.source, 10**9):
            split = crystal.split or split_by_name(crystal.id, recipe.seed)
            yield crystal.in_split(split)


def _source(recipe: Recipe) -> Iterator[LabelledCrystal]:
    """Name what to read."""
    from ase_crystalformer.data import mixtures
    from ase_crystalformer.data.readers import load

    source, directory = recipe.data.source, recipe.data.directory
    if source is None:
        raise BadRecipe(f"{recipe.data.packed} is not a packed set, and data.source names nothing to pack.")
    if source in ("properties", "potential"):
        if directory is None:
            raise BadRecipe(f"data.source {source!r} needs data.directory, the folder of the data sets.")
        return iter(getattr(mixtures, source)(directory))
    return iter(load(source, directory))
