"""Pack the data of a recipe, once."""

import logging
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import pack, rule_dict
from ase_crystalformer.encoders import ENCODERS
from ase_crystalformer.encoders.base import Encoder
from ase_crystalformer.errors import BadRecipe, MissingData
from ase_crystalformer.mixer import make_encoder
from ase_crystalformer.training.config import Recipe, mixer_of
from ase_crystalformer.training.processes import is_first

LOGGER = logging.getLogger(__name__)


def prepare(recipe: Recipe) -> PackedCrystals:
    """Open the packed set of a recipe; make it first if it is not there.

    Of crystals that are in no part yet, 5 % are set aside for validation, chosen by name and seed.
    Of the processes of a run, the first makes the set, and the others wait until it is there.

    Raises:
        BadRecipe: There is neither a packed set nor a source, or the set has another graph or was
            split by another fold.
    """
    encoder = _encoder(recipe)
    folder = recipe.data.packed
    while not is_first() and not (folder / "meta.json").is_file():
        time.sleep(1)
    _pack_once(recipe, encoder)
    packed = PackedCrystals(folder)
    _check_fold(packed, recipe.data.fold)
    _check_source(packed, recipe)
    _check_chosen(packed, recipe)
    check_rule(packed, encoder, f"encoder {recipe.encoder!r} as configured in [model]")
    if packed.meta["by_symmetry"] and not _by_orbits(recipe):
        raise BadRecipe(
            f"{folder} keeps one atom of each orbit, and so neither forces nor atoms that can be "
            "moved. Name another folder in data.packed, and data.source to pack it from."
        )
    return packed


def _pack_once(recipe: Recipe, encoder: Encoder) -> None:
    """Pack the source of a recipe, unless it is done; of several runs one does, the others wait."""
    folder = recipe.data.packed
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
        remembered={
            "fold": recipe.data.fold,
            "source": _sources(recipe),  # its files with their sizes
            "chosen": _chosen(recipe),
        },
        processes=max(recipe.machine.workers, 1),
    )
    for line in left_out:
        LOGGER.warning("Left out %s", line)


def _by_orbits(recipe: Recipe) -> bool:
    """Whether one atom of each orbit is enough."""
    return recipe.energy is None and recipe.denoise is None


def _check_fold(packed: PackedCrystals, fold: int | None) -> None:
    """Refuse a set whose test part is another fold; what was packed long ago does not say."""
    was = packed.meta.get("fold", fold)
    if fold is not None and was != fold:
        raise BadRecipe(
            f"data.fold is {fold}, but {packed.folder} was packed for "
            f"{'no fold' if was is None else f'fold {was}'}. Name another folder in data.packed "
            "for each fold, and data.source to pack it from."
        )


def _sources(recipe: Recipe) -> dict[str, int]:
    """Name what a recipe packs; of a file also its size."""
    told = recipe.data.source
    names = [told] if isinstance(told, str) else told or ()
    return {
        Path(name).name: Path(name).stat().st_size if Path(name).is_file() else 0 for name in names
    }


def _check_source(packed: PackedCrystals, recipe: Recipe) -> None:
    """Refuse a set of another source, and tell of files that are others by now."""
    was, now = packed.meta.get("source"), _sources(recipe)
    if not was or not now:
        return
    if set(was) != set(now):
        raise BadRecipe(
            f"{packed.folder} was packed from {', '.join(was)}, but data.source is "
            f"{', '.join(now)}. Name another folder in data.packed, or leave source out."
        )
    if changed := [name for name, size in now.items() if size and size != was[name]]:
        LOGGER.warning(
            "%s has changed since %s was packed from it, which is used as it is. Name another "
            "folder in data.packed to pack anew.",
            *(", ".join(changed), packed.folder),
        )


def _chosen(recipe: Recipe) -> dict[str, Any]:
    """Tell by what a recipe chooses what is packed, and what of it judges."""
    return {
        "hold_out": recipe.data.hold_out,
        "largest": dict(recipe.data.largest),
        "replay": recipe.data.replay is not None,  # how often is not a matter of packing
    }


def _check_chosen(packed: PackedCrystals, recipe: Recipe) -> None:
    """Refuse a set that was packed by other entries; what was packed long ago does not say."""
    was, now = packed.meta.get("chosen"), _chosen(recipe)
    if not was or recipe.data.source is None:
        return
    if changed := [name for name in now if was[name] != now[name]]:
        told = ", ".join(f"data.{name} ({was[name]!r} then)" for name in changed)
        raise BadRecipe(
            f"{packed.folder} was packed with another {told}. Name another folder in data.packed "
            "to pack anew, ask for the same, or leave source out to take the set as it is."
        )


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


def _encoder(recipe: Recipe) -> Encoder:
    _, config = ENCODERS[recipe.encoder]
    try:
        with torch.random.fork_rng(devices=[]):
            return make_encoder(recipe.encoder, recipe.model, mixer_of(recipe))
    except (TypeError, ValueError) as error:
        raise BadRecipe(
            f"[model] does not fit encoder {recipe.encoder!r}: {error}. Its keys: "
            f"{', '.join(entry.name for entry in fields(config))}."
        ) from error


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
