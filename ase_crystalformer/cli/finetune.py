"""``crystalformer finetune``: a potential trained further on DFT of one's own."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ase_crystalformer.cli.jobs import errors_told, training_extra
from ase_crystalformer.cli.text import aligned

if TYPE_CHECKING:
    from ase_crystalformer.training.comparison import Change

EXAMPLE = """\b
Example:
  crystalformer finetune md.extxyz 'relax/*/vasprun.xml' -o runs/mine
  crystalformer relax POSCAR -m runs/mine/model
"""

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace an entry of the recipe, as in TOML, e.g. optim.epochs=20; may be repeated.",
        show_default=False,
    ),
]
Run = Annotated[
    Path, typer.Option("-o", "--out", metavar="DIR", help="The run folder.", show_default=False)
]
Frames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FRAMES",
        help="Extended XYZ, ASE database or trajectory, vasprun.xml; a folder, a quoted glob. Not "
        "needed to resume.",
        show_default=False,
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        metavar="MODEL",
        help="A name or the path of a model.",
        show_default="default",
    ),
]
Scale = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default="own",
        help="The energy scale of the frames. Element energies are fitted to it, unless it is "
        "that of the model: mp, Materials Project's uncorrected PBE and PBE+U.",
    ),
]
Replay = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="NUMBER",
        show_default="4",
        help="Frames of the first training, per frame and epoch; 0 for none.",
    ),
]
HoldOut = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=0.9,
        metavar="SHARE",
        show_default="0.1",
        help="To measure on, where files have no splits.",
    ),
]


@errors_told()
def finetune(
    frames: Frames = None,
    *,
    out: Run,
    model: Start = None,
    scale: Scale = None,
    replay: Replay = None,
    hold_out: HoldOut = None,
    overrides: Overrides = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in DIR, as it was begun, or for more epochs (--set "
            "optim.epochs=NUMBER).",
        ),
    ] = False,
) -> None:
    """Train a potential further on DFT frames of your own.

    Energies in eV, forces in eV/Å, stress in eV/Å³ as ASE reads them; what a frame lacks is not
    learned from it. Frames that did not converge, appear twice or cannot be read are named and left
    out. DIR/model is the potential, for every verb and for CrystalformerCalculator("DIR/model").

    Tells errors before and after, on frames held out and on frames of the first training.
    """
    with training_extra():
        from ase_crystalformer.training.finetuning import finetune as train_further
        from ase_crystalformer.training.record import LEFT_OUT

    found = train_further(
        frames,
        out,
        model=model,
        scale=scale,
        replay=replay,
        hold_out=hold_out,
        overrides=overrides or (),
        resume=resume,
        progress=sys.stderr.isatty(),
    )
    told = ", ".join(f"{number} {part}" for part, number in found.frames.items())
    typer.echo(f"{sum(found.frames.values())} frames: {told}", err=True)
    if (out / LEFT_OUT).is_file():
        typer.echo(f"What was left out, and why: {out / LEFT_OUT}", err=True)
    if found.changes:
        typer.echo(aligned(list(rows(found.changes))))
    if found.model.card.summary:
        typer.echo(found.model.card.summary, err=True)
    typer.echo(f'Use it: CrystalformerCalculator("{out}/model"). Also in {out}', err=True)


def rows(
    changes: "Sequence[Change]", ways: tuple[str, str] = ("before", "after")
) -> Iterator[list[str]]:
    """Set mean absolute errors beside each other."""
    yield ["MAE of", "on", *ways, "unit", "labels"]
    for one in changes:
        numbers = (f"{one.before:.4g}", f"{one.after:.4g}", one.unit, str(one.n))
        yield [one.quantity, one.on, *numbers]
