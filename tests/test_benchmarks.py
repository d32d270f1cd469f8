"""Benchmarks run, compare like with like, and say so; how fast anything is, no test asks."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch

from ase_crystalformer.encoders import ENCODERS
from ase_crystalformer.neighbours import build
from ase_crystalformer.testing import randomised
from benchmarks import BENCHMARKS
from benchmarks.__main__ import main
from benchmarks.attention import TARGET, published_model
from benchmarks.crystals import CLOSEST, random_crystals, real_crystals, spinel
from benchmarks.published import Published, cells_within, lattice_distances
from benchmarks.timing import (
    QUICK,
    Disagreement,
    Effort,
    Way,
    check_agreement,
    compare,
    limited_threads,
)

#: Ways that compute something else than the first of their case.
INCOMPARABLE = {
    *ENCODERS,
    "SiteStatsFingerprint CrystalNNFingerprint_ops",
    "ElementProperty magpie",
}


def way(name, value, record=None):
    """A way that returns a number and writes down when."""

    def run():
        if record is not None:
            record.append(name)
        return value

    return Way(name=name, run=run, read=np.array)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_way_agrees_with_the_first(name):
    rows = import_module(f"benchmarks.{name}").run(QUICK)
    firsts = [row for row in rows if row.wall_ratio == (1, 1, 1)]
    assert 0 < len(firsts) < len(rows)
    compared = {row.way.partition(",")[0] for row in rows if row.difference is None}
    assert compared <= INCOMPARABLE | {row.way.partition(",")[0] for row in firsts}
    assert all(row.wall_ms > 0 for row in rows)


def test_what_disagrees_is_not_timed():
    record = []
    ways = [way("right", [1.0, 2.0], record), way("wrong", [1.0, 2.001], record)]
    with pytest.raises(Disagreement, match=r"'wrong' differs from 'right' by 5\.0e-04"):
        compare("a sum", ways, QUICK, tolerance=1e-4)
    assert record == ["right", "wrong"]


@pytest.mark.parametrize("other", [[1.0], [1.0, float("nan")]])
def test_missing_numbers_are_no_agreement(other):
    with pytest.raises(Disagreement):
        check_agreement("a sum", [way("right", [1.0, 2.0]), way("wrong", other)], tolerance=1.0)


def test_ways_take_turns():
    record = []
    ways = [way("A", 1.0, record), way("B", 1.0, record)]
    rows = compare("a sum", ways, Effort(small=True, rounds=3, seconds=0.0), tolerance=0.0)
    assert record == ["A", "B"] * 5  # checked, warmed up, three rounds
    assert [row.rounds for row in rows] == [3, 3]


def test_threads_are_limited_and_given_back():
    before = torch.get_num_threads()
    with limited_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_lattice_sums_are_the_flat_edges():
    crystals = random_crystals(2, 3, 3)
    model = randomised(published_model().double())
    rule = model.encoder.rule
    distance = lattice_distances(crystals, cells_within(crystals, rule.cutoff), rule.cutoff)
    with torch.no_grad():
        for number, atoms in enumerate(crystals):
            species = torch.tensor(atoms.numbers)[None]
            expected = model(build(atoms, rule))[TARGET.name]
            for sums_first in (False, True):
                lattice = Published(model, sums_first=sums_first)
                given = lattice(species, distance[number : number + 1])
                torch.testing.assert_close(given, expected, rtol=1e-10, atol=1e-10)
                wrong = lattice(species, distance[number : number + 1] * (1 + 1e-6))
                assert (wrong - expected).abs().max() > 1e-9


def test_enough_cells_are_summed_and_no_more():
    crystals = random_crystals(3, 4, 4)
    cells = cells_within(crystals, 7.0)
    found = [(lattice_distances(crystals, n, 7.0) < 7).sum() for n in (cells - 1, cells, cells + 1)]
    assert found[0] < found[1] == found[2]


def test_random_crystals_are_sensible_and_repeatable():
    crystals = random_crystals(5, 2, 20)
    assert crystals == random_crystals(5, 2, 20)
    for atoms in crystals:
        apart = atoms.get_all_distances(mic=True)
        assert apart[~np.eye(len(atoms), dtype=bool)].min() > CLOSEST
        assert abs(atoms.get_volume() / len(atoms) - 20) < 1e-9


def test_real_crystals_are_many_and_different():
    formulas = {atoms.get_chemical_formula() for atoms in real_crystals(100)}
    assert len(real_crystals(100)) == 100
    assert len(formulas) > 80


def test_spinel_is_spinel():
    assert spinel(8.08).get_chemical_formula() == "Al16Mg8O32"


def test_results_are_recorded_one_benchmark_at_a_time(tmp_path, capsys):
    before = {"attention": {"date": "2026-01-01", "machine": {}, "rows": []}}
    (tmp_path / "results.json").write_text(json.dumps(before))
    main(["--quick", "neighbours", "--out", str(tmp_path)])
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["attention"] == before["attention"]
    assert {row["way"] for row in told["neighbours"]["rows"]} >= {
        "build, vesin",
        "ASE neighbor_list",
    }
    assert told["neighbours"]["machine"]["processor"]
    assert "| Si2, 6 Å, 92 pairs | 1 | ASE neighbor_list |" in (tmp_path / "results.md").read_text()
    assert "ASE neighbor_list" in capsys.readouterr().out


def test_an_unknown_benchmark_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["neighbors"])
    assert "no benchmark neighbors; there are neighbours" in capsys.readouterr().err
