"""``crystalformer screen``: thousands of candidates in, the few worth computing out."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ase_crystalformer.cli.jobs import Device, ModelName, errors_told
from ase_crystalformer.cli.text import aligned

if TYPE_CHECKING:
    from ase_crystalformer.screening import Screened

EXAMPLE = """\b
Example:
  crystalformer screen candidates/ -o out --keep 20% --where "1 < band_gap"
  crystalformer screen all.xyz -o out --hull known --where "e_above_hull < 0.1"
  crystalformer screen 'cifs/*.cif' -o out --cluster slurm.toml
"""


Candidates = Annotated[
    list[str],
    typer.Argument(
        metavar="CANDIDATES",
        help="CIF, POSCAR, (ext)xyz(.gz), ASE database, pymatgen JSON, a table (CSV, JSON, "
        "parquet) with a column structure or cif, a folder, a quoted glob.",
        show_default=False,
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION",
        help="What to select, on the columns of the table, as in pandas. A missing value fulfils "
        "nothing, not even != or not; COLUMN.isna() asks for it.",
        show_default=False,
    ),
]
Hull = Annotated[
    str | None,
    typer.Option(
        metavar="PHASES",
        help="Known phases: a JSON list of pymatgen entries, a CSV table with formula and "
        "energy_per_atom (eV/atom), structures, or the word known, for those of the package "
        "(a file of that name is ./known).",
        show_default=False,
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        metavar="AMOUNT",
        help="Relax these of lowest predicted formation energy: 500, or 20%. All if left out.",
        show_default=False,
    ),
]
Closest = Annotated[
    float,
    typer.Option(min=0, metavar="NUMBER", help="Closest atoms, in sums of their covalent radii."),
]
Balanced = Annotated[
    bool,
    typer.Option("--balanced", help="Leave out what has no balanced oxidation states."),
]
Fmax = Annotated[
    float, typer.Option(min=0, metavar="NUMBER", help="Largest force left on an atom, eV/Å.")
]
Structures = Annotated[
    str, typer.Option(metavar="FORMAT", help="Of the selected structures: extxyz or db.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Let the workers of this Dask scheduler work: tcp://HOST:PORT.",
        show_default=False,
    ),
]
Cluster = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.toml",
        help="Begin Dask workers: kind (slurm, pbs, sge, lsf, local), jobs, and [options] of "
        "dask-jobqueue.",
        show_default=False,
    ),
]


@errors_told()
def screen(  # noqa: PLR0913  everything a screening may be told
    candidates: Candidates,
    *,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="FOLDER", help="For everything.", show_default=False),
    ],
    where: Where = None,
    hull: Hull = None,
    keep: Keep = None,
    model: ModelName = "default",
    property_model: Annotated[
        str, typer.Option(metavar="MODEL", help="Ranks, and predicts properties.")
    ] = "default-properties",
    closest: Closest = 0.6,
    balanced: Balanced = False,
    duplicates: Annotated[bool, typer.Option("--duplicates", help="Keep duplicates.")] = False,
    fmax: Fmax = 0.05,
    steps: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Steps after which to give up.")
    ] = 500,
    fixed_cell: Annotated[bool, typer.Option("--fixed-cell", help="Move atoms alone.")] = False,
    top: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="How many the report shows.")
    ] = 12,
    structures: Structures = "extxyz",
    scheduler: Scheduler = None,
    cluster: Cluster = None,
    device: Device = "auto",
) -> None:
    """Check, rank, relax and select candidates by the ten thousand.

    Kill it at any moment and give the same command: it goes on where it was. FOLDER gets a table of
    all candidates (parquet), the selected ones (CSV and structures), what failed and why, and a
    report. --where, --hull, --top and --structures may change: no candidate is relaxed anew.
    """
    from ase_crystalformer.screening import screen as run

    found = run(
        [*candidates],
        out,
        where=where,
        hull=hull,
        keep=keep,
        model=model,
        property_model=property_model,
        closest=closest,
        balanced=balanced,
        duplicates=duplicates,
        fmax=fmax,
        steps=steps,
        relax_cell=not fixed_cell,
        top=top,
        structures=structures,
        device=device,
        scheduler=scheduler,
        cluster=cluster,
        progress=sys.stderr.isatty(),
    )
    _tell(found)


def _tell(found: "Screened") -> None:
    """Print the counts of each stage; exit with 1 if a candidate failed."""
    outcomes = ("passed", "left out", "failed")
    rows = [
        [stage, *(f"{counted[outcome]:,}" for outcome in outcomes)]
        for stage, counted in found.counts.items()
    ]
    typer.echo(aligned([["stage", *outcomes], *rows]))
    typer.echo(f"Report: {found.folder / 'report.html'}", err=True)
    if found.failures:
        told = found.folder / "failures.csv"
        typer.echo(f"{len(found.failures)} structures failed: {told}", err=True)
        raise typer.Exit(1)
