"""What a calibrated potential says of its errors, and who hears it."""

import copy
import json
import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from factories import calibrated_potential, tiny_potential
from scipy.spatial.transform import Rotation

from ase_crystalformer import (
    CrystalformerCalculator,
    load_model,
    predict,
    relax,
)
from ase_crystalformer.encoders.crystalformer import Crystalformer
from ase_crystalformer.errors import OutsideTraining, UnseenElement
from ase_crystalformer.pretrained import describe
from ase_crystalformer.uncertainty import UncertaintyHead

KEYS = {"energy_uncertainty", "forces_uncertainty", "novelty"}


@pytest.fixture
def model():
    return calibrated_potential().double()


def calculator(model, **options):
    return CrystalformerCalculator(model, property_model=None, dtype="float64", **options)


def strange_potential():
    """One to which everything is new."""
    model = calibrated_potential()
    model.uncertainty.limit.fill_(0.1)
    return model


def told(model, atoms):
    """Uncertainties alone."""
    [found] = model.predict([atoms])
    return {key: found[key] for key in KEYS}


# ------------------------------------------------------------------ laws


def test_a_larger_cell_errs_as_often_as_it_repeats(model, wurtzite):
    small, large = told(model, wurtzite), told(model, wurtzite.repeat((2, 1, 3)))
    assert large["energy_uncertainty"] == pytest.approx(6 * small["energy_uncertainty"], rel=1e-9)
    for key in ("forces_uncertainty", "novelty"):
        np.testing.assert_allclose(large[key], np.tile(small[key], 6), rtol=1e-9)


def test_turned_and_renumbered_crystals_err_alike(model, wurtzite):
    turned = wurtzite.copy()
    turn = Rotation.random(random_state=0).as_matrix()
    turned.set_cell(turned.cell @ turn.T, scale_atoms=True)
    order = [2, 0, 3, 1]
    before, after = told(model, wurtzite), told(model, turned[order])
    assert after["energy_uncertainty"] == pytest.approx(before["energy_uncertainty"], rel=1e-9)
    for key in ("forces_uncertainty", "novelty"):
        np.testing.assert_allclose(after[key], before[key][order], rtol=1e-9)


def test_unlike_atoms_err_independently_and_like_ones_together():
    head = UncertaintyHead(4)
    head.energy = torch.nn.Identity()  # features are directions
    unlike = torch.tensor([[3.0, 0, 0, 0], [0, 4.0, 0, 0]])
    like = unlike[[0, 0]]
    expected = [
        float(head.expected_energy(x, torch.zeros(2), lambda v: v.sum(0, keepdim=True)))
        for x in (unlike, like)
    ]
    assert expected == pytest.approx([5.0, 6.0], rel=1e-5)


def test_uncertainty_is_smooth_where_a_neighbour_leaves(model):
    """At the cutoff of 4 Å a jump would not shrink with the step."""

    def largest_change(step):
        pairs = [Atoms("NaCl", [[0, 0, 0], [0, 0, 4 + x]]) for x in step * np.arange(-4, 5)]
        told_of = [told(model, pair) for pair in pairs]
        energy = [one["energy_uncertainty"] for one in told_of]
        forces = [one["forces_uncertainty"][0] for one in told_of]
        return np.abs(np.diff([energy, forces], n=2)).max(1)

    coarse, fine = largest_change(0.02), largest_change(0.01)
    assert (fine < 0.6 * coarse).all()
    assert (coarse > 0).all()


def test_batches_agree_with_single_crystals(model, crystals):
    together = model.predict(crystals)
    for atoms, found in zip(crystals, together, strict=True):
        for key, value in told(model, atoms).items():
            np.testing.assert_allclose(found[key], value, rtol=1e-9)


def test_what_is_new_is_expected_to_be_worse(model, wurtzite):
    before = told(model, wurtzite)
    model.uncertainty.limit.fill_(1.0)
    after = told(model, wurtzite)
    factor = (1 + after["novelty"] ** 2) / (1 + before["novelty"] ** 2)
    np.testing.assert_allclose(
        after["forces_uncertainty"], factor * before["forces_uncertainty"], rtol=1e-9
    )
    assert after["energy_uncertainty"] > before["energy_uncertainty"]


def test_however_strange_the_features_are_the_structure_is_computed(wurtzite):
    model = calibrated_potential()
    model.uncertainty.spread.fill_(1e-4)
    assert np.isfinite(told(model, wurtzite)["forces_uncertainty"]).all()


def test_predictions_do_not_change(model, crystals):
    plain = copy.deepcopy(model)
    plain.uncertainty = None
    for known, bare in zip(model.predict(crystals), plain.predict(crystals), strict=True):
        assert set(known) - set(bare) == KEYS
        for key, value in bare.items():
            np.testing.assert_array_equal(known[key], value)


# ------------------------------------------------------------------ files


def test_saved_and_loaded(model, wurtzite, tmp_path):
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model", dtype="float64")
    assert told(loaded, wurtzite)["energy_uncertainty"] == pytest.approx(
        told(model, wurtzite)["energy_uncertainty"], rel=1e-12
    )
    assert set(describe(tmp_path / "model").units) >= KEYS


def test_models_without_it_load_as_before(tmp_path, wurtzite):
    tiny_potential().save(tmp_path / "model")
    card = tmp_path / "model.json"
    content = json.loads(card.read_text())
    assert "uncertainty" not in content
    del content["card"]["uncertainty"]
    card.write_text(json.dumps(content))
    assert not KEYS & set(load_model(tmp_path / "model").predict([wurtzite])[0])
    assert not KEYS & set(describe(tmp_path / "model").units)


