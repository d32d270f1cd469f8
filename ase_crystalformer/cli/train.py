"""``crystalformer train``: a recipe in, a run folder out."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ase_crystalformer.cli.jobs import errors_told
from ase_crystalformer.errors import MissingExtra

EXAMPLE = """\b
Example:
  crystalformer train recipe.toml --set optim.epochs=3
  crystalformer train recipe.toml --resume runs/recipe
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
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Continue this run folder.", show_default=False),
    ] = None,
) -> None:
    """Train a model: a recipe in, a run folder out.

    A new run goes to runs/NAME. The folder holds the recipe as it was run, checkpoints, metrics and
    the model, which every other verb takes by its path.
    """
    try:
        from ase_crystalformer.training.run import train as train_recipe
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"Training needs {error.name}: pip install 'ase-crystalformer[train]'."
        ) from error

    overrides = list(overrides or ())
    if resume is None:
        run = train_recipe(recipe, overrides)
    else:
        overrides.append(f"name={json.dumps(resume.name)}")
        run = train_recipe(recipe, overrides, runs=resume.parent, resume=True)
    typer.echo(run)
