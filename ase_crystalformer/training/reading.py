"""Read the source of a recipe: labelled crystals, each in its part of the data."""

import logging
from collections.abc import Iterator
from pathlib import Path

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.errors import BadRecipe, MissingData
from ase_crystalformer.training.config import Recipe

LOGGER = logging.getLogger(__name__)


def crystals_of(recipe: Recipe) -> Iterator[LabelledCrystal]:
    """Read the source, each crystal in a part of the data; those without a label are passed by."""
    wanted, largest = set(recipe.targets), recipe.data.largest
    there = set()
    for crystal in _with_replay(recipe):
        there.add(crystal.source)
        if wanted and wanted.isdisjoint(crystal.labels):
            continue
        if crystal.atoms <= largest.get(crystal.source, crystal.atoms):
            yield crystal
    if missing := sorted(set(largest) - there):
        LOGGER.warning(
            "data.largest names %s, of which nothing was read; there is %s.",
            *(", ".join(missing), ", ".join(sorted(there))),
        )


def _with_replay(recipe: Recipe) -> Iterator[LabelledCrystal]:
    """Add what the bundled potential shall not forget."""
    yield from _in_parts(recipe)
    if recipe.data.replay is not None:
        from ase_crystalformer.data.replay import replay_frames

        yield from replay_frames()


def _in_parts(recipe: Recipe) -> Iterator[LabelledCrystal]:
    """Give every crystal of the source its part."""
    from ase_crystalformer.data.holdout import split_by_block, split_by_fold, split_by_name
    from ase_crystalformer.data.potential import RUNS

    if own := _own_files(recipe):
        yield from _own_frames(recipe, own)
        return
    source = recipe.data.source
    assert not isinstance(source, tuple)
    crystals, seed = _source(recipe, source), recipe.seed
    if recipe.data.fold is not None:
        found = split_by_fold(crystals, recipe.data.fold, seed=seed)
        first = next(found, None)
        if first is None:
            raise BadRecipe(
                f"data.fold is {recipe.data.fold}, but no crystal of {recipe.data.source!r} has a "
                "fold. Only MatBench sets have them; leave fold out."
            )
        yield first
        yield from found
    elif recipe.data.source in RUNS:
        yield from split_by_block(crystals, seed)
    else:
        for crystal in crystals:
            yield crystal.in_split(crystal.split or split_by_name(crystal.id, seed))


def _own_files(recipe: Recipe) -> tuple[str, ...]:
    """Files of frames of the user's: a list, or the one a potential learns."""
    source = recipe.data.source
    if isinstance(source, tuple):
        return source
    if source is None or recipe.energy is None or not Path(source).is_file():
        return ()
    return (source,)


def _own_frames(recipe: Recipe, sources: tuple[str, ...]) -> list[LabelledCrystal]:
    """Read a list of files, on the scale the recipe names."""
    from ase_crystalformer.data.frames import SOURCE, read_frames, set_aside

    scale = recipe.energy.scale if recipe.energy else None
    frames = list(read_frames(sources, group=scale or SOURCE))
    if not frames:
        raise MissingData(
            f"{', '.join(sources)}: no frame that can be learned from. What is wrong with each is "
            "told above."
        )
    return set_aside(frames, recipe.data.hold_out, recipe.seed)


def _source(recipe: Recipe, source: str | None) -> Iterator[LabelledCrystal]:
    """Find what to read."""
    from ase_crystalformer.data import mixtures
    from ase_crystalformer.data.readers import load

    directory = recipe.data.directory
    if source is None:
        raise BadRecipe(
            f"{recipe.data.packed} is not a packed set, and data.source names nothing to pack."
        )
    if source in mixtures.__all__:
        if directory is None:
            raise BadRecipe(
                f"data.source {source!r} needs data.directory, the folder of the data sets."
            )
        return iter(getattr(mixtures, source)(directory))
    return iter(load(source, directory))
