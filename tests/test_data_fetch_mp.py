"""Materials Project is asked in blocks, and what has come is not asked for again."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from ase_crystalformer.data import materials_project
from ase_crystalformer.data.fetch import fetch
from ase_crystalformer.data.readers import load
from ase_crystalformer.errors import DownloadFailed, MissingExtra


def document(number):
    """What the interface tells of a crystal."""
    structure = Structure(Lattice.cubic(4.1 + number / 100), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3])
    return SimpleNamespace(
        material_id=f"mp-{number}",
        structure=structure,
        formation_energy_per_atom=-2.0 - number,
        energy_above_hull=None,
        energy_per_atom=-3.5,
        band_gap=5.0,
        bulk_modulus={"voigt": 31.0, "reuss": 29.0, "vrh": 30.0} if number % 2 else None,
        shear_modulus=None,
        total_magnetization_normalized_vol=0.0,
    )


class Interface:
    """A stand-in for mp-api's: five crystals, and a break after some blocks."""

    def __init__(self):
        self.asked, self.breaks_after, self.told = [], None, (3, 1, 0, 2, 4)
        self.answer = lambda names: names
        self.materials = SimpleNamespace(summary=self)

    def __call__(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *told):
        return None

    def search(self, *, fields, all_fields, material_ids=None):
        assert not all_fields
        if material_ids is None:
            assert fields == ["material_id"]
            return [document(number) for number in self.told]
        if len(self.asked) == self.breaks_after:
            raise ConnectionError("gone")
        self.asked.append(material_ids)
        return [document(int(name[3:])) for name in self.answer(material_ids)]


@pytest.fixture
def interface(monkeypatch):
    told = Interface()
    package, client = ModuleType("mp_api"), ModuleType("mp_api.client")
    client.MPRester = told
    monkeypatch.setitem(sys.modules, "mp_api", package)
    monkeypatch.setitem(sys.modules, "mp_api.client", client)
    monkeypatch.setattr(materials_project, "BLOCK", 2)
    return told


def test_all_crystals_come_with_their_labels(interface, tmp_path):
    seen = []
    (path,) = fetch("mp", tmp_path, progress=lambda *at: seen.append(at))
    assert [one.name for one in tmp_path.iterdir()] == [path.name] == ["mp.extxyz.gz"]
    assert seen == [(2, 5), (4, 5), (5, 5)]
    crystals = list(load("mp", tmp_path))
    assert [one.id for one in crystals] == [f"mp-{number}" for number in range(5)]
    assert crystals[1].labels == {
        "formation_energy_per_atom": -3.0,
        "energy_per_atom": -3.5,
        "band_gap": 5.0,
        "bulk_modulus": 30.0,
        "magnetization_per_volume": 0.0,
    }
    assert crystals[2].species.tolist() == [55, 17]
    np.testing.assert_allclose(crystals[2].cell, np.eye(3) * 4.12)
    np.testing.assert_allclose(crystals[2].positions[1], 2.06)
    assert fetch("mp", tmp_path) == [path]
    assert len(interface.asked) == 3


def test_a_second_call_goes_on(interface, tmp_path):
    interface.breaks_after = 2
    with pytest.raises(DownloadFailed, match=r"gone.*MP_API_KEY"):
        fetch("mp", tmp_path)
    assert not (tmp_path / "mp.extxyz.gz").exists()
    interface.breaks_after = None
    fetch("mp", tmp_path)
    assert interface.asked == [["mp-0", "mp-1"], ["mp-2", "mp-3"], ["mp-4"]]
    assert len(list(load("mp", tmp_path))) == 5


def test_a_second_call_goes_on_with_the_names_of_the_first(interface, tmp_path):
    interface.breaks_after = 1
    with pytest.raises(DownloadFailed, match="gone"):
        fetch("mp", tmp_path)
    interface.breaks_after, interface.told = None, (7, 6, 1, 0, 2, 3, 4, 5)
    (tmp_path / "mp.extxyz.gz.blocks" / ".partial-000002-1.extxyz.gz").write_bytes(b"cut off")
    (tmp_path / "mp.extxyz.gz.blocks" / "000009-mp-2-1.extxyz.gz").write_bytes(b"of another run")
    fetch("mp", tmp_path)
    assert [one.id for one in load("mp", tmp_path)] == [f"mp-{number}" for number in range(5)]
    assert [one.name for one in tmp_path.iterdir()] == ["mp.extxyz.gz"]


ANSWERS = {
    "too few": (lambda names: names[:1], "without mp-1, and"),
    "another": (lambda names: [names[0], "mp-9"], "without mp-1 and with mp-9"),
}


@pytest.mark.parametrize("which", ANSWERS)
def test_other_crystals_than_those_asked_for_are_named(interface, tmp_path, which):
    interface.answer, named = ANSWERS[which]
    with pytest.raises(DownloadFailed, match=named):
        fetch("mp", tmp_path)
    interface.answer = lambda names: names[::-1]
    fetch("mp", tmp_path)
    assert [one.id for one in load("mp", tmp_path)] == [f"mp-{number}" for number in range(5)]


def test_the_package_that_asks_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mp_api", None)
    monkeypatch.setitem(sys.modules, "mp_api.client", None)
    with pytest.raises(MissingExtra, match=r"ase-crystalformer\[mp\]"):
        fetch("mp", tmp_path)
