"""Every candidate is told of once, the best come out, and nothing finished is lost."""

import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest
from ase.build import bulk
from ase.db import connect
from ase.io import read, write
from candidates import BROKEN, write_candidates, write_models
from killed_screening import SETTINGS
from typer.testing import CliRunner

from ase_crystalformer.cli import app
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.screening import screen
from ase_crystalformer.screening.outputs import _write_database
from ase_crystalformer.screening.store import Store
from ase_crystalformer.screening.work import WORK

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_candidates(tmp_path_factory.mktemp("candidates"))


@pytest.fixture(scope="module")
def screened(tmp_path_factory, models, sources):
    """An unbroken run, shared: tests read it."""
    return screen(sources, tmp_path_factory.mktemp("screened"), **models, **SETTINGS)


def table(found):
    return pd.read_parquet(found.folder / "candidates.parquet")


def stems(names):
    return [Path(name).name for name in names]


# ------------------------------------------------------------------------------ what comes out


def test_every_candidate_is_told_of_once(screened):
    names = table(screened)["name"]
    assert len(names) == len(set(names)) == 29
    assert table(screened)["outcome"].isin(["selected", "left out", "failed"]).all()


def test_what_is_broken_is_named_and_the_rest_goes_on(screened):
    found = {Path(name).name: reason for _, name, reason in screened.failures}
    assert list(found) == [Path(name).name for name in BROKEN]
    for name, reason in BROKEN.items():
        assert reason in found[Path(name).name]
    written = pd.read_csv(screened.folder / "failures.csv")
    assert [tuple(row) for row in written.itertuples(index=False)] == screened.failures


def test_counts_add_up_from_stage_to_stage(screened):
    stages = list(screened.counts.values())
    for before, after in pairwise(stages):
        assert sum(after.values()) == before["passed"]
    assert screened.counts["unique"]["left out"] == 2
    assert screened.counts["keep"] == {"passed": 13, "left out": 8, "failed": 0}


def test_a_supercell_and_a_copy_are_duplicates(screened):
    rows = table(screened).set_index("name")["reason"].dropna()
    twins = {Path(name).name: reason for name, reason in rows.items() if "twins" in name}
    assert twins["twins.extxyz#0"].endswith("salts.extxyz#2.")
    assert twins["twins.extxyz#1"].endswith("salts.extxyz#6.")


def test_those_of_lowest_predicted_energy_are_kept(screened):
    rows = table(screened).dropna(subset="unrelaxed_formation_energy_per_atom")
    kept = rows["outcome"] == "selected"
    energy = rows["unrelaxed_formation_energy_per_atom"]
    assert energy[kept].max() <= energy[~kept].min()


def test_the_selected_are_sorted_and_their_structures_written_in_that_order(screened):
    energies = screened.selected["formation_energy_per_atom"]
    assert energies.is_monotonic_increasing
    frames = read(screened.folder / "selected.extxyz", ":")
    assert [frame.info["name"] for frame in frames] == screened.selected["name"].tolist()
    for frame, energy in zip(frames, screened.selected["energy"], strict=True):
        assert frame.get_potential_energy() == pytest.approx(energy, abs=1e-6)


def test_relaxation_went_downhill_and_is_that_of_the_potential(screened, models):
    from ase_crystalformer import CrystalformerCalculator

    frame = read(screened.folder / "selected.extxyz", 0)
    energy = frame.get_potential_energy()
    frame.calc = CrystalformerCalculator(models["model"])
    assert frame.get_potential_energy() == pytest.approx(energy, abs=1e-4)


def test_units_are_in_the_table_and_the_csv(screened):
    schema = pyarrow.parquet.read_schema(screened.folder / "candidates.parquet")
    assert schema.field("band_gap").metadata[b"unit"] == b"eV"
    assert "volume_per_atom (Å³)" in pd.read_csv(screened.folder / "selected.csv").columns
    assert screened.selected.attrs["units"]["energy_per_atom"] == "eV/atom"


def test_the_report_shows_counts_and_structures(screened):
    page = (screened.folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 1
    assert "29 candidates, 13 selected" in page
    assert "NaCl2" in page  # drawn
    assert (screened.folder / "report.png").stat().st_size > 10_000


# ------------------------------------------------------------------------------ going on


def test_killed_at_every_stage_it_ends_like_an_unbroken_run(tmp_path, models, sources, screened):
    out = tmp_path / "out"
    command = [sys.executable, FOLDER / "killed_screening.py", Path(models["model"]).parent, out]
    done = subprocess.run([*command, *sources], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    broken = pd.read_parquet(out / "candidates.parquet")
    pd.testing.assert_frame_equal(broken, table(screened), rtol=1e-4, atol=1e-5)
    for name in ("failures.csv", "report.html", "selected.extxyz", "selected.csv"):
        assert (out / name).is_file()


def test_a_result_is_written_once(tmp_path):
    from sqlite3 import IntegrityError

    from ase_crystalformer.screening.store import Result

    with Store.open(tmp_path / "store.db") as store:
        store.add("relax", [(1, Result())])
        with pytest.raises(IntegrityError):
            store.add("relax", [(2, Result()), (1, Result.failed("again"))])
        assert store.numbers("relax", None) == [1]


def test_what_is_done_is_not_done_again(screened, models, sources, monkeypatch):
    monkeypatch.setattr("ase_crystalformer.screening.work.WORK", {})
    again = screen(sources, screened.folder, **models, **SETTINGS)
    assert again.counts == screened.counts


def test_a_condition_may_change_without_new_work(screened, models, sources, monkeypatch, tmp_path):
    out = shutil.copytree(screened.folder, tmp_path / "out")
    monkeypatch.setattr("ase_crystalformer.screening.work.WORK", {})
    options = {**models, **SETTINGS, "where": "formula.str.contains('NaCl$') and energy < 0"}
    found = screen(sources, out, **options, structures="db")
    assert stems(found.selected["name"]) == ["salts.extxyz#2"]
    assert not (out / "selected.extxyz").exists(), "it is of the condition before"
    with connect(found.folder / "selected.db", use_lock_file=False) as rows:
        (row,) = rows.select()
    assert row.band_gap == pytest.approx(found.selected["band_gap"][0])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fmax": 0.1}, "fmax = 0.05, not 0.1"),
        ({"keep": "50%"}, "keep = '60%', not '50%'"),
        ({"duplicates": True}, "duplicates = False, not True"),
    ],
)
def test_changed_settings_are_refused_by_name(screened, models, sources, change, told):
    with pytest.raises(BadRecipe, match=told):
        screen(sources, screened.folder, **{**models, **SETTINGS, **change})


