"""Files of one's own are data sets too."""

import gzip
import json
import logging

import numpy as np
import pandas as pd
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write
from pymatgen.core import Lattice, Structure

from ase_crystalformer.data.files import read_file, rows_of
from ase_crystalformer.data.readers import load
from ase_crystalformer.errors import BadStructure, MissingData

STRESS = [1.0, 2, 3, 4, 5, 6]


@pytest.fixture
def computed(rocksalt):
    rocksalt.calc = SinglePointCalculator(
        rocksalt, energy=-3.0, forces=[[0, 0, 1.0], [0, 0, -1.0]], stress=STRESS
    )
    rocksalt.info.update(material_id="salt", band_gap=5.0, split="val")
    return rocksalt


@pytest.fixture
def caesium():
    return Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def assert_computed(crystal, atoms):
    assert crystal.species.tolist() == atoms.numbers.tolist()
    np.testing.assert_allclose(crystal.positions, atoms.positions, atol=1e-7)
    np.testing.assert_allclose(crystal.cell, atoms.cell.array, atol=1e-7)
    assert crystal.labels["energy"] == -3
    assert crystal.labels["forces"].tolist() == [[0, 0, 1], [0, 0, -1]]
    assert crystal.labels["stress"].tolist() == [[1, 6, 5], [6, 2, 4], [5, 4, 3]]


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.traj", "a.db", "a.json", "a.xyz.gz"])
def test_energy_forces_and_stress_from_ase(name, tmp_path, computed):
    path = tmp_path / name
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    if plain.suffix in {".db", ".json"}:
        with connect(plain) as database:
            database.write(computed, band_gap=5.0, split="val")
    else:
        write(plain, computed)
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes()))
    (crystal,) = load(path)
    assert_computed(crystal, computed)
    assert crystal.labels["band_gap"] == 5
    assert (crystal.split, crystal.source, crystal.group) == ("val", "a", "a")


def test_every_frame_is_read_and_named(tmp_path, computed, diamond):
    write(tmp_path / "two.extxyz", [computed, diamond])
    first, second = read_file(tmp_path / "two.extxyz", group="PBE")
    assert [first.id, second.id] == ["salt", "1"]
    assert first.group == second.group == "PBE"
    assert second.labels == {}


@pytest.mark.parametrize("name", ["POSCAR", "a.vasp", "a.cif"])
def test_bare_structures(name, tmp_path, diamond):
    write(tmp_path / name, diamond, format="cif" if name == "a.cif" else "vasp")
    (crystal,) = load(tmp_path / name)
    assert crystal.species.tolist() == [14, 14]
    assert crystal.volume == pytest.approx(diamond.get_volume())
    assert crystal.labels == {}


def stored(kind, caesium):
    structure = caesium.as_dict()
    return {
        "one structure": structure,
        "a list": [structure],
        "rows": [{"structure": structure, "gap": 5.0, "material_id": "mp-1"}],
        "matbench": {"index": ["mp-1"], "columns": ["structure", "gap"], "data": [[structure, 5]]},
        "jarvis": [
            {
                "jid": "mp-1",
                "gap": 5.0,
                "tc": "na",
                "atoms": {
                    "lattice_mat": caesium.lattice.matrix.tolist(),
                    "coords": caesium.frac_coords.tolist(),
                    "elements": ["Cs", "Cl"],
                    "cartesian": False,
                    "props": ["", ""],
                },
            }
        ],
    }[kind]


@pytest.mark.parametrize("kind", ["one structure", "a list", "rows", "matbench", "jarvis"])
def test_json(kind, tmp_path, caesium):
    (tmp_path / "a.json").write_text(json.dumps(stored(kind, caesium)))
    (crystal,) = load(tmp_path / "a.json")
    assert crystal.species.tolist() == [55, 17]
    np.testing.assert_allclose(crystal.positions, caesium.cart_coords, atol=1e-12)
    if kind in {"rows", "matbench", "jarvis"}:
        assert (crystal.id, crystal.labels) == ("mp-1", {"gap": 5.0})


def test_a_table_with_each_kind_of_column(tmp_path, caesium):
    text = caesium.to(fmt="cif")
    (tmp_path / "a.cif").write_text(text)
    columns = {"cif": text, "structure": json.dumps(caesium.as_dict()), "file": "a.cif"}
    for column, cell in columns.items():
        table = pd.DataFrame({"id": ["007"], column: [cell], "gap": [5.0], "split": ["train"]})
        table.to_csv(tmp_path / "table.csv")
        (crystal,) = load(tmp_path / "table.csv")
        assert (crystal.id, crystal.split, crystal.labels) == ("007", "train", {"gap": 5.0})
        assert sorted(crystal.species.tolist()) == [17, 55]


