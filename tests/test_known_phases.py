"""The phases of the package: hulls of them are pymatgen's; what is computed is corrected first."""

from importlib.resources import files

import pandas as pd
import pytest
from ase.build import bulk
from ase.io import write
from ase.io.jsonio import decode
from candidates import write_models
from factories import CONFIG
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry

from ase_crystalformer import ConvexHull, corrected_entry
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.errors import BadRecipe, BadStructure
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.screening import screen
from ase_crystalformer.screening.store import Store
from ase_crystalformer.stability.known_phases import FILE, known_phases
from ase_crystalformer.stability.survey import trusted

DATA = files("ase_crystalformer.data")

#: Enthalpies of formation at 298 K, kJ per mole of formula units: CRC Handbook of Chemistry and
#: Physics, 97th edition, section 5.
MEASURED = {"NaCl": -411.2, "MgO": -601.6, "Al2O3": -1675.7, "ZnS": -206.0, "Fe2O3": -824.2}
KJ_PER_MOL = 0.0103642697  # eV


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(DATA / FILE, comment="#", keep_default_na=False)


@pytest.fixture(scope="module")
def hull():
    return ConvexHull(known_phases=True)


def entry(formula, per_atom):
    composition = Composition(formula)
    return ComputedEntry(composition, per_atom * composition.num_atoms)


def test_the_table_is_small_and_says_where_it_is_from(table):
    assert (DATA / FILE).stat().st_size < 600_000
    told = (DATA / "known_phases.md").read_text(encoding="utf-8")
    assert "CC-BY-4.0" in told
    assert f"{len(table):,} phases" in told
    assert len(table) > 10_000
    assert not table["formula"].duplicated().any()
    assert table["id"].str.match(r"mp-\d+$").all()


@pytest.mark.parametrize("elements", ["Li Fe O", "Na Cl S", "Al Ni Ti"])
def test_hulls_are_those_that_pymatgen_builds_of_the_table(table, hull, elements):
    wanted = set(elements.split())
    phases = [(Composition(row.formula), row.energy_per_atom) for row in table.itertuples()]
    rows = [
        PDEntry(composition, energy * composition.num_atoms)
        for composition, energy in phases
        if composition.chemical_system_set <= wanted
    ]
    diagram = PhaseDiagram(rows)
    a, b, c = elements.split()
    for formula in (f"{a}{b}{c}2", f"{a}5{b}2{c}7", f"{b}3{c}", f"{a}{b}"):
        made = entry(formula, -4.321)
        expected = diagram.get_e_above_hull(
            PDEntry(made.composition, made.energy), allow_negative=True
        )
        assert hull.above(made) == pytest.approx(expected, abs=1e-9)
        formation = diagram.get_form_energy_per_atom(PDEntry(made.composition, made.energy))
        assert hull.formation_energy(made) == pytest.approx(formation, abs=1e-9)


def test_all_that_is_in_the_table_is_stable(table, hull, rng):
    """To the 0.0001 eV/atom that it is written with."""
    small = table[table["formula"].str.count("[A-Z]") <= 3]
    for row in small.iloc[rng.choice(len(small), 25, replace=False)].itertuples():
        assert hull.above(entry(row.formula, row.energy_per_atom)) < 2e-4, row.formula


def test_a_formula_that_is_not_there_falls_apart_into_what_is(table, hull):
    assert "Li7Fe3O11" not in set(table["formula"])
    shares = hull.decomposition(entry("Li7Fe3O11", -5.0))
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) <= set(table["formula"])
    parts = [Composition(name).fractional_composition * share for name, share in shares.items()]
    atoms = sum(parts, Composition())
    assert atoms.almost_equals(Composition("Li7Fe3O11").fractional_composition, rtol=1e-6)


def test_an_element_that_is_not_there_is_named(hull):
    with pytest.raises(BadStructure, match="no pure Po"):
        hull.above(entry("PbPo", -4.0))


@pytest.mark.parametrize("formula", MEASURED)
def test_formation_energies_are_those_measured(table, hull, formula):
    energy = table.set_index("formula").loc[formula, "energy_per_atom"]
    found = hull.formation_energy(entry(formula, energy))
    expected = MEASURED[formula] * KJ_PER_MOL / Composition(formula).num_atoms
    assert found == pytest.approx(expected, abs=0.1)


