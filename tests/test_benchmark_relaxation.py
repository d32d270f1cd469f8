"""The benchmark of relaxations compares like with like."""

import numpy as np
import pytest
from ase.build import bulk
from factories import tiny_potential

from benchmarks.relaxation import End, Round, markdown, measure, shaken, summary, ways


def test_every_way_relaxes_every_crystal():
    crystals = [bulk("NaCl", "rocksalt", a=5.0), bulk("Cu", "fcc", a=3.0)]
    for number, atoms in enumerate(crystals):
        atoms.rattle(0.05, seed=number)
    rounds = measure(crystals, ways(tiny_potential(), 0.02, 200), size=1)
    told = summary(rounds)
    assert [line["crystals"] for line in told] == [2, 2, 2]
    assert all(line["converged"] == line["same"] == 2 for line in told)
    assert told[0]["steps"] == pytest.approx(told[1]["steps"], abs=2)
    assert told[2]["steps"] < told[1]["steps"]
    assert told[0]["wall_ratios"] == [1.0, 1.0]
    table = markdown({"case": {"date": "today", "machine": {"cores": 1}, "ways": told}})
    assert table.count("\n| ") == 5


def test_energies_are_counted_where_both_ways_converged():
    def ends(*energies):
        return [End(energy, 20.0, 10, converged=bool(np.isfinite(energy))) for energy in energies]

    first = [Round(wall=2.0, cpu=4.0, ends=ends(-1.0, -1.0, -1.0, -1.0))]
    other = [Round(wall=1.0, cpu=1.0, ends=ends(-1.0005, -1.002, -0.9, np.nan))]
    line = summary({"first": first, "other": other})[1]
    counted = ("both_converged", "same", "lower", "higher", "converged")
    assert [line[name] for name in counted] == [3, 1, 1, 1, 3]
    assert line["wall_ratios"] == [2.0]
    assert line["cpu_ratios"] == [4.0]


def test_crystals_are_shaken_alike_every_time():
    for one, other in zip(shaken(3), shaken(3), strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_array_equal(one.cell.array, other.cell.array)
