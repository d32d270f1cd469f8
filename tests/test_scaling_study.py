"""The scaling study runs, resumes, and finds the exponents that are in its points."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

WORKFLOWS = Path(__file__).parents[1] / "workflows"
sys.path.insert(0, str(WORKFLOWS))
try:
    import scaling_study
    from scaling import frames, laws, plan, runs
finally:
    sys.path.remove(str(WORKFLOWS))

QUICK = WORKFLOWS / "scaling" / "quick.toml"

TINY = """
cutoff = 4.0
crystals = [2, 3, 4]
epochs = [1]
seeds = [0]
validation = 2
base = { size = 0, crystals = 3, epochs = 1 }
energy = { stress = 0.0 }
optim = { budget = 4_000 }
machine = { accelerator = "cpu", devices = 1, threads = 1 }

[contenders.plain]
label = "plain, augmented"
encoder = "plain"
augment = true
sizes = [{ width = 8, heads = 1, blocks = 1, feedforward = 8, token = 4, basis = 4 }]
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.mark.parametrize("floor", [False, True])
def test_the_exponent_of_a_law_is_found(floor, rng):
    x = np.geomspace(10, 1e4, 12)
    scatter = np.exp(rng.normal(scale=0.02, size=12))
    error = (3.0 * x**-0.6 + floor * 0.05) * scatter
    law = laws.fit_law(x, error, floor=floor)
    assert law.b == pytest.approx(0.6, abs=4 * law.b_error)
    assert 0 < law.b_error < 0.1
    assert law.c == pytest.approx(0.05 if floor else 0, abs=0.01)
    assert law(x) == pytest.approx(error, rel=0.1)


def test_the_error_of_an_exponent_is_that_of_a_straight_line(rng):
    x = np.geomspace(1, 100, 8)
    error = x**-0.5 * np.exp(rng.normal(scale=0.1, size=8))
    law = laws.fit_law(x, error)
    (slope, _), covariance = np.polyfit(np.log(x), np.log(error), 1, cov=True)
    assert (law.b, law.b_error) == pytest.approx((-slope, covariance[0, 0] ** 0.5), rel=1e-5)


def test_two_efforts_make_no_law():
    assert laws.fit_law(np.array([1.0, 1.0, 2.0]), np.array([3.0, 3.1, 2.0])) is None


def test_series_meet_at_the_base_and_amounts_of_data_get_equal_steps():
    quick = plan.read_plan(QUICK)
    by_series = {series: set(plan.runs_of(quick, series)) for series in plan.SERIES}
    base = set.intersection(*by_series.values())
    assert len(base) == len(quick.contenders) * len(quick.seeds)
    assert set.union(*by_series.values()) == set(plan.all_runs(quick))
    steps = {run.crystals * run.epochs for run in by_series["data"]}
    assert steps == {quick.base["crystals"] * quick.base["epochs"]}


def test_validation_takes_other_stretches_of_a_file_than_training():
    found = frames.emt_frames(60)
    for number, atoms in enumerate(found):
        atoms.calc.results["energy"] = float(number)
    learned, judged = frames.split(found, 40, 10)
    numbers = [
        {round(atoms.get_potential_energy()) for atoms in part} for part in (learned, judged)
    ]
    assert [len(part) for part in numbers] == [40, 10]
    assert not numbers[0] & numbers[1]
    again, _ = frames.split(found, 40, 10)
    assert np.array_equal(again[0].positions, learned[0].positions)
    with pytest.raises(SystemExit, match="asks for 400 crystals"):
        frames.split(found, 400, 10)


def test_a_turned_crystal_has_turned_forces(rng):
    from ase.calculators.emt import EMT

    [atoms] = frames.emt_frames(1)
    turned = frames.turned(atoms, rng)
    given = turned.get_forces(), turned.get_potential_energy()
    assert not np.allclose(turned.cell, atoms.cell)
    turned.calc = EMT()
    assert turned.get_forces() == pytest.approx(given[0], abs=1e-8)
    assert turned.get_potential_energy() == pytest.approx(given[1], abs=1e-8)


def test_a_study_runs_and_goes_on_where_it_was(tiny, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    scaling_study.main(["--plan", str(tiny), "--out", str(out)])
    points = json.loads((out / "points.json").read_text())
    assert [point["crystals"] for point in points] == [3, 2, 4]
    assert all(point["forces"] > 0 and point["seconds"] > 0 for point in points)
    assert (out / "study.png").stat().st_size > 10_000
    told = json.loads((out / "study.json").read_text())
    assert [(law["contender"], law["series"]) for law in told["laws"]] == [("plain", "data")]
    assert "| plain, augmented | data |" in capsys.readouterr().out
    (out / "points.json").write_text(json.dumps(points[:2]))
    performed = []
    perform = runs.perform
    monkeypatch.setattr(
        scaling_study, "perform", lambda run, *rest: performed.append(run) or perform(run, *rest)
    )
    scaling_study.main(["--plan", str(tiny), "--out", str(out)])
    assert [run.crystals for run in performed] == [4]
    again = json.loads((out / "points.json").read_text())
    assert {**again[2], "seconds": 0} == {**points[2], "seconds": 0}
    tiny.write_text(TINY.replace("cutoff = 4.0", "cutoff = 4.5"))
    with pytest.raises(SystemExit, match="under other settings"):
        scaling_study.main(["--plan", str(tiny), "--out", str(out)])


def test_a_study_that_could_not_begin_may_be_mended(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(scaling_study, "study", lambda plan, out: sys.exit("begun"))
    told = ["--plan", str(tiny), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="2"):
        scaling_study.main([*told, "--data", "nowhere.extxyz"])
    assert "there is no file nowhere.extxyz" in capsys.readouterr().err
    few = tmp_path / "few.extxyz"
    write(few, frames.emt_frames(5))
    with pytest.raises(SystemExit, match="of 5 frames only"):
        scaling_study.main([*told, "--data", str(few)])
    with pytest.raises(SystemExit, match="begun"):
        scaling_study.main(told)


def test_crystals_are_written_all_or_none(tiny, tmp_path, monkeypatch):
    out, written = tmp_path / "out", []

    def interrupted(path, *args, **more):
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt
        write(path, *args, **more)

    monkeypatch.setattr(scaling_study, "study", lambda plan, out: sys.exit("begun"))
    monkeypatch.setattr(runs, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scaling_study.main(["--plan", str(tiny), "--out", str(out)])
    with pytest.raises(SystemExit, match="begun"):
        scaling_study.main(["--plan", str(tiny), "--out", str(out)])
    found = sorted(path.name for path in (out / "crystals").iterdir())
    assert found == ["2.extxyz", "3.extxyz", "4.extxyz"]


def test_the_larger_plan_is_a_plan():
    large = plan.read_plan(QUICK.with_name("large.toml"))
    assert len(plan.all_runs(large)) > len(plan.all_runs(plan.read_plan(QUICK)))
    assert all(replace(one, sizes=[]).label for one in large.contenders)
