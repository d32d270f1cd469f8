"""The benchmark of active learning compares seed with seed, and tells nothing half done."""

import json

import pytest
from ase.io import read

from benchmarks.active_learning import PICKS, collect, compare, crystal, main, markdown

PLAN = {"members": 2, "epochs": 5, "temperature": 800.0, "test": 10, "recipe": "/a/b/small.toml"}


def study(folder, pick, seed, errors):
    out = folder / f"{pick}-{seed}"
    out.mkdir(parents=True)
    rounds = [{"frames": 6 * (n + 1), "test_error": error} for n, error in enumerate(errors)]
    told = {"plan": {**PLAN, "pick": pick, "seed": seed}, "rounds": rounds}
    (out / "active_learning.json").write_text(json.dumps(told))


@pytest.fixture
def folder(tmp_path):
    study(tmp_path, "uncertain", 0, [0.5, 0.2])
    study(tmp_path, "random", 0, [0.5, 0.3])
    study(tmp_path, "uncertain", 1, [0.9, 0.4])
    study(tmp_path, "random", 1, [0.9, 0.8])
    study(tmp_path, "uncertain", 2, [0.1, 0.1])
    return tmp_path


def test_seeds_are_compared_with_themselves(folder):
    errors, labels, plan = collect(folder)
    first, second = compare(errors, labels)
    assert (first["labels"], second["labels"]) == (6, 12)
    assert first["seeds"] == second["seeds"] == 2  # the third is done one way alone
    assert first["gain mean"] == 0
    assert second["uncertain mean"] == pytest.approx(0.3)
    assert second["random mean"] == pytest.approx(0.55)
    assert second["gain mean"] == pytest.approx(0.25)
    assert second["gain spread"] == pytest.approx(0.3 / 2**0.5)  # of 0.1 and 0.4
    assert "| 12 | 2 | 300.0 ± 141.4 | 550.0 ± 353.6 | 250.0 ± 212.1 |" in markdown(
        [first, second], plan, "2 seeds"
    )


def test_rounds_of_one_way_alone_are_left_out(folder):
    study(folder, "uncertain", 3, [0.5, 0.4, 0.3])
    errors, labels, _ = collect(folder)
    assert labels == [6, 12, 18]
    assert [row["labels"] for row in compare(errors, labels)] == [6, 12]


def test_the_table_is_written_with_what_it_is_of(folder, capsys):
    main(["table", "--folder", str(folder), "--out", str(folder)])
    told = json.loads((folder / "active_learning.json").read_text())
    assert told["errors"]["random"] == {"0": [0.5, 0.3], "1": [0.9, 0.8]}
    assert told["plan"]["recipe"] == "small.toml"
    assert (folder / "active_learning.md").read_text() in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no seed done both ways"):
        main(["table", "--folder", str(folder / "nothing")])


def test_the_alloy_is_half_copper_half_gold(tmp_path):
    crystal(tmp_path / "alloy.extxyz")
    atoms = read(tmp_path / "alloy.extxyz")
    assert atoms.get_chemical_formula() == "Au16Cu16"
    assert {atoms.get_distance(0, n, mic=True) > 2.7 for n in range(1, 32)} == {True}
    assert PICKS == ("uncertain", "random")
