"""Contributions to JARVIS-Leaderboard: predictions of a test set as CSV, zipped under its name.

Source: K. Choudhary et al., npj Computational Materials 10, 93 (2024);
https://pages.nist.gov/jarvis_leaderboard/guide.
"""

import csv
import io
import json
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

from ase_crystalformer.errors import MissingData, unknown_name

#: What JARVIS calls the properties of its data set of crystals that can be learned here.
PROPERTIES = {
    "formation_energy_per_atom": "formation_energy_peratom",
    "energy_per_atom": "optb88vdw_total_energy",
    "energy_above_hull": "ehull",
    "exfoliation_energy": "exfoliation_energy",
    "band_gap": "optb88vdw_bandgap",
    "band_gap_mbj": "mbj_bandgap",
    "bulk_modulus": "bulk_modulus_kv",
    "shear_modulus": "shear_modulus_gv",
}

DATASET = "dft_3d"


def file_name(target: str) -> str:
    """Name the file of a property.

    Raises:
        UnknownName: The leaderboard has no such property.
    """
    if target not in PROPERTIES:
        raise unknown_name("property of JARVIS-Leaderboard", target, PROPERTIES)
    return f"AI-SinglePropertyPrediction-{PROPERTIES[target]}-{DATASET}-test-mae.csv"


def zipped(target: str, predicted: Mapping[str, float]) -> bytes:
    """Write predictions by JARVIS id as a table with the columns id and prediction, and zip it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "prediction"])
    writer.writerows([name, repr(float(value))] for name, value in predicted.items())
    packed = io.BytesIO()
    entry = zipfile.ZipInfo(file_name(target))  # of 1980: the same table, the same bytes
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(entry, text.getvalue())
    return packed.getvalue()


def test_set(path: Path, tested: Collection[str]) -> dict[str, float]:
    """Read the test set of a benchmark of the leaderboard.

    Args:
        path: Its file, ``jarvis_leaderboard/benchmarks/…/dft_3d_….json.zip``, or the JSON in it.
        tested: The JARVIS ids that a run would predict.

    Returns:
        Labels by JARVIS id, in the leaderboard's unit.

    Raises:
        MissingData: The file is none, or a run tests other crystals.
    """
    truth = {str(name): float(value) for name, value in _read(path).items()}
    if differ := set(truth) ^ set(tested):
        raise MissingData(
            f"{path} tests {len(truth):,} crystals; {len(differ):,} of them and of the "
            f"{len(tested):,} of the run are not in both, e.g. {min(differ)}. The leaderboard "
            "fixes the test set: split the data as it does."
        )
    return truth


def _read(path: Path) -> dict[str, float]:
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                text = archive.read(archive.namelist()[0])
        else:
            text = path.read_bytes()
        return dict(json.loads(text)["test"])
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise MissingData(f"{path} is no benchmark of JARVIS-Leaderboard: {error!r}.") from error
