"""``crystalformer train``: a recipe in, a run folder out."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ase_crystalformer.cli.jobs import errors_told, training_extra

EXAMPLE = """\b
Example:
  crystalformer train recipe.toml --set optim.epochs=3
  crystalformer train recipe.toml --resume runs/recipe
  crystalformer train icomformer-matbench.toml --row perovskites --folds
"""


@errors_told()
def train(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE.toml", help="What to learn, from what, and how.", show_default=False
        ),
    ],
    *,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace an entry of the recipe, as in TOML; may be repeated.",
            show_default=False,
        ),
    ] = None,
    row: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a recipe with rows, which one.", show_default=False),
    ] = None,
    folds: Annotated[
        bool,
        typer.Option("--folds", help="Train on all five official folds; go on with those cut off."),
    ] = False,
    find_rate: Annotated[
        bool,
        typer.Option("--find-rate", help="Look for a learning rate instead; draw NAME-rate.png."),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Continue this run folder, on its fold.", show_default=False
        ),
    ] = None,
) -> None:
    """Train a model: a recipe in, a run folder out.

    A new run goes to runs/NAME. The folder holds the recipe as it was run, checkpoints, metrics and
    the model, which every other verb takes by its path. A recipe of a published table has a row for
    each property; crystalformer table holds what comes out against the numbers published.
    """
    _check_together(folds, find_rate, resume)
    with training_extra():
        import ase_crystalformer.training.run  # noqa: F401

    overrides = list(overrides or ())
    if find_rate:
        _find_rate(recipe, overrides, row)
    elif folds:
        from ase_crystalformer.training.folds import train_folds

        for run in train_folds(recipe, overrides, row=row):
            typer.echo(run)
    else:
        typer.echo(_train(recipe, overrides, row, resume))


def _check_together(folds: bool, find_rate: bool, resume: Path | None) -> None:
    """Refuse options that contradict each other."""
    if folds and resume is not None:
        raise typer.BadParameter("Folds go on by themselves, drop it.", param_hint="--resume")
    if find_rate and (folds or resume is not None):
        other = "--folds" if folds else "--resume"
        raise typer.BadParameter(f"It trains nothing: drop {other}.", param_hint="--find-rate")


def _train(recipe: Path, overrides: list[str], row: str | None, resume: Path | None) -> Path:
    """Begin a run, or go on with one on its fold."""
    from ase_crystalformer.training.record import fold_overrides
    from ase_crystalformer.training.run import train

    if resume is None:
        return train(recipe, overrides, row=row)
    overrides = [*fold_overrides(resume), *overrides, f"name={json.dumps(resume.name)}"]
    return train(recipe, overrides, row=row, runs=resume.parent, resume=True)


def _find_rate(recipe: Path, overrides: list[str], row: str | None) -> None:
    """Tell where the loss falls fastest, and draw it."""
    from ase_crystalformer.training.config import read_recipe
    from ase_crystalformer.training.rate_finder import find_rate, plot_rate

    read = read_recipe(recipe, overrides, row=row)
    picture = Path(f"{read.name}-rate.png")
    picture.parent.mkdir(parents=True, exist_ok=True)  # before the work, as it may not be allowed
    found = find_rate(read)
    plot_rate(found, picture)
    typer.echo(f"the loss falls fastest at --set optim.peak_lr={found.suggestion:.1e} ({picture})")
