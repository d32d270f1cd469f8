"""Candidates are held against the phases a user knows, in every form they come in."""

import json

import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from candidates import write_models
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry

from ase_crystalformer.errors import BadRecipe, BadStructure
from ase_crystalformer.screening import screen
from ase_crystalformer.screening.references import (
    hold_against,
    holds_energies,
    hull_note,
    read_references,
)
from ase_crystalformer.screening.settings import digest
from ase_crystalformer.screening.store import Store
from ase_crystalformer.stability import write_entries

#: eV/atom. Half way between Na and Cl lies NaCl; NaCl3 is 0.1 eV/atom above the line to it.
PHASES = {"Na": -1.0, "Cl": -2.0, "NaCl": -4.0}


def entry(formula, per_atom):
    composition = Composition(formula)
    return ComputedEntry(composition, per_atom * composition.num_atoms)


def held(known, formula, per_atom):
    system = "-".join(sorted(Composition(formula).get_el_amt_dict()))
    (found,) = hold_against(known, [(7, system)], lambda _: entry(formula, per_atom))
    assert found[0] == 7
    return found[1]


@pytest.fixture
def known():
    return [entry(formula, energy) for formula, energy in PHASES.items()]


def test_energies_above_the_hull_are_those_of_the_lever(known):
    told = held(known, "NaCl3", -2.9).told  # between NaCl and Cl: (−4 − 2)/2 = −3
    assert told["e_above_hull"] == pytest.approx(0.1)
    assert told["hull_formation_energy_per_atom"] == pytest.approx(-2.9 - (-1.0 - 3 * 2.0) / 4)
    assert set(told["decomposes_to"].split(" + ")) == {"0.5 NaCl", "0.5 Cl2"}


def test_below_the_hull_is_negative(known):
    assert held(known, "NaCl", -4.2).told["e_above_hull"] == pytest.approx(-0.2)


def test_a_missing_element_is_named(known):
    failed = held(known, "KCl", -4.0)
    assert failed.outcome == "failed"
    assert "no pure K" in failed.told["reason"]


@pytest.mark.parametrize("column", ["energy_per_atom", "energy"])
def test_tables_tell_energies_per_atom_or_of_the_formula(tmp_path, column, known):
    path = tmp_path / "phases.csv"
    counts = {"Na": 1, "Cl": 1, "NaCl": 2} if column == "energy" else dict.fromkeys(PHASES, 1)
    rows = [f"{formula},{energy * counts[formula]}" for formula, energy in PHASES.items()]
    path.write_text("\n".join([f"formula,{column}", *rows]), encoding="utf-8")
    found = read_references(path, corrected=True)
    assert [one.energy_per_atom for one in found] == [one.energy_per_atom for one in known]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("phase,energy\nNa,1", "has the columns phase, energy"),
        ("formula,energy\nNa,", "'Na': there is no energy"),
        ("formula,energy\n12,1", "'12'"),
        ("formula,energy\nNa,low", "'Na'"),
    ],
)
def test_wrong_tables_are_told(tmp_path, text, told):
    path = tmp_path / "phases.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadStructure, match=told):
        read_references(path, corrected=True)


def test_a_screening_takes_tables_entries_and_structures(tmp_path, known, rocksalt):
    models = write_models(tmp_path)
    write(tmp_path / "salt.extxyz", rocksalt)
    write_entries(tmp_path / "phases.json", known)
    (tmp_path / "phases.csv").write_text(
        "formula,energy_per_atom\n" + "\n".join(f"{k},{v}" for k, v in PHASES.items())
    )
    (tmp_path / "phases").mkdir()
    chlorine = Atoms("Cl2", [[0, 0, 0], [0, 0, 2.0]], cell=[5, 5, 6], pbc=True)
    write(tmp_path / "phases" / "a.extxyz", [bulk("Na"), chlorine, rocksalt, bulk("W")])
    options = {**models, "steps": 3, "top": 0, "progress": False}
    with pytest.raises(BadRecipe, match="no such file or folder of known phases"):
        screen(tmp_path / "salt.extxyz", tmp_path / "out", **options, hull="nowhere")
    above = {}
    for name in ("phases.json", "phases.csv", "phases"):
        where = "e_above_hull < 100"
        found = screen(
            tmp_path / "salt.extxyz", tmp_path / "out", **options, hull=tmp_path / name, where=where
        )
        above[name] = found.selected["e_above_hull"][0]
        assert found.counts["hull"]["passed"] == 1
    assert above["phases.json"] == pytest.approx(above["phases.csv"])
    # The same structure, relaxed by the same potential, is on the hull or above other phases.
    assert above["phases"] >= -1e-6
    assert [(stage, name[-3:]) for stage, name, _ in found.failures] == [("phases", "z#3")]
    settings = json.loads((tmp_path / "potential.json").read_text())
    assert settings["energy_scale"] == "mp"


