"""``crystalformer distill``: a fast student of any ASE calculator."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ase_crystalformer.cli.finetune import Overrides, Run
from ase_crystalformer.cli.jobs import Job, Structures, errors_told, training_extra
from ase_crystalformer.cli.text import aligned

if TYPE_CHECKING:
    from ase import Atoms

    from ase_crystalformer.training.distillation import Distilled

EXAMPLE = """\b
Example:
  crystalformer distill candidates/*.cif --teacher mace.calculators:mace_mp -o runs/student
  crystalformer relax candidates/*.cif -m runs/student/model
"""

#: Structures read at once.
AT_ONCE = 64
Teacher = Annotated[
    str,
    typer.Option(
        metavar="MODULE:FACTORY",
        help="A callable that returns an ASE calculator; or a model's name or path.",
        show_default=False,
    ),
]
Start = Annotated[
    str,
    typer.Option(metavar="MODEL", help="What to start from; none for random weights."),
]
OtherRecipe = Annotated[
    Path | None,
    typer.Option(
        metavar="RECIPE.toml",
        help="What to train, instead of --start; its data are not read.",
        show_default=False,
    ),
]


@errors_told()
def distill(  # noqa: PLR0913  what is perturbed, who teaches, who learns
    structures: Structures,
    *,
    teacher: Teacher,
    out: Run,
    frames: Annotated[
        int, typer.Option(min=1, metavar="NUMBER", help="Perturbed frames of each structure.")
    ] = 10,
    rattle: Annotated[
        tuple[float, float],
        typer.Option(metavar="LEAST MOST", help="Standard deviation of displacements, Å."),
    ] = (0.02, 0.35),
    strain: Annotated[
        float, typer.Option(metavar="NUMBER", help="Largest component of a random strain.")
    ] = 0.05,
    squeeze: Annotated[
        float, typer.Option(metavar="NUMBER", help="Largest share by which lengths shrink.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Of all that is random.")] = 0,
    start: Start = "default",
    recipe: OtherRecipe = None,
    overrides: Overrides = None,
) -> None:
    """Teach a student what a slow calculator says.

    Perturbs every structure, lets the teacher label each frame, and trains a student on them. A
    tenth of the structures is held out with all frames. Tells how far the student is from the
    teacher there, and how much faster it is. DIR/model is the student, for every verb.

    Labels are written as they come: the same command goes on where it was cut off. What cannot be
    read or labelled is named, and the others are done.
    """
    with training_extra():
        from ase_crystalformer.training.distillation import distill as teach
    from ase_crystalformer.assessment.calculators import candidate
    from ase_crystalformer.data.perturbations import Perturbation

    amounts = Perturbation(frames=frames, rattle=rattle, strain=strain, squeeze=squeeze, seed=seed)
    sys.path.append(str(Path.cwd()))  # a factory may lie here
    calculator = candidate(teacher).calculator
    job = Job(structures, made=[out])
    found = teach(
        _read(job),
        calculator,
        out,
        name=teacher,
        amounts=amounts,
        start=None if start == "none" else start,
        recipe=recipe,
        overrides=overrides or (),
        progress=sys.stderr.isatty(),
    )
    _tell(found, out)
    if found.failed:
        typer.echo(f"{len(found.failed)} frames failed: {out}/left_out.txt", err=True)
    job.end()
    if found.failed:
        raise typer.Exit(1)


def _read(job: Job) -> "dict[str, Atoms]":
    """Read all structures; tell what cannot be read."""
    found = {}
    for items in job.chunks(AT_ONCE):
        for item in items:
            twin = "Another structure has this name." if item.name in found else None
            job.count(item.name, item.error or twin)
            if item.atoms is not None and not twin:
                found[item.name] = item.atoms
    return found


def _tell(found: "Distilled", out: Path) -> None:
    """Write errors beside the teacher and times."""
    head = ["student - teacher", "MAE", "RMSE", "spread of labels", "unit", "labels"]
    rows = [
        [name, f"{one.mae:.4g}", f"{one.rmse:.4g}", f"{one.spread:.4g}", one.unit, str(one.n)]
        for name, one in found.errors.items()
    ]
    if rows:
        typer.echo(aligned([head, *rows]))
    else:
        typer.echo(
            "No structure was held out, so how far the student is from the teacher is not known: "
            "each has an element that no other has. Give more structures of these elements.",
            err=True,
        )
    if found.speed:
        low, high = found.speed.spread
        typer.echo(
            f"times faster, one by one: {found.speed.ratio:.3g} (quartiles {low:.3g} to {high:.3g},"
            f" {found.speed.frames} frames); in one batch: "
            f"{found.speed.teacher / found.speed.batched:.3g}"
        )
    typer.echo(f'Use it: CrystalformerCalculator("{out}/model"). Also in {out}', err=True)
