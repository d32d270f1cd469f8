"""``crystalformer evaluate``: how far a model is from labels, or from DFT in a named benchmark."""

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ase_crystalformer.cli.jobs import Device, errors_told
from ase_crystalformer.cli.text import aligned
from ase_crystalformer.errors import UnknownName

if TYPE_CHECKING:
    from ase_crystalformer.assessment.benchmark import Statistic

EXAMPLE = """\b
Example:
  crystalformer evaluate runs/mine/model labelled.extxyz --split test
  crystalformer evaluate default-properties packed/mp --split all -o judged
  crystalformer evaluate runs/mine/model mp-2018 --data data --split val
  crystalformer evaluate default elasticity --data data --count 20
  crystalformer evaluate ase.calculators.emt:EMT equation-of-state --data data -o emt
"""

BENCHMARKS = (
    "relaxation, relaxation-mp, elasticity, equation-of-state, heat-capacity, forces, dynamics, "
    "mlearn, cohesion"
)


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name or the path of a model; in a benchmark also package.module:factory, a "
        "callable that returns any ASE calculator.",
        show_default=False,
    ),
]
Dataset = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="A packed set, a file of labelled crystals, a public data set (crystalformer data "
        f"list), or a benchmark: {BENCHMARKS}. A file of such a name is ./NAME.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set an option of a benchmark, e.g. steps=200."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        metavar="FOLDER",
        file_okay=False,
        help="For numbers and plots; evaluation, or evaluation/BENCHMARK, if not told.",
    ),
]


@errors_told()
def evaluate(  # noqa: PLR0913  two ways to judge share a verb
    model: Model,
    dataset: Dataset,
    *,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="train, val, test, or all.")] = "test",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", file_okay=False, help="Where public data sets and benchmarks' lie."
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, metavar="NUMBER", help="Crystals of a benchmark; its own if not told."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Chooses the crystals of a benchmark.")
    ] = 0,
    settings: Settings = None,
    out: Out = None,
    device: Device = "auto",
) -> None:
    """Judge a model on labelled crystals, or any ASE calculator by a benchmark against DFT.

    On labelled crystals, tells mean absolute and root mean square errors with units, and writes
    them to scores.json beside a plot of predictions against labels, parity.png.

    A benchmark writes rows.jsonl crystal by crystal, then summary.json and plot.png. Cut off, it
    goes on where it was; a crystal that fails is named, and the others are done.
    """
    judged = dataset in BENCHMARKS.split(", ")
    if judged:
        unused: dict[str, Any] = {"--split": split != "test"}
    else:
        unused = {"--count": count, "--seed": seed, "--set": settings}
        if not _is_public(dataset) and data is not None:
            raise typer.BadParameter(
                f"{dataset} is a path of its own, drop it.", param_hint="--data"
            )
    _refuse(dataset, unused, judged=judged)
    if judged:
        _benchmark(model, dataset, data, count, seed, settings or [], out, device)
    else:
        _labelled(model, Path(dataset), split, data, out or Path("evaluation"), device)


def _is_public(dataset: str) -> bool:
    """Tell a public data set from a path; refuse what is neither, and name what may be meant.

    Raises:
        UnknownName: There is no such path, either.
    """
    from ase_crystalformer.data.registry import DATA_SETS

    path, known = Path(dataset), BENCHMARKS.split(", ")
    if path.suffix or path.is_file() or (path / "meta.json").is_file():
        return False
    if dataset in DATA_SETS:
        return True
    close = [name for names in (known, DATA_SETS) for name in get_close_matches(dataset, names)]
    close = list(dict.fromkeys(close))  # a benchmark and its data may share a name
    hint = f"Did you mean {' or '.join(close[:3])}?"
    if not close:
        hint = f"Benchmarks: {BENCHMARKS}. For data sets: crystalformer data list"
    raise UnknownName(
        f"There is no benchmark, packed set, file or data set named {dataset!r}. {hint}"
    )


def _refuse(dataset: str, unused: dict[str, Any], *, judged: bool) -> None:
    """Refuse options that would change nothing."""
    for name, given in unused.items():
        if given:
            kind = "a benchmark" if judged else f"no benchmark (those are {BENCHMARKS})"
            raise typer.BadParameter(f"{dataset} is {kind}, drop it.", param_hint=name)


def _labelled(
    model: str, dataset: Path, split: str, data: Path | None, out: Path, device: str
) -> None:
    from ase_crystalformer.pretrained import load_model
    from ase_crystalformer.training.evaluate import evaluate as compare

    chosen = load_model(model, device=device)
    part = None if split == "all" else split
    shown = sys.stderr.isatty()
    scores = compare(chosen, dataset, split=part, out=out, data_dir=data, progress=shown)
    head = ["quantity", "MAE", "RMSE", "unit", "labels"]
    rows = [
        [name, f"{score.mae:.4g}", f"{score.rmse:.4g}", score.unit, str(score.n)]
        for name, score in scores.items()
    ]
    typer.echo(aligned([head, *rows]))
    typer.echo(f"Also in {out}", err=True)


def _benchmark(
    model: str,
    name: str,
    data: Path | None,
    count: int | None,
    seed: int,
    settings: list[str],
    out: Path | None,
    device: str,
) -> None:
    from ase_crystalformer.assessment import BENCHMARKS as KNOWN
    from ase_crystalformer.assessment.calculators import candidate
    from ase_crystalformer.assessment.run import assess

    if data is None:
        raise typer.BadParameter("Name the folder of the data sets.", param_hint="--data")
    sys.path.append(str(Path.cwd()))  # a factory may lie here
    out = out or Path("evaluation") / name
    report = assess(
        KNOWN[name],
        candidate(model, device=device, dtype=KNOWN[name].precision),
        data,
        out,
        count=count,
        seed=seed,
        options=_read_settings(settings),
        progress=sys.stderr.isatty(),
    )
    for table in _tables(report.statistics):
        typer.echo(table)
    typer.echo(f"Also in {out}", err=True)
    if report.failed:
        failed = len(report.failed)
        typer.echo(f"{failed} of {failed + len(report.rows)} crystals failed.", err=True)
        raise typer.Exit(1)


def _read_settings(settings: list[str]) -> dict[str, Any]:
    """Read KEY=VALUE, the value as in TOML."""
    import tomllib

    try:
        return tomllib.loads("\n".join(settings))
    except tomllib.TOMLDecodeError as error:
        raise typer.BadParameter(f"{error}; give KEY=VALUE.", param_hint="--set") from error


def _tables(statistics: "list[Statistic]") -> list[str]:
    """One line per statistic of everything; one line per group of the others."""
    overall = [one for one in statistics if one.group == "all"]
    grouped = [one for one in statistics if one.group != "all"]
    tables = []
    if overall:
        lines = [[one.name, _number(one.value), one.unit, str(one.n)] for one in overall]
        tables.append(aligned([["quantity", "value", "unit", "n"], *lines]))
    if grouped:
        columns = list(dict.fromkeys((one.name, one.unit) for one in grouped))
        values = {(one.group, one.name): one.value for one in grouped}
        groups = dict.fromkeys(one.group for one in grouped)
        lines = [[g, *(_number(values.get((g, name))) for name, _ in columns)] for g in groups]
        head = ["", *(f"{name} ({unit})" for name, unit in columns)]
        tables.append(aligned([head, *lines]))
    return tables


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
