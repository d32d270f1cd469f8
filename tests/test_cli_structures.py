"""Verbs that take structures compute what the library does, and name what fails."""

from unittest.mock import create_autospec

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.io import read, write
from command import GOOD, NAMES, printed, rows, run
from typer.testing import CliRunner

from ase_crystalformer.cli import app, featurize, predict, relax
from ase_crystalformer.featurizer import CrystalformerFeaturizer
from ase_crystalformer.prediction import predict as predict_table
from ase_crystalformer.relaxation.relaxed import Relaxed

PROPERTIES = ["band_gap (eV)", "bulk_modulus (GPa)"]
COLUMNS = ["name", "formula", *PROPERTIES, "error"]


# ---------------------------------------------------------------------------------- predict


def test_predictions_are_those_of_the_library(folder):
    table = printed(run("predict", *GOOD), folder)
    assert table.columns.tolist() == COLUMNS
    assert table["name"].tolist() == NAMES
    assert table["formula"].tolist() == ["NaCl", "Si", "Cu", "ZnO"]
    assert table["error"].isna().all()
    structures = [read("NaCl.cif"), read("POSCAR"), *read("two.extxyz", ":")]
    expected = predict_table(structures, device="cpu", progress=False).drop(columns="error")
    np.testing.assert_allclose(table[PROPERTIES], expected, rtol=1e-4)


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_tables_are_the_same_in_every_format_and_chunk(suffix, folder, monkeypatch):
    sources = [*GOOD, "broken.cif"]
    expected = printed(run("predict", *sources, code=1), folder)
    monkeypatch.setattr(predict, "AT_ONCE", 2)
    run("predict", *sources, "-o", f"deep/out.{suffix}", code=1)
    table = getattr(pd, f"read_{suffix}")(f"deep/out.{suffix}")
    assert table.columns.tolist() == COLUMNS
    assert table["name"].tolist() == [*NAMES, "broken.cif"]
    assert table["error"].isna().tolist() == [True] * 4 + [False]
    np.testing.assert_allclose(table[PROPERTIES], expected[PROPERTIES], rtol=1e-3)
    assert [path.name for path in (folder / "deep").iterdir()] == [f"out.{suffix}"]


def test_structures_may_carry_their_predictions(folder):
    run("predict", *GOOD, "W.cif", "-p", "band_gap", "-o", "out.extxyz", code=1)
    table = printed(run("predict", *GOOD), folder)
    frames = read("out.extxyz", ":")
    assert [frame.info["name"] for frame in frames] == NAMES
    gaps = [frame.info["band_gap"] for frame in frames]
    np.testing.assert_allclose(gaps, table["band_gap (eV)"], rtol=1e-4)
    assert "bulk_modulus" not in frames[0].info


def test_what_fails_is_named_and_the_rest_is_done(folder):
    result = run("predict", "lost.cif", "W.cif", "NaCl.cif", "broken.cif", code=1)
    table = printed(result, folder)
    assert table["name"].tolist() == ["lost.cif", "W.cif", "NaCl.cif", "broken.cif"]
    assert table["band_gap (eV)"].isna().tolist() == [True, True, False, True]
    told = result.stderr.splitlines()
    assert told[0].startswith("lost.cif: There is no such file")
    assert told[1].startswith("W.cif: UnseenElement: ")
    assert told[2].startswith("broken.cif: This is no CIF")
    assert told[3] == "3 of 4 structures failed."


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-m", "crystalformer-propertie"], "Did you mean 'crystalformer-properties'?"),
        (["-p", "band_gab"], "Did you mean 'band_gap'?"),
        (["-o", "out.xls"], ".csv, .json, .parquet, .extxyz, .xyz"),
    ],
)
def test_misuse_is_told_before_anything_is_written(arguments, told, folder):
    before = sorted(folder.iterdir())
    result = run("predict", "NaCl.cif", "-o", "out.csv", *arguments, code=2)
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert sorted(folder.iterdir()) == before


def test_a_damaged_model_is_told(folder):
    (folder / "mine.safetensors").write_text("")
    (folder / "mine.json").write_text("{}")
    assert run("predict", "NaCl.cif", "-m", "mine", code=1).stderr.startswith("Error: ")


def test_an_interrupt_keeps_what_was_done(folder, monkeypatch):
    calls = []

    def interrupted(structures, *args, **kwargs):
        calls.append(structures)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict_table(structures, *args, **kwargs)

    monkeypatch.setattr(predict, "AT_ONCE", 2)
    monkeypatch.setattr("ase_crystalformer.prediction.predict", interrupted)
    result = CliRunner().invoke(app, ["predict", *GOOD, "-o", "out.csv"])
    assert result.exit_code not in (0, 2)
    assert "out.csv.partial" in result.stderr
    assert "Traceback" not in result.stderr
    assert rows("out.csv.partial")["name"].tolist() == NAMES[:2]
    assert not (folder / "out.csv").exists()


def test_oddly_spaced_structures_are_told_in_the_end(folder, monkeypatch):
    write("far.cif", bulk("Cu", a=9.0))
    write("close.cif", bulk("Cu", a=1.8))
    monkeypatch.setattr(predict, "AT_ONCE", 1)
    result = run("predict", *GOOD, "far.cif", "close.cif", "-o", "out.parquet")
    assert "2 of 6 structures are outside" in result.stderr
    assert "the first is far.cif: atom 0 (Cu)" in result.stderr
    assert "OutsideTraining" not in result.stderr
    assert pd.read_parquet("out.parquet")["band_gap (eV)"].notna().all()
    assert "outside" not in run("predict", *GOOD).stderr


def test_properties_of_a_potential_are_hinted_at(folder):
    assert "-m default" in run("predict", "NaCl.cif", "-p", "energy", code=2).stderr


