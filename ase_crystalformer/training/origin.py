"""What a packed set remembers of the recipe it was packed by, and what of another is refused."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.registry import DATA_SETS
from ase_crystalformer.errors import BadRecipe, MissingData
from ase_crystalformer.training.config import Recipe

LOGGER = logging.getLogger(__name__)


def origin_of(recipe: Recipe) -> dict[str, Any]:
    """Tell what a set packed now is to hold of its recipe, as plain values."""
    return {
        "fold": recipe.data.fold,
        "source": _sources(recipe),  # its files with their sizes
        "files": _contents(recipe, {}),
        "stamps": {path: _stamp(files) for path, files in _own(recipe).items()},
        "seed": recipe.seed,
        "chosen": _chosen(recipe),
    }


def check_origin(packed: PackedCrystals, recipe: Recipe) -> None:
    """Refuse a set that a recipe would have packed otherwise; what it does not say is no matter.

    Raises:
        BadRecipe: The set has another fold or source, or was packed by other entries.
    """
    _check_fold(packed, recipe.data.fold)
    _check_source(packed, recipe)
    _check_chosen(packed, recipe)
    _tell_seed(packed, recipe)


def _check_fold(packed: PackedCrystals, fold: int | None) -> None:
    """Refuse a set whose test part is another fold; what was packed long ago does not say."""
    was = packed.meta.get("fold", fold)
    if fold is not None and was != fold:
        raise BadRecipe(
            f"data.fold is {fold}, but {packed.folder} was packed for "
            f"{'no fold' if was is None else f'fold {was}'}. Name another folder in data.packed "
            "for each fold, and data.source to pack it from."
        )


def _named(recipe: Recipe) -> tuple[str, ...]:
    told = recipe.data.source
    return (told,) if isinstance(told, str) else told or ()


def _sources(recipe: Recipe) -> dict[str, int]:
    """Name what a recipe packs; of a file also its size."""
    paths = [Path(name) for name in _named(recipe)]
    return {path.name: path.stat().st_size if path.is_file() else 0 for path in paths}


def _own(recipe: Recipe) -> dict[str, list[Path]]:
    """List files of one's own by their whole paths; those of a folder or a glob by its.

    Public data sets are known by name, and what is not there is left out.
    """
    listed = isinstance(recipe.data.source, tuple)
    names = [name for name in _named(recipe) if listed or name not in DATA_SETS]
    found = {str(Path(name).resolve()): _files(Path(name), listed=listed) for name in names}
    return {path: files for path, files in found.items() if files}


def _contents(recipe: Recipe, known: Mapping[str, Any]) -> dict[str, str]:
    """Hash what files of one's own hold; files of known stamps are not read again."""
    hashes, stamps = known.get("files", {}), known.get("stamps", {})
    return {
        path: hashes[path] if stamps.get(path) == _stamp(files) else _hash(files)
        for path, files in _own(recipe).items()
    }


def _stamp(files: Sequence[Path]) -> list[list[Any]]:
    """Tell files as they are from files that were written since."""
    told = [(path.name, path.stat()) for path in files]
    return [[name, state.st_size, state.st_mtime_ns] for name, state in told]


def _files(path: Path, *, listed: bool) -> list[Path]:
    """Name the files that an entry stands for; only a list may have folders and globs."""
    if path.is_file():
        return [path]
    with suppress(ImportError, MissingData):  # without ASE nothing is packed, and none is needed
        from ase_crystalformer.data.frames import files_of

        return files_of([path]) if listed else []
    return []


def _hash(files: Sequence[Path]) -> str:
    """Tell the content of files from other content, wherever they lie."""
    known = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            known.update(hashlib.file_digest(file, "sha256").digest())
    return known.hexdigest()


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
    if "files" in packed.meta:
        changed = _changed(packed, _contents(recipe, packed.meta))
    else:  # as sets were packed before
        changed = [name for name, size in now.items() if size and size != was[name]]
    if changed:
        LOGGER.warning(
            "%s has changed since %s was packed from it, which is used as it is. Name another "
            "folder in data.packed to pack anew.",
            *(", ".join(changed), packed.folder),
        )


def _changed(packed: PackedCrystals, now: dict[str, str]) -> list[str]:
    """Name files that hold something else by now; refuse others that never were what was packed."""
    was: dict[str, str] = packed.meta["files"]
    for path, content in now.items():
        if was and path not in was and content not in was.values():
            raise BadRecipe(
                f"{packed.folder} was packed from {', '.join(was)}, and {path} is another file "
                "with other content. Name another folder in data.packed to pack that, or leave "
                "source out to take the set as it is."
            )
    return [Path(path).name for path, content in now.items() if was.get(path, content) != content]


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


def _tell_seed(packed: PackedCrystals, recipe: Recipe) -> None:
    """Tell of another seed: runs may share one validation part, or be thought to have their own."""
    was = packed.meta.get("seed", recipe.seed)
    if was != recipe.seed and recipe.data.source is not None:
        LOGGER.warning(
            "%s was split with seed %d, not %d. Where its source tells no parts, the same crystals "
            "judge as of that seed; name another folder in data.packed to choose anew.",
            *(packed.folder, was, recipe.seed),
        )
