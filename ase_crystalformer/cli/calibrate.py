"""``crystalformer calibrate``: let a potential say what it expects to be wrong by."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ase_crystalformer.cli.jobs import Device, errors_told
from ase_crystalformer.cli.text import aligned

if TYPE_CHECKING:
    from ase_crystalformer.training.reliability import Compared

EXAMPLE = """\b
Example:
  crystalformer calibrate runs/mine/model my_dft.packed -o calibrated/mine
  crystalformer predict cifs/ -m calibrated/mine -o energies.csv
"""


@errors_told()
def calibrate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A name or the path of a potential.", show_default=False
        ),
    ],
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            help="A packed set, or a file of labelled crystals. Those of its part val must not "
            "have been trained on; without parts, none of them. Energies of a file stand on the "
            "scale of the model.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="MODEL", help="Where the calibrated model is written."),
    ],
    seed: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Chooses halves and the fit.")
    ] = 0,
    device: Device = "auto",
) -> None:
    """Fit the uncertainty of a potential to frames it was not trained on.

    Energies and forces stay as they are. Writes a model that also tells its expected errors and
    whether surroundings are outside of training, the measures on its card, and a plot beside it,
    MODEL-calibration.png.
    """
    from ase_crystalformer.model_file import model_paths
    from ase_crystalformer.pretrained import load_model
    from ase_crystalformer.training.calibration import calibrate as fit
    from ase_crystalformer.training.calibration_plot import plot_calibration

    potential = load_model(model, device=device)
    found = fit(potential, dataset, seed=seed, progress=sys.stderr.isatty())
    weights = found.model.save(out)
    plot = model_paths(out)[0].with_name(f"{weights.stem}-calibration.png")
    plot_calibration(found.compared, plot)
    head = ["", "errors", "mean expected", "mean true", "unit", "Spearman", "miscalibration area"]
    typer.echo(aligned([head, *map(_row, found.compared)]))
    typer.echo(f"Written: {weights}, its card and {plot}", err=True)


def _row(one: "Compared") -> list[str]:
    told = one.told()
    numbers = [told["mean_expected"], told["mean_error"]]
    return [
        one.name,
        str(told["n"]),
        *(f"{number:.3g}" for number in numbers),
        one.unit,
        f"{told['spearman']:.2f}",
        f"{told['miscalibration_area']:.3f}",
    ]
