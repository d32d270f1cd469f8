"""The measurements of training run, and write what they say they write."""

import sys

from benchmarks import data_loading, precision


def table(monkeypatch, module, path, *options):
    monkeypatch.setattr(sys, "argv", [module.__name__, *options, "--out", str(path)])
    module.main()
    lines = path.read_text().splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]


def test_short_arithmetic_changes_predictions_a_little(tmp_path, monkeypatch):
    head, _, *rows = table(monkeypatch, precision, tmp_path / "table.md", "--count", "4")
    assert {row[1] for row in rows} >= {"energy", "forces", "stress", "band_gap"}
    mean, largest, spread = (head.index(name) for name in ("mean", "largest", "spread of values"))
    for row in rows:
        assert 0 < float(row[mean]) <= float(row[largest]) < float(row[spread])


def test_waiting_is_measured_for_every_number_of_processes(tmp_path, monkeypatch):
    options = ["--count", "40", "--budget", "400", "--steps", "5"]
    _, _, *rows = table(monkeypatch, data_loading, tmp_path / "table.md", *options)
    assert [row[0] for row in rows] == ["0", "1", "2"]