# ------------------------------------------------------------------------------------ relax


def test_relaxed_structures_carry_energy_forces_and_stress(folder):
    result = run("relax", *GOOD, "--steps", "2", "--fmax", "1e-9", "-o", "out.extxyz")
    table = printed(result, folder)
    energies = [frame.get_potential_energy() for frame in read("out.extxyz", ":")]
    assert [frame.info["name"] for frame in read("out.extxyz", ":")] == NAMES
    np.testing.assert_allclose(table["energy (eV)"], energies, rtol=1e-4)
    np.testing.assert_allclose(
        table["energy_per_atom (eV/atom)"], np.divide(energies, [2, 2, 1, 4]), rtol=1e-4
    )
    last = read("out.extxyz")
    assert np.linalg.norm(last.get_forces(), axis=1).max() > 0
    assert last.get_stress().shape == (6,)
    np.testing.assert_allclose(table["volume (Å³)"].iloc[-1], last.cell.volume, rtol=1e-4)
    assert not table["converged"].iloc[-1]
    assert "did not converge in 2 steps" in result.stderr


def test_what_did_not_converge_is_told_and_no_failure(folder):
    told = run("relax", "NaCl.cif", "--steps", "0", "--fmax", "0", code=0).stderr
    assert "1 of 1 did not converge in 0 steps." in told
    shown = " ".join(run("relax", "--help").stdout.split())
    assert "did not converge is written as it was after the last step; it is told, and no" in shown
    assert "the command ends with 0" in shown


def test_flags_reach_the_relaxation(folder, monkeypatch):
    import ase_crystalformer.relaxation as library

    asked = create_autospec(library.relax, side_effect=library.relax)
    monkeypatch.setattr(library, "relax", asked)
    options = ["--fmax", "0.2", "--steps", "1", "--fixed-cell", "--dispersion", "d3bj"]
    run("relax", "NaCl.cif", *options)
    (_, told) = asked.call_args
    assert (told["fmax"], told["steps"], told["relax_cell"]) == (0.2, 1, False)
    assert told["dispersion"] == "d3bj"
    assert (folder / "relaxed.extxyz").exists()


def test_options_about_the_cell_may_not_contradict_each_other(folder):
    result = run("relax", "NaCl.cif", "--fixed-cell", "--cell", "volume", code=2)
    assert "Give one of them" in result.stderr
    assert not (folder / "relaxed.extxyz").exists()
    run("relax", "NaCl.cif", "--fixed-cell", "--cell", "none", "--steps", "0")


def test_a_relaxation_that_fails_has_a_row_and_no_structure(folder):
    result = run("relax", "broken.cif", "W.cif", "POSCAR", "--steps", "1", code=1)
    table = printed(result, folder)
    assert table["error"].isna().tolist() == [False, False, True]
    assert [frame.info["name"] for frame in read("relaxed.extxyz", ":")] == ["POSCAR"]
    assert "2 of 3 structures failed." in result.stderr


@pytest.mark.parametrize("calibrated", [True, False])
def test_summaries_have_the_same_columns_whatever_failed(calibrated, rocksalt):
    told = {"converged": True, "steps": 1, "energy": -1.0, "fmax": 0.0}
    if calibrated:
        told |= {"energy_uncertainty": 0.1, "novelty": np.array([0.2, 0.3])}
    done, failed = Relaxed(atoms=rocksalt, **told), Relaxed(atoms=None, error="too close")
    one, other, all_failed = (
        relax._summary(found, calibrated)
        for found in ([done, failed], [failed, done], [failed, failed])
    )
    assert list(one) == list(other) == list(all_failed)
    assert ("novelty" in one) == calibrated
    if calibrated:
        assert one["novelty"].tolist() == pytest.approx([0.3, np.nan], nan_ok=True)
        assert (all_failed.dtypes["novelty"], one.dtypes["novelty"]) == ("float64", "float64")


def test_what_was_relaxed_into_a_folder_is_not_relaxed_again(folder):
    ways = ["--trajectories", "ways", "--steps", "1"]
    first = printed(run("relax", ".", *ways, code=1), folder)
    (folder / "printed.csv").unlink()
    again = printed(run("relax", ".", *ways, code=1), folder)
    assert again["name"].tolist() == first["name"].tolist()
    assert len(list((folder / "ways").glob("*.traj"))) == 4


def test_properties_have_no_forces_to_relax(folder):
    result = run("relax", "NaCl.cif", "-m", "default-properties", code=2)
    assert "Error: " in result.stderr
    assert not (folder / "relaxed.extxyz").exists()


# -------------------------------------------------------------------------------- featurize


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_features_are_those_of_the_featurizer(suffix, folder, monkeypatch):
    monkeypatch.setattr(featurize, "AT_ONCE", 3)
    cifs = [(folder / "NaCl.cif").read_text(), "nothing", (folder / "NaCl.cif").read_text()]
    pd.DataFrame({"material_id": ["a", "b", "c"], "cif": cifs}).to_csv("crystals.csv")
    run("featurize", "crystals.csv", "POSCAR", "-o", f"out.{suffix}", code=1)
    table = getattr(pd, f"read_{suffix}")(f"out.{suffix}")
    featurizer = CrystalformerFeaturizer(device="cpu")
    labels = featurizer.feature_labels()
    assert table.columns.tolist() == ["name", "formula", *labels, "error"]
    assert table["name"].tolist() == [
        "crystals.csv#a",
        "crystals.csv#b",
        "crystals.csv#c",
        "POSCAR",
    ]
    assert table[labels].isna().all(axis=1).tolist() == [False, True, False, False]
    np.testing.assert_allclose(
        table[labels].iloc[3], featurizer.featurize(read("POSCAR")), rtol=1e-3
    )
