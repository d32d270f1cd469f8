"""What a packed set remembers of the recipe it was packed by, and what of another is refused."""

import logging
from pathlib import Path
from typing import Any

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.training.config import Recipe

LOGGER = logging.getLogger(__name__)


def origin_of(recipe: Recipe) -> dict[str, Any]:
    """Tell what a set packed now is to hold of its recipe, as plain values."""
    return {
        "fold": recipe.data.fold,
        "source": _sources(recipe),  # its files with their sizes
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
