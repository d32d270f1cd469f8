"""The transfer benchmark: the test fold chooses nothing, nothing is computed twice."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from ase_crystalformer.data.readers import load
from benchmarks import transfer, transfer_features, transfer_regressors
from benchmarks.transfer_features import spread, structure_of

DATA = Path(__file__).parents[1] / "notebooks" / "samples"
TASK = "matbench_phonons"


@pytest.fixture
def cheap(monkeypatch):
    """Features and regressors that cost nothing: one kind knows the label, the other its noise."""
    rows = transfer.rows_of(TASK, DATA, limit=60)
    labels = {structure_of(row).volume: row.labels["last_phonon_peak"] for row in rows}
    calls = []

    def knowing(structures):
        calls.append(len(structures))
        return np.array([[labels[one.volume], 1.0] for one in structures])

    def ignorant(structures):
        return np.random.default_rng(0).normal(size=(len(structures), 3))

    kinds = {"embedding": knowing, "magpie": ignorant}
    monkeypatch.setattr(transfer_features, "KINDS", kinds)
    monkeypatch.setattr(transfer_features, "CHUNK", 25)
    few = {"ridge": lambda _: Ridge(1e-6), "flat": lambda _: Ridge(1e12)}
    monkeypatch.setattr(transfer_regressors, "REGRESSORS", few)
    monkeypatch.setattr(transfer, "REGRESSORS", few)
    return calls


def test_features_are_computed_once_and_folds_learned_once(cheap, tmp_path, monkeypatch):
    transfer.run(TASK, DATA, tmp_path, sets=["embedding", "Magpie"], limit=60)
    assert cheap == [25, 25, 10]
    done = transfer.read(tmp_path / TASK)
    assert sum(fold["n"] for fold in done["Magpie"].values()) == 60
    first = done["embedding"]["3"]
    assert (first["regressor"], first["columns"]) == ("ridge", 2)
    assert first["mae"] < 1e-3 * done["Magpie"]["3"]["mae"]
    monkeypatch.setattr(transfer, "one_fold", None)
    transfer.run(TASK, DATA, tmp_path, sets=["embedding", "Magpie"], limit=60)
    assert cheap == [25, 25, 10]
    assert transfer.read(tmp_path / TASK) == done
    with pytest.raises(TypeError):  # other rows are learned anew
        transfer.run(TASK, DATA, tmp_path, sets=["Magpie"], limit=55)


def test_what_is_kept_is_of_these_rows_and_weights(monkeypatch):
    first = {kind: transfer_features.fingerprint(kind, "ab") for kind in ("magpie", "embedding")}
    assert first["magpie"] != transfer_features.fingerprint("magpie", "a")
    monkeypatch.setattr(transfer_features, "read_card", lambda _: {"sha256": "another"})
    assert first["magpie"] == transfer_features.fingerprint("magpie", "ab")
    assert first["embedding"] != transfer_features.fingerprint("embedding", "ab")


def test_labels_of_the_test_fold_choose_nothing(cheap, rng):
    table, labels = rng.normal(size=(50, 2)), rng.normal(size=50)
    labels += table[:, 0]
    tested = np.arange(50) < 10
    found = transfer.one_fold(table, labels, tested)
    other = transfer.one_fold(table, np.where(tested, 1e6, labels), tested)
    assert found["inner"] == other["inner"]
    assert found["regressor"] == other["regressor"] == "ridge"
    assert other["mae"] > 1e5 > found["mae"]


def test_the_table_holds_every_set_against_the_better_plain_one(tmp_path):
    def folds(*errors):
        told = {"n": 10, "columns": 4, "regressor": "ridge"}
        return {str(number): {"mae": error, **told} for number, error in enumerate(errors)}

    found = {
        "Magpie": folds(4, 4, 4, 4, 4),
        "Magpie + structural": folds(5, 5, 5, 5, 5),
        "both embeddings": folds(1, 2, 3, 2, 5),
        "embedding": folds(3, 3),
    }
    (tmp_path / TASK).mkdir()
    transfer.write(tmp_path / TASK, found)
    (tmp_path / "transfer.md").write_text(f"Prose.\n{transfer.MARK}\nearlier")
    table = transfer.record(tmp_path, tmp_path)
    [line] = [line for line in table.splitlines() if line.startswith("| both")]
    assert "| 2.6 ± 1.4 | -35%; lower in 4 of 5 |" in line
    assert "3 ± 0 (2 of 5 folds)" in table
    assert "50 of 1,265 rows" in table
    text = (tmp_path / "transfer.md").read_text()
    assert text.startswith("Prose.")
    assert "earlier" not in text
    assert json.loads((tmp_path / "transfer.json").read_text())["tasks"][TASK] == found


def test_the_spread_over_atoms_does_not_depend_on_the_cell():
    row = next(row for row in load(TASK, DATA) if row.atoms == 3)
    structure = structure_of(row)
    larger = structure.make_supercell([2, 1, 1], in_place=False)
    one, two = spread([structure, larger])
    assert one.size % 3 == 0
    np.testing.assert_allclose(one, two, atol=1e-4 * np.abs(one).max())
    deviation, least, largest = one.reshape(3, -1)
    assert (deviation >= 0).all()
    assert (least <= largest).all()
    assert deviation.max() > 0


@pytest.mark.parametrize("name", transfer_regressors.REGRESSORS)
def test_every_regressor_learns_with_features_missing(name, rng):
    table = rng.normal(size=(80, 4))
    labels = np.exp(table[:, 0])
    table[::7, 1] = np.nan
    model = transfer_regressors.REGRESSORS[name](4).fit(table[:60], labels[:60])
    error = np.abs(model.predict(table[60:]) - labels[60:]).mean()
    assert error < 0.8 * np.abs(labels[60:] - np.median(labels[:60])).mean()
