"""``crystalformer data``: public data sets by name, with their official parts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ase_crystalformer.cli.jobs import errors_told
from ase_crystalformer.cli.text import aligned

if TYPE_CHECKING:
    from ase_crystalformer.data.registry import DataSet, Download

EXAMPLE = """\b
Example:
  crystalformer data list --data-dir data
  crystalformer data show matbench-perovskites
  crystalformer data fetch matbench-perovskites --to data
"""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Public data sets: what there is, whom to thank, and fetch them.",
    epilog=EXAMPLE,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of a data set.", show_default=False)]


@app.command("list", epilog=EXAMPLE)
@errors_told()
def list_sets(
    *,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="DIR",
            help="Only those that are in it, whole or in part.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the data sets that recipes may name."""
    from ase_crystalformer.data.readers import holding
    from ase_crystalformer.data.registry import DATA_SETS
    from ase_crystalformer.errors import MissingData

    if directory is not None and not directory.is_dir():
        raise MissingData(f"There is no folder {directory}. Name one with files of data sets.")
    rows = [["name", "rows", "from", "about"]]
    for known in DATA_SETS.values():
        held = "" if directory is None else holding(known, directory)
        if directory is None or held:
            rows.append([known.name, _count(known.rows), held or _origin(known), known.about])
    typer.echo(aligned(rows))


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _origin(known: "DataSet") -> str:
    if known.downloads or known.name == "mp":
        return "fetch"
    return "our extract"


@app.command(epilog=EXAMPLE)
@errors_told()
def show(name: Name) -> None:
    """Tell all there is to know of a data set."""
    from ase_crystalformer.data.registry import DATA_SETS
    from ase_crystalformer.errors import unknown_name

    if name not in DATA_SETS:
        raise unknown_name("data set", name, DATA_SETS)
    known = DATA_SETS[name]
    lines = [
        ["name", known.name],
        ["about", known.about],
        ["method", known.method],
        ["rows", _count(known.rows)],
        ["parts", known.split],
        ["labels", ", ".join(f"{label.name} ({label.unit})" for label in known.labels)],
        ["dynamics", "energy (eV), forces (eV/Å), stress (eV/Å³)" if known.dynamics else ""],
        ["scale", known.group],
        ["note", known.note],
        ["extracts", ", ".join(part.set for part in known.extracts)],
        ["licence", known.licence],
        ["source", known.url],
    ]
    told = [aligned([line for line in lines if line[1]])]
    told += ["\n".join(_file(one)) for one in known.downloads]
    typer.echo("\n\n".join([*told, *known.citations]))


def _file(download: "Download") -> list[str]:
    size = f"{download.size:,} bytes" if download.size else "size unknown"
    kinds = {"sha256": download.sha256, "md5": download.md5}
    sums = [f"{kind} {value}" for kind, value in kinds.items() if value]
    return [
        f"{download.file}: {size}; {', '.join(sums) or 'no checksum is published'}",
        f"  {download.url}",
    ]


@app.command(epilog=EXAMPLE)
@errors_told()
def fetch(
    name: Name,
    *,
    to: Annotated[
        Path,
        typer.Option("--to", metavar="DIR", help="Folder of data sets.", show_default=False),
    ],
) -> None:
    """Fetch the files of a data set; go on where a fetch was cut off.

    What is there already is checked and left. Recipes find the files where data.directory names the
    folder.
    """
    from tqdm import tqdm

    from ase_crystalformer.data.fetch import fetch as fetch_set

    unit = " crystals" if name == "mp" else "B"
    with tqdm(unit=unit, unit_scale=True, desc=name, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        paths = fetch_set(name, to, progress=progress)
    for path in paths:
        typer.echo(path)
