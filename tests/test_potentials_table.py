"""Contenders are compared on the same crystals, and who is worse is said only when it is sure."""

import json

import numpy as np
import pytest
from ase.calculators.emt import EMT

from ase_crystalformer.assessment import BENCHMARKS, dynamics, forces, mlearn
from ase_crystalformer.assessment.deviations import Deviation
from ase_crystalformer.assessment.elasticity import Row
from ase_crystalformer.assessment.run import ROWS, SETTINGS
from ase_crystalformer.errors import MissingExtra
from benchmarks import peers, potentials
from benchmarks.potentials_report import markdown, write
from benchmarks.potentials_table import LINES, _judged, compare, verdict

NAMES = ("ours", "other")


def moduli(error, reference=100.0):
    """A crystal whose bulk modulus is wrong by so much."""
    told = {"shear": 50.0, "shear_reference": 50.0, "stable": True, "converged": True}
    return Row(bulk=reference + error, bulk_reference=reference, **told)


def measured(results, name, rows, failed=(), **settings):
    """Write what a contender measured, as ``crystalformer evaluate`` does."""
    folder = results / name / "elasticity"
    folder.mkdir(parents=True)
    told = {"model": name, "seed": 0, "options": {"strain": 0.01}, **settings}
    (folder / SETTINGS).write_text(json.dumps(told))
    lines = [{"id": one, "row": vars(row)} for one, row in rows.items()]
    lines += [{"id": one, "error": "lost"} for one in failed]
    (folder / ROWS).write_text("".join(json.dumps(line) + "\n" for line in lines))


def line(found, name):
    return next(one for one in found["lines"] if one["name"] == name)


def test_only_crystals_that_all_have_done_count(tmp_path):
    measured(tmp_path, "ours", {"a": moduli(10), "b": moduli(20), "c": moduli(900)})
    measured(tmp_path, "other", {"a": moduli(-30), "b": moduli(50)}, failed=["c"])
    found = compare("elasticity", tmp_path, NAMES)
    bulk = line(found, "bulk modulus error, mean absolute")
    assert found["crystals"] == 2
    assert bulk["value"] == {"ours": pytest.approx(15), "other": pytest.approx(40)}
    assert bulk["dft"] == pytest.approx(100)
    assert found["failed"] == {"ours": {}, "other": {"c": "lost"}}


def test_the_error_of_an_average_is_its_standard_error(tmp_path, rng):
    errors = np.abs(rng.normal(20, 5, size=60))
    for name in NAMES:
        measured(tmp_path, name, {str(n): moduli(e) for n, e in enumerate(errors)})
    bulk = line(compare("elasticity", tmp_path, NAMES), "bulk modulus error, mean absolute")
    assert bulk["error"]["ours"] == pytest.approx(errors.std() / 60**0.5, rel=0.15)
    assert bulk["verdict"] == {"other": "level"}


def test_a_small_but_steady_difference_is_seen_and_a_large_random_one_is_not(tmp_path, rng):
    errors = np.abs(rng.normal(40, 20, size=30))
    measured(tmp_path, "ours", {str(n): moduli(e) for n, e in enumerate(errors)})
    measured(tmp_path, "other", {str(n): moduli(e + 1) for n, e in enumerate(errors)})
    assert compare_bulk(tmp_path) == "better"
    assert compare_bulk(tmp_path, NAMES[::-1]) == "worse"
    noise = tmp_path / "noise"
    measured(noise, "ours", {n: moduli(e) for n, e in zip("abcdef", (10, 90) * 3, strict=True)})
    measured(noise, "other", {n: moduli(e) for n, e in zip("abcdef", (85, 5) * 3, strict=True)})
    assert compare_bulk(noise) == "level"


def test_nothing_is_said_of_a_few_crystals(tmp_path):
    for name, error in zip(NAMES, (1, 90), strict=True):
        measured(tmp_path, name, {one: moduli(error) for one in "abcd"})
    assert compare_bulk(tmp_path) == "too few"
    assert "| bulk modulus error, mean absolute | GPa | 4 | 1 | 90 | 100 | 25 | too few |" in write(
        tmp_path, NAMES, tmp_path
    )


def compare_bulk(results, names=NAMES):
    found = compare("elasticity", results, names)
    return line(found, "bulk modulus error, mean absolute")["verdict"][names[1]]