# ------------------------------------------------------------------ the calculator


def test_results_know_uncertainties_by_name_and_do_not_list_them(model, wurtzite):
    wurtzite.calc = calculator(model)
    wurtzite.get_forces()
    found = wurtzite.calc.results
    assert KEYS <= set(wurtzite.calc.implemented_properties)
    for other in (found, found.copy(), copy.deepcopy(found)):
        assert all(key in other for key in KEYS)
        assert not KEYS & set(other)
    assert found["forces_uncertainty"].shape == found["novelty"].shape == (4,)
    assert found.get("energy_uncertainty") == found["energy_uncertainty"] > 0
    assert "band_gap" not in found
    assert found.get("band_gap", 7) == 7
    with pytest.raises(KeyError):
        found["band_gap"]


def test_ase_takes_the_results(model, wurtzite, tmp_path):
    wurtzite.calc = calculator(model)
    wurtzite.get_stress()
    assert set(SinglePointCalculator(wurtzite, **wurtzite.calc.results).results) >= {"forces"}
    assert wurtzite.calc.export_properties()["energy"] == wurtzite.get_potential_energy()
    for suffix in ("extxyz", "traj", "json", "db"):
        write(tmp_path / f"crystal.{suffix}", wurtzite)
        back = read(tmp_path / f"crystal.{suffix}")
        np.testing.assert_allclose(back.get_forces(), wurtzite.get_forces(), atol=1e-7)


def test_uncertainties_are_properties_that_can_be_asked_for(model, wurtzite):
    calc = calculator(model)
    energy = calc.get_property("energy_uncertainty", wurtzite)
    assert "forces" not in calc.results
    assert "forces_uncertainty" not in calc.results
    forces = calc.get_property("forces_uncertainty", wurtzite)
    expected = told(model, wurtzite)
    assert energy == pytest.approx(expected["energy_uncertainty"], rel=1e-9)
    np.testing.assert_allclose(forces, expected["forces_uncertainty"], rtol=1e-9)


def test_atoms_are_described_once(model, wurtzite, monkeypatch):
    calls = []
    forward = Crystalformer.forward
    monkeypatch.setattr(
        Crystalformer, "forward", lambda self, graph: calls.append(1) or forward(self, graph)
    )
    calc = calculator(model)
    calc.get_property("forces_uncertainty", wurtzite)
    calc.get_property("forces", wurtzite), calc.get_property("energy_uncertainty", wurtzite)
    assert len(calls) == 1


def test_warns_once_of_what_is_new(wurtzite, rocksalt):
    calc = calculator(strange_potential())
    with pytest.warns(OutsideTraining, match=r"atom \d \((Zn|O)\).*fine-tune"):
        calc.get_potential_energy(wurtzite)
    calc.get_potential_energy(rocksalt)  # a second warning would be an error
    with pytest.warns(OutsideTraining):
        calculator(strange_potential()).get_potential_energy(rocksalt)


def test_does_not_warn_of_what_is_known(model, wurtzite):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calculator(model).get_potential_energy(wurtzite)


def test_unknown_elements_stay_refused():
    with pytest.raises(UnseenElement):
        calculator(strange_potential()).get_potential_energy(Atoms("Pu", pbc=False))


def test_dispersion_leaves_uncertainties_alone(model, wurtzite):
    pytest.importorskip("dftd3")
    calc = calculator(model, dispersion="d3bj")
    found = calc.get_property("forces_uncertainty", wurtzite)
    np.testing.assert_allclose(found, told(model, wurtzite)["forces_uncertainty"], rtol=1e-9)


# ------------------------------------------------------------------ many structures


def test_tables_tell_uncertainties(model, wurtzite, rocksalt):
    table = predict([wurtzite, rocksalt], model=model, progress=False)
    assert table.attrs["units"]["energy_uncertainty"] == "eV"
    assert table["energy_uncertainty"].gt(0).all()
    assert table["novelty"].between(0, 1).all()


def test_tables_warn_once_and_name_the_first(wurtzite, rocksalt):
    broken = Atoms("Na2", np.zeros((2, 3)))
    with pytest.warns(OutsideTraining, match=r"2 of 3 structures.*number 1: atom \d") as caught:
        predict([broken, wurtzite, rocksalt], model=strange_potential(), progress=False)
    assert len(caught) == 1


def test_relaxed_structures_tell_uncertainties(model, wurtzite):
    [found] = relax([wurtzite], model=model, steps=3, progress=False)
    [expected] = model.float().predict([found.atoms])
    assert found.energy_uncertainty == pytest.approx(expected["energy_uncertainty"], rel=1e-4)
    np.testing.assert_allclose(found.forces_uncertainty, expected["forces_uncertainty"], rtol=1e-3)
    results = found.atoms.calc.results
    assert results["energy_uncertainty"] == found.energy_uncertainty
    assert "energy_uncertainty" not in list(results)


def test_relaxations_warn_once(wurtzite, rocksalt):
    with pytest.warns(OutsideTraining, match="2 of 2 structures") as caught:
        relax([wurtzite, rocksalt], model=strange_potential(), steps=1, progress=False)
    assert len(caught) == 1


def test_potentials_without_it_say_nothing(wurtzite):
    [found] = relax([wurtzite], model=tiny_potential(), steps=1, progress=False)
    assert found.energy_uncertainty is found.forces_uncertainty is found.novelty is None
    table = predict([wurtzite], model=tiny_potential(), progress=False)
    assert "energy_uncertainty" not in table
