"""The crystals of the demo are what their reference values say."""

import ast
import json
import re
from pathlib import Path

import ase.io
import pytest
from pymatgen.core import Structure

FOLDER = Path(__file__).parents[1] / "workflows" / "demo_structures"
REFERENCES = json.loads((FOLDER / "references.json").read_text(encoding="utf-8"))
CRYSTALS = {crystal["file"]: crystal for crystal in REFERENCES["crystals"]}


def test_every_file_has_its_line():
    assert {path.name for path in FOLDER.glob("*.cif")} == set(CRYSTALS)


def test_what_the_help_of_a_workflow_names_is_there():
    programs = FOLDER.parent.glob("*.py")
    helps = [ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in programs]
    named = re.findall(r"workflows/demo_structures/[\w.]+", "\n".join(filter(None, helps)))
    assert len(named) >= 5
    assert not [path for path in named if not (FOLDER.parents[1] / path).is_file()]


def test_every_kind_of_crystal_is_there():
    kinds = {crystal["kind"] for crystal in CRYSTALS.values()}
    assert kinds == {"oxide", "halide", "semiconductor", "intermetallic", "perovskite", "slab"}


@pytest.mark.parametrize("name", [name for name in CRYSTALS if CRYSTALS[name]["kind"] != "slab"])
def test_volume_is_that_of_the_reference(name):
    crystal = ase.io.read(FOLDER / name)
    expected = CRYSTALS[name]["volume_per_atom"]
    assert crystal.get_volume() / len(crystal) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", CRYSTALS)
def test_ase_and_pymatgen_read_the_same_crystal(name):
    by_ase, by_pymatgen = ase.io.read(FOLDER / name), Structure.from_file(FOLDER / name)
    assert sorted(by_ase.numbers) == sorted(by_pymatgen.atomic_numbers)
    assert by_ase.get_volume() == pytest.approx(by_pymatgen.volume)


def test_the_slab_has_vacuum():
    slab = ase.io.read(FOLDER / "BaO_surface.cif")
    height = slab.positions[:, 2]
    assert slab.cell.cellpar()[2] - (height.max() - height.min()) == pytest.approx(12.0)


def test_every_value_has_a_unit():
    values = {key for crystal in CRYSTALS.values() for key, value in crystal.items() if value}
    described = {"file", "name", "kind", "material_id", "split"}
    assert values - described == set(REFERENCES["units"])
