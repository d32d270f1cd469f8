"""``crystalformer table``: trained runs beside what was published."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ase_crystalformer.cli.jobs import Device, errors_told
from ase_crystalformer.errors import CrystalformerError

if TYPE_CHECKING:
    from ase_crystalformer.data.crystals import Split
    from ase_crystalformer.leaderboards.judged import Judged

EXAMPLE = """\b
Example:
  crystalformer table runs/icomformer-mp-2018-*
  crystalformer table runs/*-perovskites-fold-* --ensemble -o tables/perovskites
"""


class Part(StrEnum):
    """Which part of the data judges."""

    test = "test"
    val = "val"


@errors_told()
def table(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUNS", help="Run folders of crystalformer train.")
    ],
    *,
    split: Annotated[
        Part | None,
        typer.Option(
            help="Which part judges; the test part where there is one.", show_default=False
        ),
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Add the mean of all runs that share fold and property."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            *("-o", "--out"),
            metavar="FOLDER",
            file_okay=False,
            help="Gets table.md, .json, .csv and, beside published numbers, table.png.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Hold trained runs against the numbers that their recipes say were published.

    Runs that differ by seed and fold alone share a row: the mean over seeds, then over folds, with
    standard deviations over both. A folder that is named twice counts once. The row says
    which part of the data judged, how many labels it holds, how many folds are there, and what it
    took: hours, hardware, commit of the package.
    Predictions are kept in the run folders, so that the next table is quick. Runs that cannot be
    judged are named, and the others told.
    """
    from ase_crystalformer.leaderboards.judged import judge
    from ase_crystalformer.leaderboards.summary import summarise
    from ase_crystalformer.leaderboards.table import markdown, write_table

    names: dict[Part | None, Split | None] = {None: None, Part.test: "test", Part.val: "val"}
    found, failed = [], 0
    for run in {run.resolve(): run for run in runs}.values():
        try:
            found += judge(run, names[split], device=device, progress=sys.stderr.isatty())
        except (CrystalformerError, OSError) as error:
            typer.echo(f"{run}: {error}", err=True)
            failed += 1
    if ensemble:
        means, apart = _means(found)
        found, failed = found + means, failed + apart
    rows = summarise(found)
    if rows:
        typer.echo(markdown(rows), nl=False)
        if out is not None:
            write_table(rows, out)
            typer.echo(f"Written: {out}", err=True)
    if failed:
        raise typer.Exit(1)


def _means(found: "list[Judged]") -> "tuple[list[Judged], int]":
    """Average runs that share fold and property; name those that cannot be, and count them."""
    from ase_crystalformer.leaderboards.judged import alike, mean_of

    means, failed = [], 0
    for members in alike(found):
        try:
            means.append(mean_of(members))
        except CrystalformerError as error:
            told = ", ".join(one.name for one in members)
            typer.echo(f"No mean of {told} ({members[0].target.name}): {error}", err=True)
            failed += 1
    return means, failed
