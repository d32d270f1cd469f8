"""Read the source of a recipe: labelled crystals, each in its part of the data."""

import logging
from collections.abc import Iterator
from pathlib import Path

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.unread import tell_unread
from ase_crystalformer.errors import BadRecipe, MissingData
from ase_crystalformer.training.config import Recipe

LOGGER = logging.getLogger(__name__)

#: How many columns of a file a message names.
COLUMNS = 20


def labels_of(recipe: Recipe) -> tuple[str, ...]:
    """Name the labels that a recipe learns, one number per crystal or arrays."""
    return recipe.targets if recipe.energy is None else ("energy", "forces", "stress")


def crystals_of(recipe: Recipe) -> Iterator[LabelledCrystal]:
    """Read the source, each crystal in a part of the data; those without a label are passed by.

    Raises:
        MissingData: No crystal can be read, or none has a label of a target.
    """
    wanted, largest = set(recipe.targets), recipe.data.largest
    there: set[str] = set()
    known: set[str] = set()
    told: set[str] = set()
    for crystal in tell_unread(_with_replay(recipe), labels_of(recipe), _called(recipe)):
        there.add(crystal.source)
        known.update(crystal.labels)
        told.update(crystal.info)
        if wanted and wanted.isdisjoint(crystal.labels):
            continue
        if crystal.atoms <= largest.get(crystal.source, crystal.atoms):
            yield crystal
    if not there:
        raise MissingData(f"No row of {_called(recipe)} can be read. The log says why, of each.")
    if lacking := sorted(wanted - known):
        raise _unlabelled(_called(recipe), lacking, known, told)
    if missing := sorted(set(largest) - there):
        LOGGER.warning(
            "data.largest names %s, of which nothing was read; there is %s.",
            *(", ".join(missing), ", ".join(sorted(there))),
        )


def _called(recipe: Recipe) -> str:
    """Name what a recipe reads."""
    source = recipe.data.source
    return ", ".join(source) if isinstance(source, tuple) else str(source)


def _unlabelled(source: str, lacking: list[str], known: set[str], told: set[str]) -> MissingData:
    """Say which targets have no label, and what there is instead."""
    columns = [*sorted(known), *sorted(told - known)]
    more = ", …" if len(columns) > COLUMNS else ""
    return MissingData(
        f"No row of {source} has a number in {', '.join(lacking)}; its columns are "
        f"{', '.join(columns[:COLUMNS]) or 'none'}{more}. Name a column of the file so, or leave "
        f"{'it' if len(lacking) == 1 else 'them'} out of targets."
    )


def _with_replay(recipe: Recipe) -> Iterator[LabelledCrystal]:
    """Add what the bundled potential shall not forget."""
    yield from _in_parts(recipe)
    if recipe.data.replay is not None:
        from ase_crystalformer.data.replay import replay_frames

        yield from replay_frames()


def _in_parts(recipe: Recipe) -> Iterator[LabelledCrystal]:
    """Give every crystal of the source its part."""
    from ase_crystalformer.data.holdout import keyed, split_by_block, split_by_fold, split_by_name
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
        for crystal, name in keyed(crystals):
            yield crystal.in_split(crystal.split or split_by_name(name, seed))


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