def test_numbers_on_another_scale_are_not_judged():
    [energy] = [one for one in LINES["relaxation"] if one.name.startswith("energy error")]
    low, high = np.zeros(9), np.ones(9)
    assert _judged(energy, 9, low, high, "CHGNet") == "other scale"
    assert _judged(energy, 9, low, high, "SevenNet-0") == "better"


def test_where_more_is_better_less_is_worse():
    few, many = np.array([90.0, 91.0]), np.array([95.0, 96.0])
    assert verdict(few, many, more=True) == "worse"
    assert verdict(few, many, more=False) == "better"
    assert verdict(few, np.array([np.nan, np.nan]), more=True) == "level"


def test_other_settings_and_other_crystals_are_not_compared(tmp_path):
    measured(tmp_path, "ours", {"a": moduli(1)})
    measured(tmp_path, "other", {"a": moduli(1)}, seed=1)
    with pytest.raises(SystemExit, match="different settings"):
        compare("elasticity", tmp_path, NAMES)
    measured(tmp_path / "more", "ours", {"a": moduli(1)})
    measured(tmp_path / "more", "other", {"b": moduli(1)})
    with pytest.raises(SystemExit, match="no crystal was measured by all of ours, other"):
        compare("elasticity", tmp_path / "more", NAMES)


def test_the_table_says_first_where_it_is_worse(tmp_path):
    measured(tmp_path, "ours", {str(n): moduli(30 + n) for n in range(9)})
    measured(tmp_path, "other", {str(n): moduli(10 + n) for n in range(9)}, failed=["x"])
    text = write(tmp_path, NAMES, tmp_path / "out")
    assert (tmp_path / "out" / "potentials.md").read_text() == text
    told = json.loads((tmp_path / "out" / "potentials.json").read_text())
    assert markdown(told) == text
    assert "- worse in 1: elasticity: bulk modulus error, mean absolute\n" in text
    assert "failed: other 1." in text
    assert "| bulk modulus error, mean absolute | GPa | 9 | 34 ± " in text


def test_a_benchmark_that_someone_has_not_begun_is_left_out(tmp_path):
    measured(tmp_path, "ours", {"a": moduli(1)})
    measured(tmp_path, "other", {}, failed=["a"])
    assert "elasticity" not in write(tmp_path, NAMES, tmp_path)


SUMS = Deviation(absolute=1.0, squared=1.0, label=2.0, n=3)

#: Rows of benchmarks whose statistics are by group: without a row they have none.
ROWS_BY_GROUP = {
    "forces": forces.Row(source="a", elements=["Cu"], forces={"Cu": SUMS}, stress=SUMS),
    "mlearn": mlearn.Row(element="Cu", energy=0.0, energy_label=0.0, forces=SUMS, stress=SUMS),
    "dynamics": dynamics.Row(
        atoms=1,
        runs=[
            dynamics.Run(
                temperature=300.0,
                mean_temperature=300.0,
                drift=0.0,
                wander=0.0,
                picoseconds=1.0,
                exploded=False,
            )
        ],
    ),
}


def test_every_line_is_a_statistic_of_its_benchmark():
    assert set(LINES) == set(potentials.PLAN) <= set(BENCHMARKS)
    for title, lines in LINES.items():
        rows = [ROWS_BY_GROUP[title]] if title in ROWS_BY_GROUP else []
        known = {one.name for one in BENCHMARKS[title].summarise(rows)}
        assert {name for one in lines for name in (one.name, one.dft) if name} <= known


def test_the_plan_is_run_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(potentials.CONTENDERS, "EMT", "ase.calculators.emt:EMT")
    asked = []
    monkeypatch.setattr(
        potentials,
        "assess",
        lambda benchmark, chosen, data, out, **told: asked.append(
            (benchmark.name, type(chosen.calculator), out, told["count"])
        ),
    )
    potentials.measure("EMT", tmp_path, tmp_path, share=0.25)
    count = potentials.PLAN["relaxation"].count
    assert ("relaxation", EMT, tmp_path / "EMT" / "relaxation", count / 4) in asked
    assert len(asked) == len(potentials.PLAN)


@pytest.mark.skipif(bool(peers.installed()), reason="a peer is installed")
def test_peers_that_are_missing_are_told():
    for name in ("chgnet", "sevennet", "chgnet_model"):
        with pytest.raises(MissingExtra, match=r"pip install (chgnet|sevenn)=="):
            getattr(peers, name)()
    assert peers.how_to_install() == "pip install chgnet==0.4.2 sevenn==0.13.0"
