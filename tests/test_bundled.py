"""The models that come with the package, held to what handbooks and DFT say of real crystals."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import all_properties
from ase.db import connect

from ase_crystalformer import CrystalformerCalculator, list_models, load_model, predict, relax
from ase_crystalformer.pretrained import ALIASES, WEIGHTS
from ase_crystalformer.training.config import read_recipe


@pytest.fixture(scope="module")
def table():
    crystals = {
        "NaCl": bulk("NaCl", "rocksalt", a=5.69),
        "Si": bulk("Si", "diamond", a=5.47),
        "C": bulk("C", "diamond", a=3.57),
        "Cu": bulk("Cu", "fcc", a=3.62),
        "Al": bulk("Al", "fcc", a=4.04),
        "Na": bulk("Na", "bcc", a=4.19),
    }
    found = predict(list(crystals.values()), progress=False)
    return found.set_axis(list(crystals))


@pytest.fixture(scope="module", params=["small", "accurate"])
def potential(request):
    return request.param


@pytest.fixture(scope="module")
def relaxed(potential):
    # Lattice constants of PBE, Å; each starts three per cent too large.
    known = {
        "NaCl": ("rocksalt", 5.69),
        "MgO": ("rocksalt", 4.25),
        "Si": ("diamond", 5.47),
        "Cu": ("fcc", 3.63),
        "Al": ("fcc", 4.04),
    }
    start = [bulk(name, kind, a=1.03 * a) for name, (kind, a) in known.items()]
    results = relax(start, model=potential, fmax=0.02, progress=False)
    return {name: (known[name][1], result) for name, result in zip(known, results, strict=True)}


def test_all_models_are_there_and_tell_their_origin():
    models = {info.name: info for info in list_models()}
    assert set(models) >= set(ALIASES.values())
    for info in models.values():
        assert info.licence
        assert info.summary
        assert info.data
        assert info.citations
        assert info.errors
        assert len(info.elements) > 60
        assert {"Si", "O", "Fe"} <= set(info.elements)
    assert set(models["crystalformer-properties"].units) >= {
        "formation_energy_per_atom",
        "band_gap",
        "bulk_modulus",
        "shear_modulus",
    }


def test_measured_errors_have_units_and_counts():
    for info in list_models():
        for measured in info.errors.values():
            assert measured["mae"] > 0
            assert measured["unit"]
            assert measured["n"] > 0


def test_models_are_small_and_read_without_a_network():
    for name in ALIASES:
        model = load_model(name)
        assert Path(f"{WEIGHTS / model.card.name}.safetensors").stat().st_size < 20e6
        json.dumps(model.card.training)


def test_every_structure_is_predicted(table):
    assert table["error"].isna().all()
    assert table.attrs["units"]["bulk_modulus"] == "GPa"


def test_rock_salt_forms(table):
    assert table.loc["NaCl", "formation_energy_per_atom"] == pytest.approx(-2.1, abs=0.15)


def test_elements_form_from_themselves(table):
    elements = table.loc[["Si", "Cu", "Al", "Na"], "formation_energy_per_atom"]
    assert (elements.abs() < 0.1).all()
    assert table.loc["C", "formation_energy_per_atom"] == pytest.approx(0.14, abs=0.1)  # PBE


def test_the_commands_of_the_cards_are_recipes():
    root = Path(__file__).parents[1]
    for name in ALIASES.values():
        told = json.loads((WEIGHTS / f"{name}.json").read_text())["card"]["training"]["command"]
        for command in told.split(" && "):
            program, verb, recipe, *rest = shlex.split(command)
            assert (program, verb) == ("crystalformer", "train")
            assert set(rest[::2]) <= {"--set"}
            read_recipe(root / recipe, rest[1::2])


def test_metals_have_no_gap_and_insulators_a_wide_one(table):
    assert (table.loc[["Cu", "Al", "Na"], "band_gap"] < 0.1).all()
    # Gaps of PBE, eV. Silicon is the worst of them: it is predicted at 1.2. README says so.
    known = {"Si": 0.61, "C": 4.11, "NaCl": 5.0}
    assert (table.loc[list(known), "band_gap"] - list(known.values())).abs().mean() < 0.4
    known = {"MgO": ("rocksalt", 4.25, 4.4), "AlAs": ("zincblende", 5.73, 1.5)}
    known |= {"KCl": ("rocksalt", 6.39, 5.1), "GaP": ("zincblende", 5.51, 1.6)}
    crystals = [bulk(name, kind, a=a) for name, (kind, a, _) in known.items()]
    found = predict(crystals, ["band_gap"], progress=False)["band_gap"]
    assert found.to_list() == pytest.approx([gap for *_, gap in known.values()], abs=0.4)


def test_diamond_is_the_hardest_and_sodium_the_softest(table):
    stiffness = table["bulk_modulus"]
    assert stiffness["C"] > stiffness["Cu"] > stiffness["NaCl"] > stiffness["Na"]
    assert stiffness["C"] > stiffness["Si"] > stiffness["Na"]


def test_lattice_constants_are_those_of_dft(relaxed):
    for name, (expected, result) in relaxed.items():
        assert result.converged, name
        cubic = {"NaCl": 4, "MgO": 4, "Si": 4, "Cu": 4, "Al": 4}[name]
        a = (cubic * result.atoms.get_volume()) ** (1 / 3)
        assert a == pytest.approx(expected, rel=0.02), name


def test_shaken_crystals_find_back(relaxed, potential):
    _, ideal = relaxed["MgO"]
    shaken = ideal.atoms.repeat(2)
    shaken.calc = None
    shaken.rattle(0.1, seed=0)
    found = relax(shaken, model=potential, fmax=0.02, progress=False)[0]
    assert found.converged
    assert found.energy / 16 == pytest.approx(ideal.energy / 2, abs=0.01)


@pytest.mark.filterwarnings("ignore::ase_crystalformer.errors.OutsideTraining")
def test_atoms_never_fuse(potential):
    calc = CrystalformerCalculator(potential)
    energies = []
    for scale in (1.0, 0.8, 0.65, 0.5):
        atoms = bulk("Si", "diamond", a=5.47 * scale)
        energies.append(calc.get_potential_energy(atoms))
    assert np.diff(energies).min() > 0


def test_the_default_calculator_keeps_the_contract_of_ase(tmp_path):
    atoms = bulk("MgO", "rocksalt", a=4.25)
    atoms.rattle(0.02, seed=0)
    atoms.calc = CrystalformerCalculator()
    assert atoms.get_forces().any()
    gap = atoms.calc.get_property("band_gap", atoms)
    assert gap > 1
    assert set(atoms.calc.results) <= set(all_properties)
    with connect(tmp_path / "crystals.db") as database:
        row = database.get(database.write(atoms))
    assert row.calculator_parameters["model"] == "default"
    assert row.calculator_parameters["sha256"] == list_models_digest("crystalformer-potential")


def test_the_default_is_the_small_one():
    assert ALIASES["default"] == ALIASES["small"] != ALIASES["accurate"]


def list_models_digest(name):
    return next(info.sha256 for info in list_models() if info.name == name)
