"""``crystalformer evaluate``: how far a model is from labels."""

from pathlib import Path
from typing import Annotated

import typer

from ase_crystalformer.cli.jobs import Device, errors_told
from ase_crystalformer.cli.text import aligned

EXAMPLE = """\b
Example:
  crystalformer evaluate runs/mine/model labelled.extxyz --split test
  crystalformer evaluate default-properties packed/mp --split all -o judged
"""


@errors_told()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A name or the path of a model.", show_default=False),
    ],
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            help="A packed set, or a file of labelled crystals.",
            show_default=False,
        ),
    ],
    *,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="train, val, test, or all.")] = "test",
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="For scores.json and parity.png.")
    ] = Path("evaluation"),
    device: Device = "auto",
) -> None:
    """Judge a model on labelled crystals.

    Tells mean absolute and root mean square errors with units, and writes them to scores.json
    beside a plot of predictions against labels, parity.png.
    """
    from ase_crystalformer.pretrained import load_model
    from ase_crystalformer.training.evaluate import evaluate as compare

    chosen = load_model(model, device=device)
    scores = compare(chosen, dataset, split=None if split == "all" else split, out=out)
    head = ["quantity", "MAE", "RMSE", "unit", "labels"]
    rows = [
        [name, f"{score.mae:.4g}", f"{score.rmse:.4g}", score.unit, str(score.n)]
        for name, score in scores.items()
    ]
    typer.echo(aligned([head, *rows]))
    typer.echo(f"Also in {out}", err=True)
