"""Corrected energies meet the laboratory, and hulls are the lowest lines beneath them."""

import json

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import read
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry
from pymatgen.io.vasp.sets import MPRelaxSet
from small_runs import SAMPLES

from ase_crystalformer import ConvexHull, corrected_entry
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.errors import BadStructure
from ase_crystalformer.stability import read_entries, write_entries
from ase_crystalformer.stability.known_phases import Phase, write_known_phases
from ase_crystalformer.stability.survey import stable_phases

LI_MN_O = SAMPLES.parents[1] / "workflows" / "li_mn_o" / "crystals.extxyz.gz"

#: Enthalpies of formation at 298 K, kJ per mole of formula units: CRC Handbook of Chemistry and
#: Physics, 97th edition, section 5.
MEASURED = {"MnO": -385.2, "MnO2": -520.0, "Mn2O3": -959.0, "Mn3O4": -1387.8, "Li2O": -597.9}
LABELS = ("energy_per_atom", "formation_energy_per_atom")
KJ_PER_MOL = 0.0103642697  # eV


def labelled(symbols):
    """Crystals of these elements, smallest first."""
    found = [atoms for atoms in read(LI_MN_O, ":") if set(atoms.symbols) <= symbols]
    return sorted(found, key=len)


def entry_of(atoms, **options):
    energy = atoms.info["energy_per_atom"] * len(atoms)
    return corrected_entry(atoms, energy, name=atoms.info["material_id"], **options)


@pytest.fixture(scope="module")
def oxides():
    """Manganese, lithium, oxygen and their binary oxides."""
    return labelled({"Mn", "O"}) + [
        atoms for atoms in labelled({"Li", "O"}) if "Li" in atoms.symbols
    ]


@pytest.fixture(scope="module")
def hull(oxides):
    return ConvexHull(entry_of(atoms) for atoms in oxides)


def lowest(hull, formula):
    same = [entry for entry in hull.entries if entry.reduced_formula == formula]
    return min(hull.formation_energy(entry) for entry in same)


def measured(formula):
    atoms = ComputedEntry(formula, 0.0).composition.num_atoms
    return MEASURED[formula] * KJ_PER_MOL / atoms


def test_formation_energies_of_oxides_are_those_measured(hull, oxides):
    off = [lowest(hull, formula) - measured(formula) for formula in MEASURED]
    assert np.abs(off).max() < 0.1
    raw = ConvexHull(entry_of(atoms, corrected=False) for atoms in oxides)
    off = [lowest(raw, formula) - measured(formula) for formula in MEASURED]
    assert min(off) > 0.2


def test_oxygen_is_told_by_its_neighbours():
    (peroxide,) = (
        atoms for atoms in labelled({"Li", "O"}) if atoms.info["material_id"] == "mp-841"
    )
    names = [adjustment.name for adjustment in entry_of(peroxide).energy_adjustments]
    assert names == ["MP2020 anion correction (peroxide)"]


@pytest.mark.parametrize(
    "formula", ["FeO", "FeF", "FeS", "CoN", "WO", "VF", "LaO", "TiO", "Fe", "XeF"]
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of settings that play no role here
def test_energies_stand_for_the_run_that_materials_project_makes(formula):
    if formula == "Fe":
        structure = Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]])
    else:
        species = ComputedEntry(formula, 0.0).composition.elements
        structure = Structure(Lattice.cubic(4.2), species, [[0, 0, 0], [0.5, 0.5, 0.5]])
    entry = corrected_entry(structure, -1.0, corrected=False)
    theirs = MPRelaxSet(structure)
    expected = dict(zip(theirs.poscar.site_symbols, theirs.incar.get("LDAUU", []), strict=False))
    used = {symbol: value for symbol, value in expected.items() if value}
    assert entry.parameters["hubbards"] == used
    assert entry.parameters["run_type"] == ("GGA+U" if used else "GGA")
    symbols = {text.split()[1] for text in entry.parameters["potcar_symbols"]}
    assert symbols == set(theirs.potcar_symbols)


def test_energies_with_corrections_stay_as_they_are():
    entry = corrected_entry(bulk("MnO", "rocksalt", a=4.4), -15.0, corrected=False)
    assert entry.energy == entry.uncorrected_energy == -15.0
    corrected = corrected_entry(bulk("MnO", "rocksalt", a=4.4), -15.0)
    assert corrected.uncorrected_energy == -15.0
    # -0.687 per oxygen of an oxide and -1.668 per manganese with U (Wang et al. 2021, table 1).
    assert corrected.energy == pytest.approx(-15.0 - 0.687 - 1.668, abs=1e-6)


@pytest.fixture
def line():
    """A binary: A at 0, B at 0, AB at -1, A3B at -0.2 and AB3 at -0.7 eV/atom."""
    energies = {"Na": 0, "Cl": 0, "NaCl": -1.0, "Na3Cl": -0.2, "NaCl3": -0.7}
    return ConvexHull(per_atom(formula, energy) for formula, energy in energies.items())


def per_atom(formula, energy):
    entry = ComputedEntry(formula, 0.0)
    return ComputedEntry(formula, energy * entry.composition.num_atoms)


