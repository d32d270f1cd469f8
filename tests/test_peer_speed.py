"""The comparison of speed with other potentials runs, also where none of them is installed."""

import json

import numpy as np
import pytest

from benchmarks import peer_memory, peer_speed, peers
from benchmarks.crystals import silicon, silicon_block
from benchmarks.timing import Way, take_turns


def test_it_runs_and_records_what_it_ran(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(peers, "_there", lambda name: False)  # ours alone, everywhere the same
    before = {"memory": {"date": "1", "machine": {}, "rows": []}}
    (tmp_path / "peer_speed.json").write_text(json.dumps(before))
    peer_speed.main(["--quick", "single", "size", "batch", "relaxed", "--out", str(tmp_path)])
    told = json.loads((tmp_path / "peer_speed.json").read_text())
    assert list(told) == ["memory", "single", "size", "batch", "relaxed"]
    batch = {row["way"]: row for row in told["batch"]["rows"]}
    ours = ("crystalformer, in batches", "crystalformer, one by one")
    assert set(batch) == {*ours, "crystalformer, accurate, one by one"}
    [relaxed] = told["relaxed"]["rows"]
    assert relaxed["way"] == "crystalformer, relax (0 arrived)"  # three steps are too few
    assert all(row["wall_ms"] > 0 for one in told.values() for row in one["rows"])
    text = (tmp_path / "peer_speed.md").read_text()
    assert text.startswith("# Speed beside other potentials")
    assert "| Si 8 atoms | 1 | crystalformer |" in text
    assert "| Si 8 atoms | 1 | crystalformer, accurate |" in text
    assert "pip install chgnet==0.4.2" in capsys.readouterr().err


def test_an_unknown_comparison_is_named(capsys):
    with pytest.raises(SystemExit):
        peer_speed.main(["sizes"])
    assert "no comparison sizes; there are single, size" in capsys.readouterr().err


@pytest.mark.parametrize("cells", [1, 8, 27, 63, 125, 250, 625])
def test_blocks_hold_all_cells_and_are_not_flat(cells):
    atoms = silicon_block(cells)
    lengths = np.diag(atoms.cell.array) / 5.43
    assert len(atoms) == 8 * cells
    assert lengths.max() <= 5 * lengths.min() + 1e-6


def test_memory_is_told_by_a_process_of_its_own():
    told = peer_memory.apart("crystalformer", 64)
    assert told["peak"] > 50_000  # kB; torch alone is more
    assert 0 < told["cpu"]


def test_frames_differ_from_call_to_call():
    class Counting:
        def __init__(self):
            self.results, self.seen = {"energy": 0.0}, []

        def calculate(self, atoms, asked, changes):
            self.seen.append(atoms.positions.copy())

    counting = Counting()
    step = peer_speed._stepper(counting, silicon(1))
    for _ in range(3):
        step()
    assert not np.allclose(counting.seen[0], counting.seen[1])
    assert not np.allclose(counting.seen[1], counting.seen[2])


def test_long_work_takes_turns_without_warming_up():
    record = []
    ways = [Way(name=name, run=lambda name=name: record.append(name)) for name in "AB"]
    rows = take_turns("words", ways, rounds=2)
    assert record == ["A", "B"] * 2
    assert [(row.way, row.rounds) for row in rows] == [("A", 2), ("B", 2)]
