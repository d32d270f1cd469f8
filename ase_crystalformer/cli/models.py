"""``crystalformer models``: what there is, how good it is, and under which licence."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ase_crystalformer.cli.jobs import errors_told
from ase_crystalformer.cli.text import aligned

if TYPE_CHECKING:
    from ase_crystalformer.pretrained import ModelInfo

EXAMPLE = """\b
Example:
  crystalformer models
  crystalformer models default-properties
"""


@errors_told()
def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Tell all there is to know of this one; a path will do.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List models: what for, how good, which licence."""
    from ase_crystalformer.pretrained import describe, list_models

    typer.echo(_table(list_models()) if name is None else _description(describe(name)))


def _table(infos: list["ModelInfo"]) -> str:
    rows = [
        [
            info.name,
            "potential" if "forces" in info.units else "properties",
            str(len(info.elements)),
            "; ".join(_brief(info.errors)),
            info.licence,
        ]
        for info in infos
    ]
    table = aligned([["name", "kind", "elements", "mean absolute errors", "licence"], *rows])
    return f"{table}\n\nWhat they were measured on, and by set: crystalformer models NAME"


def _description(info: "ModelInfo") -> str:
    lines = [
        ["name", info.name],
        ["summary", info.summary],
        ["predicts", ", ".join(f"{name} ({unit})" for name, unit in info.units.items())],
        *_labelled("error", _errors(info.errors)),
        ["elements", " ".join(info.elements)],
        *_labelled("data", info.data),
        ["licence", info.licence],
        ["sha256", info.sha256],
    ]
    return "\n\n".join([aligned(lines), *info.citations])


def _labelled(label: str, entries: Sequence[str]) -> list[list[str]]:
    """Put the label before the first entry only."""
    return [["" if number else label, entry] for number, entry in enumerate(entries)]


def _brief(errors: Mapping[str, Any]) -> list[str]:
    """Errors of the quantities themselves, not of each set they were measured on."""
    return [
        f"{name} {told['mae']:.3g} {told['unit']}"
        for name, told in errors.items()
        if "," not in name
    ]


def _errors(errors: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {told['mae']:.3g} {told['unit']}" + (f" on {told['on']}" if told.get("on") else "")
        for name, told in errors.items()
    ]
