"""Frames near rest: labels counted from where DFT says the crystal rests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.near_rest import AMOUNTS, LARGEST, near_rest, parents
from ase_crystalformer.data.perturbations import perturbed
from ase_crystalformer.data.potential import potential
from ase_crystalformer.data.properties import reserved_ids
from ase_crystalformer.data.readers import load
from ase_crystalformer.errors import BadRecipe, UnknownName
from ase_crystalformer.training import near_rest_labels

SAMPLES = Path(__file__).parent / "samples"


def labelled(frame: Atoms) -> LabelledCrystal:
    """What EMT says of a frame."""
    frame.calc = EMT()
    return LabelledCrystal(
        species=frame.numbers,
        positions=frame.positions,
        cell=frame.cell.array,
        periodic=frame.pbc,
        labels={
            "energy": frame.get_potential_energy(),
            "forces": frame.get_forces(),
            "stress": frame.get_stress(voigt=False),
        },
        id=frame.info["id"],
        source="test",
        group="mp",
        info={key: frame.info[key] for key in ("parent", "kind")},
    )


@pytest.fixture(scope="module")
def copper():
    """Copper too large for EMT, as if DFT had found it there; one atom is off its place."""
    atoms = bulk("Cu", a=3.62, cubic=True)
    atoms.positions[0, 0] += 0.005
    return [labelled(frame) for frame in perturbed(atoms, "copper", AMOUNTS)]


def test_forces_are_counted_from_rest(copper):
    rest, *moved = copper
    assert np.abs(rest.labels["stress"]).max() > 1e-2  # the teacher rests elsewhere
    found = list(near_rest(copper, {"copper": -4.0}))
    assert [row.id for row in found] == [row.id for row in moved]
    for row, frame in zip(found, moved, strict=True):
        np.testing.assert_allclose(
            row.labels["forces"] + rest.labels["forces"], frame.labels["forces"]
        )
        assert row.split == "train"


def test_forces_and_stress_are_slopes_of_the_energy(copper):
    """By finite differences; the frame is moved, strained and sheared."""
    rest, step = copper[0], 1e-4

    def label(name, strain=0.0, shift=0.0):
        cell = copper[-1].cell @ (np.eye(3) + strain)
        positions = copper[-1].positions @ (np.eye(3) + strain) + shift
        atoms = Atoms(rest.species, positions, cell=cell, pbc=True)
        atoms.info = {"id": "moved", **copper[-1].info}
        [row] = near_rest([rest, labelled(atoms)], {"copper": -4.0})
        return row.labels[name]

    def slope(name, way):
        return (label("energy", **{name: step * way}) - label("energy", **{name: -step * way})) / (
            2 * step
        )

    for one, other in ((0, 0), (1, 1), (0, 2), (1, 2)):
        strain = np.zeros((3, 3))
        strain[one, other] += 0.5
        strain[other, one] += 0.5
        expected = slope("strain", strain) / copper[-1].volume
        assert label("stress")[one, other] == pytest.approx(expected, abs=1e-7)
    shift = np.zeros_like(rest.positions)
    shift[1, 2] = 1.0
    assert label("forces")[1, 2] == pytest.approx(-slope("shift", shift), abs=1e-6)


def test_energies_rise_from_dft_as_forces_and_stress_say(copper):
    """Half of the last stress times the strain, less half of the last forces times the way."""
    rest = copper[0]
    for row in near_rest(copper, {"copper": -4.0}):
        change = np.linalg.solve(rest.cell, row.cell)
        moved = row.positions - rest.positions @ change
        work = row.volume * np.sum(row.labels["stress"] * (change - np.eye(3)))
        expected = (work - np.sum(row.labels["forces"] * moved)) / 2
        rise = row.labels["energy"] + 4.0 * row.atoms
        assert rise == pytest.approx(expected, rel=0.15, abs=2e-4)
        assert rise > 0


def test_no_frame_of_a_crystal_without_an_energy_or_that_the_teacher_does_not_know(copper):
    rest, *moved = copper
    assert not list(near_rest(copper, {}))
    torn = replace(rest, labels=rest.labels | {"stress": np.full((3, 3), 0.1)})
    assert not list(near_rest([torn, *moved], {"copper": -4.0}))
    assert not list(near_rest(moved, {"copper": -4.0}))


def test_parents_are_trained_on_and_tested_on_nowhere():
    found = parents(SAMPLES)
    assert len(found) > 3
    assert all(row.split == "train" and row.atoms <= LARGEST for row in found)
    assert not {row.id for row in found} & reserved_ids(SAMPLES)
    for name in ("elasticity", "phonon_heat_capacity"):
        assert not {row.id for row in found} & {row.id for row in load(name, SAMPLES)}
    assert [row.id for row in found] == [row.id for row in parents(SAMPLES)]


def test_the_mixture_has_them():
    rows = [row for row in potential(SAMPLES) if row.source == "mp_near_rest"]
    known = {row.id for row in parents(SAMPLES)}
    assert len(rows) > 3
    assert {row.info["parent"] for row in rows} <= known
    assert {row.split for row in rows} == {"train"}


def test_any_calculator_labels_the_set(tmp_path, monkeypatch):
    monkeypatch.setattr(near_rest_labels, "parents", lambda _: parents(SAMPLES)[:2])
    path = tmp_path / "mp_near_rest.extxyz"
    near_rest_labels.main(SAMPLES, "ase.calculators.lj:LennardJones", path)
    kinds = [atoms.info["kind"] for atoms in read(path, ":")]
    assert len(kinds) == 2 * (AMOUNTS.frames + 1)
    assert [number for number, kind in enumerate(kinds) if kind == "rest"] == [0, 4]
    with pytest.raises(BadRecipe, match=r"not begun by ase.calculators.emt:EMT"):
        near_rest_labels.main(SAMPLES, "ase.calculators.emt:EMT", path)
    for wrong in ("emt", "nowhere:Nobody", "ase.calculators.emt:Nobody"):
        with pytest.raises(UnknownName, match="module:factory"):
            near_rest_labels.main(SAMPLES, wrong, path)