def test_systems_are_found_by_all_their_elements(table):
    phases = known_phases()
    assert sum(map(len, phases.values())) == len(table)
    formulas = {phase.formula for phase in phases[frozenset({"Na", "Cl"})]}
    assert formulas == {"NaCl"}


@pytest.fixture
def screened(tmp_path):
    """Run a screening of two oxides, one with a U, against the known phases."""
    models = write_models(tmp_path)
    oxides = [bulk("MnO", "rocksalt", a=4.4), bulk("MgO", "rocksalt", a=4.2)]
    write(tmp_path / "oxides.extxyz", oxides)

    def run(**changes):
        options = {**models, "steps": 1, "top": 0, "progress": False, "hull": "known"} | changes
        return screen(tmp_path / "oxides.extxyz", tmp_path / "out", **options)

    return run


def test_a_file_called_known_is_another_hull(screened, tmp_path, monkeypatch):
    (tmp_path / "known").write_text("formula,energy_per_atom\n")
    monkeypatch.chdir(tmp_path)
    assert screened().counts["hull"]["passed"] == 2
    assert screened(hull="./known").counts["hull"]["failed"] == 2


def test_energies_of_a_potential_are_corrected_before_they_are_held_against_it(screened, hull):
    found = screened()
    assert found.counts["hull"]["passed"] == 2
    above = dict(zip(found.selected["formula"], found.selected["e_above_hull"], strict=True))
    with Store.open(found.folder / "screening.db") as store:
        energies = dict(store.told("relax", "energy"))
        for number, energy in energies.items():
            atoms = decode(store.atoms("relax", number))
            made = corrected_entry(atoms, energy)
            formula = made.reduced_formula
            assert above[formula] == pytest.approx(hull.above(made), abs=1e-9)
            raw = corrected_entry(atoms, energy, corrected=False)
            # -0.687 per oxygen and -1.668 per manganese (Wang et al. 2021), two atoms.
            shift = {"MnO": (0.687 + 1.668) / 2, "MgO": 0.687 / 2}[formula]
            assert hull.above(raw) - above[formula] == pytest.approx(shift, abs=1e-6)
            assert made.parameters["run_type"] == ("GGA+U" if formula == "MnO" else "GGA")
    assert "MEGNet&#x27;s release of 2018" in (found.folder / "report.html").read_text()


def test_other_scales_are_refused(screened, tmp_path):
    model = CrystalModel.load(tmp_path / "potential")
    other = CrystalModel("crystalformer", CONFIG, energy_scale="mine", card=model.card)
    other.save(tmp_path / "other")
    with pytest.raises(BadRecipe, match="stand on Materials Project's scale"):
        screened(model=str(tmp_path / "other"))


def test_energies_that_contradict_formation_energies_are_not_trusted():
    """An alloy as it is, and as calculations that failed."""
    alloy = bulk("NiAl", "cesiumchloride", a=2.89)

    def row(atoms, energy, formation, name):
        labels = {"energy_per_atom": energy, "formation_energy_per_atom": formation}
        return LabelledCrystal(
            species=atoms.numbers,
            positions=atoms.positions,
            cell=atoms.cell.array,
            periodic=atoms.pbc,
            labels=labels,
            id=name,
            source="test",
            group="mp",
        )

    pure = [row(bulk("Ni"), -5.57, 0.0, "Ni"), row(bulk("Al"), -3.74, 0.0, "Al")]
    good = row(alloy, -5.32, -0.66, "good")  # -5.32 + (5.57 + 3.74) / 2 = -0.665
    rows = [*pure, good, row(alloy, -7.0, -0.66, "low"), row(alloy, 20.0, -0.66, "high")]
    assert [one.id for one in trusted(rows)] == ["Ni", "Al", "good"]
    unlabelled = good.labelled({"energy_per_atom": -5.32})
    assert [one.id for one in trusted([*pure, unlabelled])] == ["Ni", "Al"]
