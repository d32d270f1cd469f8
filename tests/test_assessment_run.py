"""Benchmarks go on where they were cut off, name what fails, and write what they found."""

import json
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from assessed import labelled

from ase_crystalformer.assessment.benchmark import Benchmark
from ase_crystalformer.assessment.calculators import Candidate, candidate, load_calculator
from ase_crystalformer.assessment.run import assess
from ase_crystalformer.assessment.statistics import share, statistic
from ase_crystalformer.errors import BadRecipe, MissingData, MissingExtra, UnknownName

METALS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")


@dataclass(frozen=True, kw_only=True)
class Options:
    """One setting."""

    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number."""

    energy: float


def measure(calculator, crystal, options):
    return Row(energy=options.scale * calculator(crystal))


COUNTED = Benchmark(
    name="counted",
    about="a number per crystal",
    row=Row,
    options=Options,
    crystals=lambda data, options: [labelled(bulk(metal), metal) for metal in METALS],
    measure=measure,
    summarise=lambda rows: [statistic("energy", "eV", (row.energy for row in rows))],
    draw=lambda figure, rows: figure.subplots().plot([row.energy for row in rows]),
)


class Counting:
    """Stands for a calculator; says whom it was asked of, and fails where it is told to."""

    def __init__(self, broken=()):
        self.asked, self.broken = [], broken

    def __call__(self, crystal):
        self.asked.append(crystal.id)
        if crystal.id in self.broken:
            raise self.broken[crystal.id]
        return float(crystal.species[0])


def go(calculator, out, benchmark=COUNTED, **told):
    chosen = Candidate(calculator=calculator, identity={"model": "counting"})
    return assess(benchmark, chosen, out, out, progress=False, **told)


# ------------------------------------------------------------------------------- the driver


def test_every_crystal_is_measured_and_summed_up(tmp_path):
    report = go(Counting(), tmp_path)
    assert sorted(report.rows) == sorted(METALS)
    [mean] = report.statistics
    assert (mean.value, mean.n) == (pytest.approx(np.mean([13, 28, 29, 46, 47, 78, 79])), 7)
    told = json.loads((tmp_path / "summary.json").read_text())
    assert told["statistics"][0]["value"] == mean.value
    assert told["options"] == {"scale": 1.0}
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_what_is_done_is_not_done_again_and_more_go_on_from_fewer(tmp_path):
    first, second = Counting(), Counting()
    few = go(first, tmp_path, count=3)
    assert len(few.rows) == 3
    all_of_them = go(second, tmp_path, count=7)
    assert sorted(first.asked + second.asked) == sorted(METALS)
    assert len(all_of_them.rows) == 7
    third = Counting()
    assert go(third, tmp_path, count=3).rows == few.rows
    assert third.asked == []


def test_another_seed_draws_others(tmp_path):
    one = go(Counting(), tmp_path / "one", count=3, seed=0)
    other = go(Counting(), tmp_path / "other", count=3, seed=1)
    assert set(one.rows) != set(other.rows)


def test_a_broken_crystal_is_named_the_rest_is_done_and_it_is_tried_again(tmp_path, capsys):
    broken = Counting({"Cu": ValueError("no such thing"), "Au": ZeroDivisionError("none")})
    report = go(broken, tmp_path)
    assert report.failed == {"Cu": "ValueError: no such thing", "Au": "ZeroDivisionError: none"}
    assert len(report.rows) == 5
    assert json.loads((tmp_path / "summary.json").read_text())["failed"] == report.failed
    assert "Cu: ValueError: no such thing" in capsys.readouterr().err
    mended = Counting()
    assert go(mended, tmp_path).failed == {}
    assert sorted(mended.asked) == ["Au", "Cu"]


def test_numbers_that_are_none_are_failures(tmp_path):
    class Endless(Counting):
        def __call__(self, crystal):
            return np.inf if crystal.id == "Al" else 1.0

    assert "not a number" in go(Endless(), tmp_path).failed["Al"]


def test_numbers_of_numpy_in_single_precision_are_kept(tmp_path):
    class Single(Counting):
        def __call__(self, crystal):
            return np.float32(-0.5)

    report = go(Single(), tmp_path)
    assert report.failed == {}
    assert {row.energy for row in report.rows.values()} == {-0.5}


def test_an_interrupt_loses_one_crystal(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        go(Counting({"Cu": KeyboardInterrupt()}), tmp_path)
    lines = (tmp_path / "rows.jsonl").read_text()
    done = lines.count("\n")
    (tmp_path / "rows.jsonl").write_text(lines + '{"id": "Cu", "ro')
    rest = Counting()
    assert len(go(rest, tmp_path).rows) == 7
    assert len(rest.asked) == 7 - done


def test_a_line_cut_within_a_letter_is_left_out(tmp_path):
    go(Counting(), tmp_path, count=2)
    with (tmp_path / "rows.jsonl").open("ab") as file:
        file.write('{"id": "Cu", "error": "10 Å'.encode()[:-1])
    assert len(go(Counting(), tmp_path).rows) == 7


def test_settings_that_hold_are_not_written_again(tmp_path):
    go(Counting(), tmp_path, count=1)
    settings = tmp_path / "settings.json"
    settings.chmod(0o400)
    before = settings.stat().st_mtime_ns
    go(Counting(), tmp_path, count=2)
    assert settings.stat().st_mtime_ns == before


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_results_that_would_lie_in_a_file_are_refused(tmp_path, inside):
    (tmp_path / "taken").touch()
    chosen = Candidate(calculator=Counting(), identity={"model": "counting"})
    with pytest.raises(BadRecipe, match=r"in a file, .* --out"):
        assess(COUNTED, chosen, tmp_path, tmp_path / "taken" / inside, progress=False)


def test_a_seed_below_zero_is_refused(tmp_path):
    with pytest.raises(BadRecipe, match="seed is -1"):
        go(Counting(), tmp_path, seed=-1)


def test_results_of_other_settings_are_not_mixed(tmp_path):
    go(Counting(), tmp_path, count=1)
    with pytest.raises(BadRecipe, match=r"results with scale = 1.0, not 2.0"):
        go(Counting(), tmp_path, options={"scale": 2.0})
    with pytest.raises(BadRecipe, match="seed = 0, not 1"):
        go(Counting(), tmp_path, seed=1)
    other = Candidate(calculator=Counting(), identity={"model": "other"})
    with pytest.raises(BadRecipe, match="model = 'counting', not 'other'"):
        assess(COUNTED, other, tmp_path, tmp_path, progress=False)


def test_options_are_checked(tmp_path):
    report = go(Counting(), tmp_path / "scaled", options={"scale": 2})
    assert report.rows["Al"].energy == 26.0
    with pytest.raises(BadRecipe, match=r"scal: .* It can be told: scale"):
        go(Counting(), tmp_path, options={"scal": 2})
    with pytest.raises(BadRecipe, match="scale: "):
        go(Counting(), tmp_path, options={"scale": "large"})


def test_a_small_draw_is_taken_evenly_from_all_strata(tmp_path):
    strata = replace(COUNTED, stratum=lambda crystal: "light" if crystal.id == "Al" else "heavy")
    for seed in range(3):
        report = go(Counting(), tmp_path / str(seed), strata, count=2, seed=seed)
        assert "Al" in report.rows


def test_a_draw_smaller_than_the_number_of_strata_favours_none(tmp_path):
    strata = replace(COUNTED, stratum=lambda crystal: crystal.id)
    found = [go(Counting(), tmp_path / f"{n}", strata, count=2, seed=n).rows for n in range(6)]
    assert len(set().union(*found)) > 4


def test_no_data_is_told(tmp_path):
    with pytest.raises(MissingData):
        go(Counting(), tmp_path, replace(COUNTED, crystals=lambda data, options: []))


def test_shares_and_means_leave_out_what_is_not_there():
    assert share("good", [True, False, False, False]).value == 25.0
    known = statistic("x", "1", [1.0, None, 3.0])
    assert (known.value, known.n) == (2.0, 2)
    assert statistic("x", "1", []).value is None


# ------------------------------------------------------------------------------ calculators


def test_any_ase_calculator_is_built_from_its_name():
    assert isinstance(candidate("ase.calculators.emt:EMT").calculator, EMT)
    ours = candidate("default", device="cpu", dtype="float64")
    assert ours.calculator.parameters["dtype"] == "float64"
    assert len(ours.identity["sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere.at_all:EMT", "no module 'nowhere'"),
        ("ase.calculators.emt:Emt", "no callable 'Emt'"),
        ("defalt", "Did you mean 'default'"),
        ("ase.build:bulk", "needs arguments"),
        ("builtins:dict", "dict, which is no ASE calculator"),
    ],
)
def test_a_calculator_that_is_not_there_is_told(name, told):
    with pytest.raises(UnknownName, match=told):
        candidate(name)


def test_calculators_of_ase_that_cannot_be_made_say_what_they_lack(monkeypatch):
    monkeypatch.setitem(sys.modules, "gpaw", None)
    with pytest.raises(MissingExtra, match=r"'gpaw' is not installed.*Install it"):
        load_calculator("gpaw")
    with pytest.raises(UnknownName, match=r"'parameters'\). Write a function .* package\.module:"):
        load_calculator("tersoff")
