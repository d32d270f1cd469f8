"""Energies, forces and stresses as others publish them come in our units and signs."""

import gzip
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from pymatgen.core import Lattice, Structure

from ase_crystalformer.data.frames import read_frames
from ase_crystalformer.data.readers import load
from ase_crystalformer.data.registry import DATA_SETS
from ase_crystalformer.errors import MissingExtra

SAMPLES = Path(__file__).parent / "samples"
EV_PER_KILOBAR = 0.0006241509


def frames(count):
    """Real frames: equations of state."""
    rows = list(load("eos_vasp_pbe", SAMPLES))[:count]
    for row in rows:
        row.labels["forces"] = row.labels["forces"] + 0.25
    return rows


def stored(frame):
    """A frame's structure as pymatgen writes it."""
    species = [int(number) for number in frame.species]
    place = {"coords": frame.positions, "coords_are_cartesian": True}
    return Structure(Lattice(frame.cell), species, **place).as_dict()


def assert_frames(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-8)
        assert one.labels["energy"] == pytest.approx(other.labels["energy"])
        np.testing.assert_allclose(one.labels["forces"], other.labels["forces"])
        np.testing.assert_allclose(one.labels["stress"], other.labels["stress"], rtol=1e-6)


def test_matpes_has_voigt_kilobar_of_the_other_sign_and_lists_by_number(tmp_path, monkeypatch):
    monkeypatch.setitem(DATA_SETS, "matpes-pbe", replace(DATA_SETS["matpes-pbe"], rows=6))
    expected = frames(6)
    rows = []
    for number, frame in enumerate(expected):
        stress = frame.labels["stress"] / -EV_PER_KILOBAR
        voigt = [stress[at] for at in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))]
        told = {"energy": frame.labels["energy"], "forces": frame.labels["forces"].tolist()}
        told |= {"stress": voigt, "bandgap": 0.0, "ddec6": None}
        rows.append({"matpes_id": f"matpes-{number}", "structure": stored(frame), **told})
    data = json.dumps(rows).encode()
    (tmp_path / "MatPES-PBE-2025.1.json.gz").write_bytes(gzip.compress(data))
    lists = json.dumps({"train": [0, 1, 3, 5], "valid": [2]}).encode()
    (tmp_path / "MatPES-PBE-split.json.gz").write_bytes(gzip.compress(lists))
    crystals = list(load("matpes-pbe", tmp_path))
    assert_frames(crystals, expected)
    assert [row.split for row in crystals] == ["train", "train", "val", "train", "test", "train"]
    assert crystals[1].id == "matpes-1"
    assert_frames(list(load(tmp_path / "MatPES-PBE-2025.1.json.gz")), expected)


def test_mptrj_keeps_the_frames_of_a_material_together(tmp_path):
    expected = frames(21)
    told = {}
    for number, frame in enumerate(expected):
        stress = (frame.labels["stress"] / -EV_PER_KILOBAR).tolist()
        energy = frame.labels["energy"]
        entry = {"structure": stored(frame), "corrected_total_energy": energy, "bandgap": 0.0}
        entry |= {"uncorrected_total_energy": energy + 1, "magmom": None, "stress": stress}
        entry |= {"force": frame.labels["forces"].tolist()}
        told.setdefault(f"mp-{number // 7}", {})[f"mp-{number // 7}-0-{number}"] = entry
    del told["mp-2"]["mp-2-0-20"]["stress"]
    (tmp_path / "MPtrj_2022.9_full.json").write_text(json.dumps(told))
    crystals = list(load("mptrj", tmp_path))
    assert_frames(crystals[:20], expected[:20])
    assert "stress" not in crystals[20].labels
    assert crystals[8].id == "mp-1/mp-1-0-8"
    for material in told:
        parts = {row.split for row in crystals if row.id.startswith(material + "/")}
        assert len(parts) == 1


def test_databases_of_fairchem_are_read_in_the_part_of_their_folder(tmp_path):
    pytest.importorskip("ase_db_backends")
    expected = frames(4)
    for number, frame in enumerate(expected):
        atoms = Atoms(frame.species, frame.positions, cell=frame.cell, pbc=True)
        atoms.calc = SinglePointCalculator(atoms, **frame.labels)
        part = "train" if number < 3 else "val"
        folder = tmp_path / "omat24" / part / "rattled-300-subsampled"
        folder.mkdir(parents=True, exist_ok=True)
        with connect(folder / "data.0000.aselmdb", type="aselmdb") as database:
            database.write(atoms, sid=f"agm{number}")
    crystals = list(load("omat24-rattled-300-subsampled", tmp_path))
    assert_frames(crystals, expected)
    assert [row.split for row in crystals] == ["train", "train", "train", "val"]
    assert crystals[3].id == "agm3"
    shutil.rmtree(tmp_path / "omat24" / "val")
    assert_frames(list(load("omat24-rattled-300-subsampled", tmp_path)), expected[:3])
    own = list(read_frames([tmp_path / "omat24" / "train"], group="own"))
    assert_frames(own, expected[:3])


def test_databases_name_the_extra_they_need(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ase_db_backends", None)
    monkeypatch.setitem(sys.modules, "ase_db_backends.aselmdb", None)
    (tmp_path / "data.aselmdb").write_bytes(b"")
    with pytest.raises(MissingExtra, match=r"ase-crystalformer\[data\]"):
        list(load(tmp_path / "data.aselmdb"))