def test_distances_are_those_drawn_by_hand(line):
    assert [line.above(entry) for entry in line.entries] == pytest.approx([0, 0, 0, 0.3, 0])
    assert line.above(per_atom("NaCl", -1.25)) == pytest.approx(-0.25)
    assert line.above(per_atom("Na2Cl", -0.5)) == pytest.approx(2 / 3 - 0.5)
    assert line.formation_energy(per_atom("Na2Cl", -0.5)) == pytest.approx(-0.5)


def test_what_is_not_stable_falls_apart_into_what_is(line):
    assert line.decomposition(per_atom("Na3Cl", -0.2)) == pytest.approx({"Na": 0.5, "NaCl": 0.5})
    assert line.decomposition(per_atom("NaCl", 0.0)) == pytest.approx({"NaCl": 1.0})


def test_an_element_that_is_not_there_is_named(line):
    with pytest.raises(BadStructure, match="no pure K"):
        line.above(per_atom("KCl", -1.0))


@pytest.mark.parametrize(
    ("structure", "energy", "told"),
    [
        (bulk("Cu"), np.nan, "energy is nan"),
        (molecule("H2O"), -14.0, "no crystal"),
        (bulk("Po", "sc", a=3.3), -3.0, "no PBE calculations of Po"),
    ],
)
def test_what_has_no_place_in_a_diagram_is_refused(structure, energy, told):
    with pytest.raises(BadStructure, match=told):
        corrected_entry(structure, energy)


def test_a_structure_is_no_entry_and_says_how_to_make_one(line):
    for structure in (bulk("Cu"), Structure(Lattice.cubic(3), ["Cu"], [[0, 0, 0]])):
        for asked in (line.above, line.decomposition, line.formation_energy):
            with pytest.raises(BadStructure, match=r"corrected_entry\(atoms, energy\)"):
                asked(structure)
        with pytest.raises(BadStructure, match=r"corrected_entry\(atoms, energy\)"):
            ConvexHull([structure])


def test_the_phases_of_the_package_are_an_option_and_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadStructure, match=r"no file 'known'.*known_phases=True"):
        ConvexHull("known")
    write_entries("known", [per_atom("Na", -1.0)])
    assert len(ConvexHull("known").entries) == 1


def test_entries_come_back_from_files(hull, tmp_path):
    path = tmp_path / "entries.json"
    write_entries(path, hull.entries)
    back = ConvexHull(path)
    assert [entry.entry_id for entry in back.entries] == [e.entry_id for e in hull.entries]
    np.testing.assert_allclose([e.energy for e in back.entries], [e.energy for e in hull.entries])
    assert json.loads(path.read_text())[0]["structure"]
    assert not list(tmp_path.glob(".partial*"))


def test_runs_that_do_not_belong_to_the_scheme_are_left_out(tmp_path):
    good = corrected_entry(bulk("MnO", "rocksalt", a=4.4), -15.0)
    bad = corrected_entry(bulk("MnO", "rocksalt", a=4.4), -18.0, corrected=False)
    bad.parameters |= {"run_type": "GGA", "hubbards": {}}
    plain = ComputedEntry("NaCl", -6.8)
    vague = ComputedEntry("MnO", -18.0, parameters={"run_type": "GGA+U"})
    write_entries(tmp_path / "mixed.json", [good, bad, plain, vague])
    assert [e.energy for e in read_entries(tmp_path / "mixed.json")] == [good.energy, -6.8]
    assert len(read_entries(tmp_path / "mixed.json", corrected=False)) == 4
    write_entries(tmp_path / "none.json", [bad])
    with pytest.raises(BadStructure, match="no entry that can be used"):
        read_entries(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["", "3", '{"a": 1}', '[{"a": 1}]', "[4]"])
def test_a_file_that_holds_no_entries_is_refused(text, tmp_path):
    (tmp_path / "entries.json").write_text(text)
    with pytest.raises(BadStructure, match=r"entries\.json is no JSON list of pymatgen entries"):
        read_entries(tmp_path / "entries.json")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadStructure, match="absent"):
        read_entries(tmp_path / "absent.json")


# ------------------------------------------------------------------------------ survey


def test_the_table_is_what_the_survey_finds(oxides, tmp_path):
    crystals = [
        LabelledCrystal(
            species=atoms.numbers,
            positions=atoms.positions,
            cell=atoms.cell.array,
            periodic=atoms.pbc,
            labels={key: atoms.info[key] for key in LABELS if key in atoms.info},
            id=atoms.info["material_id"],
            source="test",
            group="mp",
        )
        for atoms in oxides
    ]
    found = stable_phases(crystals)
    assert {phase.formula for phase in found} == {
        *["Li", "Mn", "O2", "Li2O", "Li2O2", "MnO", "MnO2", "Mn2O3", "Mn3O4"]
    }
    path = tmp_path / "phases.csv.gz"
    write_known_phases(path, found)
    before = path.read_bytes()
    write_known_phases(path, reversed(found))
    assert path.read_bytes() == before


def test_a_missing_ground_state_of_an_element_is_told_by_its_formation_energy(fcc):
    crystal = LabelledCrystal(
        species=fcc.numbers,
        positions=fcc.positions,
        cell=fcc.cell.array,
        periodic=fcc.pbc,
        labels={"energy_per_atom": -4.0, "formation_energy_per_atom": 0.1},
        id="mp-0",
        source="test",
        group="mp",
    )
    assert stable_phases([crystal]) == [Phase("Cu", pytest.approx(-4.1), "mp-0")]