def test_changed_candidates_and_weights_are_refused(screened, models, sources, tmp_path):
    with pytest.raises(BadRecipe, match="candidates = "):
        screen(sources[:-3], screened.folder, **models, **SETTINGS)
    other = write_models(tmp_path)
    card = tmp_path / "potential.json"
    card.write_text(card.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(BadRecipe, match="weights of model = "):
        screen(sources, screened.folder, **{**models, **other}, **SETTINGS)


def test_two_at_once_in_a_folder_are_refused(tmp_path):
    again = Store.open(tmp_path / "store.db")
    with (
        Store.open(tmp_path / "store.db"),
        pytest.raises(BadRecipe, match="Is another screening at work"),
    ):
        again.__enter__()


def test_a_database_takes_whatever_candidates_say_of_themselves(tmp_path):
    atoms = bulk("Cu")
    atoms.info = {"mp-id": "a", "run": "123", "kind": "metal"}
    _write_database(tmp_path / "all.db", iter([atoms]))
    with connect(tmp_path / "all.db", use_lock_file=False) as rows:
        (row,) = rows.select(kind="metal")
    assert row.data == atoms.info


# ------------------------------------------------------------------------------ what breaks


def test_an_unexpected_error_fails_the_one_that_raises_it(tmp_path, models, monkeypatch):
    relax = WORK["relax"]

    def breaks_on_copper(order, stream):
        for index, result in relax(order, stream):
            if result.told["formula"] == "Cu":
                raise ZeroDivisionError("copper")
            yield index, result

    monkeypatch.setitem(WORK, "relax", breaks_on_copper)
    write(tmp_path / "a.extxyz", [bulk("Al"), bulk("Cu"), bulk("Ag"), bulk("Ni")])
    found = screen(
        tmp_path / "a.extxyz", tmp_path / "out", **models, steps=1, top=0, progress=False
    )
    assert found.counts["relax"] == {"passed": 3, "left out": 0, "failed": 1}
    assert found.failures[0][0] == "relax"
    assert found.failures[0][1].endswith("a.extxyz#1")
    assert "ZeroDivisionError: copper" in found.failures[0][2]


def test_errors_without_end_stop_the_run_and_fail_nobody(tmp_path, models, monkeypatch):
    def breaks(order, stream):
        for item in stream:
            raise OSError("the disk is gone")
            yield item

    monkeypatch.setitem(WORK, "relax", breaks)
    metals = ["Al", "Cu", "Ag", "Ni", "Fe", "Na", "K", "Li", "Ca", "Sr", "Ba", "Pd"]
    write(tmp_path / "a.extxyz", [bulk(symbol) for symbol in metals])
    with pytest.raises(OSError, match="the disk is gone"):
        screen(tmp_path / "a.extxyz", tmp_path / "out", **models, top=0, progress=False)
    monkeypatch.undo()
    found = screen(tmp_path / "a.extxyz", tmp_path / "out", **models, top=0, progress=False)
    assert found.counts["relax"]["failed"] == 0


def test_nothing_but_failures_still_makes_a_report(tmp_path, models):
    found = screen(tmp_path / "none", tmp_path / "out", **models, top=0, progress=False)
    assert found.counts["read"]["failed"] == 1
    assert found.selected.empty
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize("keep", ["0", "0%", "120%", "best", "-3"])
def test_senseless_amounts_are_refused(tmp_path, models, keep):
    with pytest.raises(BadRecipe, match="keep = "):
        screen("a.cif", tmp_path, **models, keep=keep)


# ------------------------------------------------------------------------------ command line


def test_the_command_tells_counts_and_failures(screened, models, sources, tmp_path):
    out = shutil.copytree(screened.folder, tmp_path / "out")
    options = ["--keep", "60%", "--steps", "5", "--where", "band_gap > 100"]
    names = ["-m", models["model"], "--property-model", models["property_model"]]
    arguments = ["screen", *sources, "-o", str(out), *names, *options]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1, done.output
    assert "read      23" in done.stdout
    assert "6 structures failed" in done.stderr
    again = CliRunner().invoke(app, [*arguments, "--fmax", "0.3"])
    assert again.exit_code == 2
    assert "fmax = 0.05, not 0.3" in again.stderr
