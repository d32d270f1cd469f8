"""``crystalformer featurize``: vectors for other learners."""

from pathlib import Path
from typing import Annotated

import typer

from ase_crystalformer.cli.jobs import Device, Job, ModelName, Structures, errors_told
from ase_crystalformer.cli.outputs import TABLES, results

EXAMPLE = """\b
Example:
  crystalformer featurize crystals.csv -o features.parquet
  crystalformer featurize 'cifs/**/*.cif' -o features.csv
"""

AT_ONCE = 256


@errors_told()
def featurize(
    structures: Structures,
    *,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="parquet, CSV or JSON, by suffix.",
            show_default=False,
        ),
    ],
    model: ModelName = "default-properties",
    device: Device = "auto",
) -> None:
    """Describe structures by vectors, for learners.

    One row per structure in their order: its name and formula, then the columns of
    CrystalformerFeaturizer, which are the model's embedding and its predictions.
    """
    from pandas import DataFrame

    from ase_crystalformer.featurizer import CrystalformerFeaturizer

    featurizer = CrystalformerFeaturizer(model, device=device)
    columns = [*featurizer.feature_labels(), "error"]
    job = Job(structures, made=[out])
    with results(out, TABLES) as write:
        for found in job.chunks(AT_ONCE):
            features = featurizer.featurize_many(
                [item.atoms for item in found], ignore_errors=True, return_errors=True, pbar=False
            )
            write(job.rows(DataFrame(features, columns=columns), found), ())
    job.end()
