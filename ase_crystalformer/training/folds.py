"""All official folds of a task, one run each."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ase_crystalformer.data.official import FOLDS
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.training.config import Recipe, read_recipe
from ase_crystalformer.training.record import changed_since, epochs_done
from ase_crystalformer.training.run import fit


def train_folds(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    row: str | None = None,
    runs: str | Path = "runs",
    progress: bool = True,
) -> Iterator[Path]:
    """Train on the five official folds one after another, and yield the run folder of each.

    Folds that are done are not trained again; one that was cut off goes on.

    Args:
        recipe: The file.
        overrides: ``section.key=value`` in TOML.
        row: Of a recipe with rows, which one.
        runs: Where run folders are.
        progress: Show a progress bar.

    Raises:
        BadRecipe: The recipe is not valid, its data have no folds, or a folder holds a run of
            another recipe.
    """
    read = [read_recipe(recipe, overrides, row=row, fold=fold) for fold in range(FOLDS)]
    for one in read:
        folder = Path(runs) / one.name
        if not is_done(folder, one):
            begun = (folder / "checkpoints" / "last.ckpt").is_file()
            fit(one, folder, resume=begun, progress=progress)
        yield folder


def is_done(folder: Path, recipe: Recipe) -> bool:
    """Say whether a run has made all its epochs.

    Raises:
        BadRecipe: The folder holds a run of another recipe; more epochs may be asked for.
    """
    if not (folder / "model.json").is_file():
        return False
    done = epochs_done(folder) >= recipe.optim.epochs
    changed = [name for name in changed_since(folder, recipe) if done or name != "optim"]
    if changed:
        raise BadRecipe(
            f"{folder} holds a run with another {', '.join(changed)}; {folder}/recipe.json tells "
            "which. Ask for the same, or train under another name: --set name='\"another\"'."
        )
    return done