def test_what_fails_under_one_hull_is_no_failure_under_another(tmp_path, known, rocksalt):
    write(tmp_path / "salt.extxyz", rocksalt)
    write_entries(tmp_path / "whole.json", known)
    write_entries(tmp_path / "part.json", [one for one in known if one.name != "Na"])
    options = {**write_models(tmp_path), "steps": 1, "top": 0, "progress": False}
    failures = [
        screen(
            tmp_path / "salt.extxyz", tmp_path / "out", **options, hull=tmp_path / f"{name}.json"
        ).failures
        for name in ("part", "whole", "part")
    ]
    assert [len(one) for one in failures] == [1, 0, 1]
    assert failures[0] == failures[2]


def test_alloys_hold_a_hull_up_whatever_candidates_must_be(tmp_path, rocksalt):
    """Charges of NaCl2 cannot balance; as a known phase it stays."""
    models = write_models(tmp_path)
    write(tmp_path / "salt.extxyz", rocksalt)
    odd = Atoms("NaCl2", [[0, 0, 0], [0, 0, 2.6], [0, 2.6, 0]], cell=[5.2] * 3, pbc=True)
    write(tmp_path / "phases.extxyz", [bulk("Na"), bulk("Cl", "fcc", a=4.6), odd])
    options = {**models, "steps": 1, "top": 0, "progress": False, "balanced": True}
    out = tmp_path / "out"
    screen(tmp_path / "salt.extxyz", out, **options, hull=tmp_path / "phases.extxyz")
    with Store.open(out / "screening.db") as store:
        assert store.numbers(f"relaxed {digest([tmp_path / 'phases.extxyz'])}") == [0, 1, 2]


def test_a_hull_without_compounds_is_not_trusted(known):
    """Half way between Na and Cl the elements are at -1.5 eV/atom."""

    def note(phases, formula, energy):
        told = held(phases, formula, energy).told
        return hull_note(formula, told["e_above_hull"], told["decomposes_to"])

    elements = known[:2]
    assert held(elements, "NaCl", -4.0).told["e_above_hull"] == pytest.approx(-2.5)
    told = note(elements, "NaCl", -4.0)
    assert told.startswith("The hull knows no stable compound of Cl-Na: e_above_hull")
    assert note(elements, "NaCl", -1.55) is None, "alloys are shallow"
    assert note(elements, "Na", -2.0) is None, "an element is no compound"
    assert note(known, "NaCl", -4.2) is None, "there is a compound"


def test_what_is_not_trusted_is_counted_and_can_be_left_out(tmp_path, known):
    salts = [bulk("NaCl", "rocksalt", a=5.64), bulk("Na")]
    write(tmp_path / "salts.extxyz", salts)
    write_entries(tmp_path / "phases.json", [entry("Na", 9.0), entry("Cl", 9.0)])
    options = {**write_models(tmp_path), "steps": 1, "top": 0, "progress": False}
    options["hull"] = tmp_path / "phases.json"
    found = screen(tmp_path / "salts.extxyz", tmp_path / "out", **options)
    notes = dict(zip(found.selected["formula"], found.selected["hull_note"].notna(), strict=True))
    assert notes == {"NaCl": True, "Na": False}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "For 1 of the candidates, 1 of them selected, the hull knows no stable compound" in page
    found = screen(tmp_path / "salts.extxyz", tmp_path / "out", **options, where="hull_note.isna()")
    assert found.selected["formula"].tolist() == ["Na"]


def test_energies_are_found_anywhere_at_the_beginning_of_a_file(tmp_path):
    path = tmp_path / "known.json"
    for word in ("energy", "correction"):
        path.write_text(json.dumps([{"composition": {"Na": 1}, "note": "x" * 50_000, word: -1.0}]))
        assert holds_energies(path)
    path.write_text(json.dumps([{"lattice": {}, "sites": []}]))
    assert not holds_energies(path)
