"""``crystalformer contribute``: trained runs to a folder that a public leaderboard takes."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ase_crystalformer.cli.jobs import Device, errors_told
from ase_crystalformer.cli.text import aligned

EXAMPLE = """\b
Example:
  crystalformer contribute runs/perovskites-* --to matbench -o matbench_v0.1_mine
  crystalformer contribute runs/gap --to jarvis -o mine --name mine --authors us
"""


class Board(StrEnum):
    """Where results go."""

    matbench = "matbench"
    jarvis = "jarvis"


@errors_told()
def contribute(  # noqa: PLR0913  what a leaderboard asks
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUNS", help="Run folders of crystalformer train."),
    ],
    *,
    board: Annotated[Board, typer.Option("--to", help="The leaderboard.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="FOLDER", file_okay=False, help="To hand in.", show_default=False
        ),
    ],
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Of the algorithm.")
    ] = "ase_crystalformer",
    authors: Annotated[str, typer.Option(metavar="NAMES", help="Who, or which team.")] = "",
    url: Annotated[str, typer.Option(metavar="URL", help="Of the project.")] = "",
    email: Annotated[str, typer.Option(metavar="ADDRESS", help="For questions.")] = "",
    notes: Annotated[str, typer.Option(metavar="TEXT", help="What else to know.")] = "",
    benchmark: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Test set of JARVIS-Leaderboard to check against, .json.zip."
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Write what trained runs say of their test parts as a public leaderboard takes it.

    matbench: the five folds of one or more tasks (data.fold of the recipes is 0 to 4) become
    results.json.gz and info.json. Each fold must be complete, or the leaderboard would refuse it:
    data.source is matbench_perovskites, or a file of your own with all rows of another task.

    jarvis: properties of a run whose test part is that of JARVIS-DFT, named by JVASP numbers,
    become one .csv.zip each, with metadata.json and run.sh. Moduli are in GPa.

    Recipes and a program that trains anew lie beside; what an earlier contribution left in FOLDER
    goes. Fill in what info.json or metadata.json lack.
    """
    from ase_crystalformer.leaderboards.contribution import About, write_jarvis, write_matbench
    from ase_crystalformer.leaderboards.runs import open_run

    if benchmark is not None and board is not Board.jarvis:
        raise typer.BadParameter(
            "Only jarvis takes a benchmark, drop it.", param_hint="--benchmark"
        )
    about = About(name=name, authors=authors, url=url, email=email, notes=notes)
    found = [open_run(run) for run in runs]
    shown = sys.stderr.isatty()
    if board is Board.matbench:
        errors = write_matbench(found, about, out, device=device, progress=shown)
        rows = [
            [task, *(f"{x:.4g}" for x in folds), f"{sum(folds) / len(folds):.4g}"]
            for task, folds in errors.items()
        ]
        typer.echo(aligned([["task", *(f"fold {n}" for n in range(5)), "mean MAE"], *rows]))
    else:
        told = write_jarvis(found, about, out, benchmark, device=device, progress=shown)
        rows = [[target, f"{error:.4g}"] for target, error in told.items()]
        typer.echo(aligned([["property", "MAE"], *rows]))
    typer.echo(f"To hand in: {out}", err=True)
