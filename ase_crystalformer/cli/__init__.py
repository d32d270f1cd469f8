"""The ``crystalformer`` command: one verb, one file."""

from importlib.metadata import version
from typing import Annotated

import typer

from ase_crystalformer.cli import (
    calibrate,
    contribute,
    data,
    distill,
    evaluate,
    featurize,
    finetune,
    models,
    predict,
    relax,
    screen,
    sweep,
    table,
    train,
)

EXAMPLE = """\b
Example:
  crystalformer relax candidates/*.cif -o relaxed.extxyz
  crystalformer predict relaxed.extxyz -p band_gap -o gaps.csv
"""

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(epilog=predict.EXAMPLE)(predict.predict)
app.command(epilog=relax.EXAMPLE)(relax.relax)
app.command(epilog=screen.EXAMPLE)(screen.screen)
app.command(epilog=featurize.EXAMPLE)(featurize.featurize)
app.command(epilog=train.EXAMPLE)(train.train)
app.command(epilog=sweep.EXAMPLE)(sweep.sweep)
app.command(epilog=finetune.EXAMPLE)(finetune.finetune)
app.command(epilog=distill.EXAMPLE)(distill.distill)
app.command(epilog=calibrate.EXAMPLE)(calibrate.calibrate)
app.command(epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command(epilog=table.EXAMPLE)(table.table)
app.command(epilog=contribute.EXAMPLE)(contribute.contribute)
app.command(epilog=models.EXAMPLE)(models.models)
app.add_typer(data.app, name="data")


def _tell_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"crystalformer {version('ase-crystalformer')}")
        raise typer.Exit
    return asked


@app.callback(epilog=EXAMPLE)
def crystalformer(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Tell the version and exit."
        ),
    ] = False,
) -> None:
    """Use, train and judge crystal transformers.

    Results go to standard output or to a file, progress and what failed to standard error. The exit
    code is 0 if all went well, 1 if something failed, 2 if the command could not be understood.
    """


def main() -> None:
    """Run the command line."""
    app()