def test_quantities_are_renamed_and_empty_cells_are_no_labels(tmp_path, caesium):
    cells = [json.dumps(caesium.as_dict())] * 3
    table = pd.DataFrame({"structure": cells, "Eg": [5.0, None, "n/a"], "note": ["x", "y", "z"]})
    table.to_csv(tmp_path / "table.csv", index=False)
    rows = list(read_file(tmp_path / "table.csv", rename={"Eg": "band_gap"}))
    assert [row.labels for row in rows] == [{"band_gap": 5.0}, {}, {}]
    assert [row.info["note"] for row in rows] == ["x", "y", "z"]


def test_a_bad_row_is_named_and_the_others_go_on(tmp_path, caesium, caplog):
    good = caesium.to(fmt="cif")
    table = pd.DataFrame({"id": ["a", "b", "c"], "cif": [good, "no crystal", good]})
    table.to_csv(tmp_path / "table.csv")
    with caplog.at_level(logging.WARNING):
        assert [row.id for row in load(tmp_path / "table.csv")] == ["a", "c"]
    (record,) = caplog.records
    assert record.getMessage().startswith("Left out table b: ")


def test_a_disordered_crystal_is_left_out(tmp_path, caplog):
    mixed = Structure(Lattice.cubic(4), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    (tmp_path / "a.cif").write_text(mixed.to(fmt="cif"))
    assert list(load(tmp_path / "a.cif")) == []
    assert "disordered" in caplog.text


def test_a_table_without_structures_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text("formula,gap\nCsCl,5\n")
    with pytest.raises(BadStructure, match="columns formula, gap; one of structure, atoms, cif"):
        list(load(tmp_path / "table.csv"))


def test_a_file_nobody_understands_is_refused(tmp_path):
    (tmp_path / "a.docx").write_text("Dear editor,")
    with pytest.raises(BadStructure, match="cannot be read by ASE"):
        list(load(tmp_path / "a.docx"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingData, match=r"nowhere\.cif"):
        load(tmp_path / "nowhere.cif")


def test_a_row_with_labels_nobody_can_read_is_named(tmp_path, caesium, caplog):
    cell = caesium.as_dict()
    rows = [{"id": "bad", "structure": cell, "forces": [["up"]]}, {"id": "good", "structure": cell}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert [crystal.id for crystal in read_file(tmp_path / "rows.json")] == ["good"]
    assert "rows bad" in caplog.text


def test_a_file_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "rows.json").write_text("{no")
    with pytest.raises(BadStructure, match="cannot be read"):
        list(read_file(tmp_path / "rows.json"))


def test_what_a_database_keeps_beside_its_keys_comes_along(tmp_path, diamond):
    with connect(tmp_path / "a.db") as database:
        told = {"sid": "omat-7", "depth": 2.5, "path": [1, 2]}
        database.write(diamond, data=told, key_value_pairs={"depth": 3.5})
    (row,) = rows_of(tmp_path / "a.db")
    assert row.values == {"id": 1, "sid": "omat-7", "depth": 3.5}


def odd(kind, structure):
    """Three rows of a kind; the second is none."""
    if kind == "matpes":
        rows = [{"matpes_id": name, "structure": structure, "stress": [0.0] * 6} for name in "abc"]
        rows[1]["stress"] = [0.0] * 5
        return rows
    if kind == "mptrj":
        frame = {"structure": structure, "corrected_total_energy": -1.0}
        bad = {**frame, "force": [[0, 0], [0, 0, 0]]}
        return {"mp-1": {"a": {**frame}, "b": bad}, "mp-2": {"c": frame}}
    if kind == "no frame":
        frame = {"structure": structure, "corrected_total_energy": -1.0}
        return {"mp-1": {"a": frame}, "mp-2": {"b": 7}, "mp-3": {"c": frame}}
    if kind == "no material":
        return {"a": {"structure": structure}, "b": None, "c": {"structure": structure}}
    if kind == "table":
        cells = [[structure, 1.0], [structure], [structure, 1.0]]
        return {"columns": ["structure", "gap"], "index": ["a", "b", "c"], "data": cells}
    return [{"id": "a", "structure": structure}, 7, {"id": "c", "structure": structure}]


KINDS = ["matpes", "mptrj", "no frame", "no material", "table", "a number"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_odd_row_is_named_and_the_others_go_on(kind, tmp_path, caesium, caplog):
    (tmp_path / "rows.json").write_text(json.dumps(odd(kind, caesium.as_dict())))
    assert [row.id for row in read_file(tmp_path / "rows.json")] == ["a", "c"]
    assert f"Left out rows {'1' if kind == 'a number' else 'b'}: " in caplog.text
