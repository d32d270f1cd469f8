"""``crystalformer predict``: properties of structures."""

from pathlib import Path
from typing import Annotated

import typer

from ase_crystalformer.cli.jobs import Device, Job, ModelName, Structures, errors_told, with_units
from ase_crystalformer.cli.outputs import TABLES_AND_STRUCTURES, holds_structures, results

EXAMPLE = """\b
Example:
  crystalformer predict cifs/ -p band_gap -p bulk_modulus -o predicted.csv
  crystalformer predict POSCAR -m runs/mine/model
"""

AT_ONCE = 256


@errors_told()
def predict(
    structures: Structures,
    *,
    model: ModelName = "default-properties",
    properties: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--property",
            metavar="PROPERTY",
            help="Which; may be repeated. All the model knows if left out.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="CSV, JSON, parquet or extxyz, by suffix; else CSV on screen.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Predict properties, one row per structure.

    Rows keep the order of the structures, and columns name their units. A structure that cannot be
    computed has a row with the reason. In extxyz files properties are entries of info, and those
    structures are left out.
    """
    from ase_crystalformer.prediction import predict as predict_table
    from ase_crystalformer.pretrained import load_model

    chosen = load_model(model, device=device)
    job = Job(structures, made=[out])
    with results(out, TABLES_AND_STRUCTURES) as write:
        for found in job.chunks(AT_ONCE):
            atoms = [item.atoms for item in found]
            table = predict_table(
                atoms, properties or None, model=chosen, device=device, progress=False
            )
            rows = job.rows(table, found)
            write(rows if holds_structures(out) else with_units(rows, table.attrs["units"]), atoms)
    job.end()
