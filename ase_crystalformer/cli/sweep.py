"""``crystalformer sweep``: search for good entries of a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from ase_crystalformer.cli.jobs import errors_told, training_extra

EXAMPLE = """\b
Example:
  crystalformer sweep recipe.toml space.toml --trials 40 --set optim.epochs=5
"""


@errors_told()
def sweep(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE.toml", help="What to learn.", show_default=False)
    ],
    space: Annotated[
        Path,
        typer.Argument(
            metavar="SPACE.toml",
            help="By entry of the recipe, values or a range to choose from.",
            show_default=False,
        ),
    ],
    *,
    trials: Annotated[
        int, typer.Option(min=1, help="Runs in all, with those cut off, without failed ones.")
    ] = 20,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Of the study; runs/RECIPE-sweep if left out.",
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace an entry of the recipe in every run; may be repeated.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Search for good entries of a recipe: many runs, the hopeless ones cut off.

    A space names entries in quotes: "optim.peak_lr" = { low = 1e-4, high = 3e-3, log = true } or
    "model.width" = [64, 128]. Runs are judged by their validation loss and learn from one packed
    set, so neither what is in that loss, such as weights, nor what makes other graphs, such as
    model.cutoff, can be searched for. The study lies in study.db of the folder; call again with the
    same recipe and space to go on, also in place of runs that failed.
    """
    with training_extra():
        from ase_crystalformer.training.sweep import sweep as search

    folder = out or Path("runs") / f"{recipe.stem}-sweep"
    best = search(recipe, space, folder, trials=trials, overrides=list(overrides or ()))
    failed = f" ({best.failed} more failed)" if best.failed else ""
    typer.echo(f"best of {best.finished}{failed}: validation loss {best.loss:.5g}, {best.run}")
    typer.echo(" ".join(f"--set {entry}" for entry in best.overrides))
