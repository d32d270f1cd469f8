"""Expected errors are fitted to true ones, and the measures of that tell good from bad."""

import gzip
import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import calibrated_potential, tiny_potential, tiny_properties
from scipy.spatial.distance import mahalanobis
from scipy.stats import maxwell, spearmanr
from small_runs import crystals_with_forces, packed_set, potential_recipe
from typer.testing import CliRunner

from ase_crystalformer.cli import app
from ase_crystalformer.data.packed import PackedCrystals, pack
from ase_crystalformer.data.readers import load
from ase_crystalformer.errors import MissingData, NoForces
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.neighbours import Radius
from ase_crystalformer.training import expected_errors
from ase_crystalformer.training.build import build_model
from ase_crystalformer.training.calibration import calibrate, training_sample
from ase_crystalformer.training.expected_errors import (
    SHRINKAGE,
    fit_distribution,
    fit_energies,
    fit_forces,
    fit_limit,
)
from ase_crystalformer.training.held_out import Judged, Seen, standing
from ase_crystalformer.training.reliability import LEVELS, Compared, area
from ase_crystalformer.uncertainty import UncertaintyHead

SAMPLES = Path(__file__).parent / "samples"
WIDTH, CRYSTALS, EACH = 6, 400, 5


@pytest.fixture(scope="module")
def made_up():
    """Features, and errors whose size they tell; the means they are drawn from."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(CRYSTALS * EACH, WIDTH, generator=generator)
    crystal = torch.arange(CRYSTALS).repeat_interleave(EACH)
    sigma = (0.7 * features[:, 0] - 1).exp()
    vectors = torch.randn(len(features), 3, generator=generator)
    of_energy = torch.zeros(CRYSTALS).index_add(0, crystal, 0.3 * features[:, 1] + 0.1).abs()
    draws = torch.randn(CRYSTALS, generator=generator).abs() * (np.pi / 2) ** 0.5
    judged = Judged(
        features=features,
        species=torch.ones_like(crystal),
        crystal=crystal,
        forces=torch.zeros(len(features), 3),
        force_error=vectors.norm(dim=1) / maxwell.mean() * sigma,
        energy_error=(of_energy * draws).double(),
        source=torch.zeros(CRYSTALS, dtype=torch.long),
        part=torch.rand(CRYSTALS, generator=generator),
    )
    return judged, sigma, of_energy


def fitted(judged, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = UncertaintyHead(WIDTH)
    fit_distribution(head, judged)
    fit_limit(head, judged)
    head.limit.fill_(1e3)  # nothing is new here
    fit_forces(head, judged, judged.part < 0.5, seed)
    fit_energies(head, judged, judged.part < 0.5, seed)
    return head.requires_grad_(False)


def expected_by(head, judged):
    def total(values):
        return values.new_zeros(CRYSTALS, *values.shape[1:]).index_add(0, judged.crystal, values)

    standard, still = head.standard(judged.features), torch.zeros(len(judged.features))
    forces = head.expected_force(standard, still, judged.forces)
    return forces, head.expected_energy(standard, still, total)


def test_expected_errors_become_those_that_are(made_up):
    judged, sigma, of_energy = made_up
    forces, energy = expected_by(fitted(judged), judged)
    unseen = judged.part > 0.5
    atoms = unseen[judged.crystal]
    assert spearmanr(forces[atoms], sigma[atoms]).statistic > 0.95
    assert float((forces / sigma)[atoms].median()) == pytest.approx(1, abs=0.15)
    assert spearmanr(energy[unseen], of_energy[unseen]).statistic > 0.8


def test_nothing_is_learned_of_errors_that_are_chance(made_up):
    judged, sigma, _ = made_up
    shuffled = judged.force_error[torch.randperm(len(sigma))]
    forces, _ = expected_by(fitted(replace(judged, force_error=shuffled)), judged)
    assert abs(spearmanr(forces, sigma).statistic) < 0.6
    assert float(forces.std() / forces.mean()) < 0.4 * float(sigma.std() / sigma.mean())


def test_the_limit_leaves_out_one_crystal_in_a_hundred(made_up):
    judged, *_ = made_up
    head = UncertaintyHead(WIDTH)
    fit_distribution(head, judged)
    fit_limit(head, judged)
    novelty = head.novelty(judged.features, judged.species)
    assert len(judged.crystal[novelty > 1].unique()) == CRYSTALS // 100
    moved = judged.features + 10 * torch.eye(WIDTH)[0]
    assert (head.novelty(moved, judged.species) > 1).all()


def test_distances_are_those_of_mahalanobis():
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(WIDTH, WIDTH, generator=generator)
    species = torch.arange(2).repeat(5000)
    features = torch.randn(10_000, WIDTH, generator=generator) @ mix + 7 * species[:, None]
    head = UncertaintyHead(WIDTH)
    seen = Seen(features=features, species=species, crystal=species)
    fit_distribution(head, seen)
    left = torch.cat([features[species == z] - features[species == z].mean(0) for z in (0, 1)])
    covariance = np.cov(left.T.numpy(), ddof=0)
    covariance += SHRINKAGE * covariance.trace() / WIDTH * np.eye(WIDTH)
    inverse = np.linalg.inv(covariance)
    found = head.novelty(features, species) * WIDTH**0.5
    for row, mean in ((0, features[::2].mean(0)), (1, features[1::2].mean(0))):
        assert float(found[row]) == pytest.approx(
            mahalanobis(features[row], mean, inverse), rel=1e-2
        )
    # Squared distances of Gaussian features follow chi squared; shrinkage makes them smaller.
    assert 0.9 < float(found.square().mean()) / WIDTH < 1.0


# ------------------------------------------------------------------ measures


def compared(expected, error, name="forces"):
    rows = len(error)
    quarter = np.arange(rows) % 2 == 0
    groups = {"set": np.where(np.arange(rows) < rows // 2, "first", "second")}
    return Compared(
        name=name, unit="eV/Å", raw=expected, error=error, quarter=quarter, groups=groups
    )


def test_measures_tell_good_from_bad(rng):
    sigma = np.exp(rng.normal(size=4000))
    error = sigma * maxwell.rvs(size=4000, random_state=rng) / maxwell.mean()
    good = compared(0.5 * sigma, error)
    assert good.scale == pytest.approx(2, rel=0.03)
    assert good.told()["mean_expected"] == pytest.approx(error.mean(), rel=0.05)
    assert good.miscalibration() < 0.02
    assert area(good.gaussian()) < 0.02
    assert good.told()["spearman"] > 0.7
    bad = compared(sigma[rng.permutation(4000)], error)
    assert area(bad.gaussian()) > 0.1
    assert abs(bad.told()["spearman"]) < 0.1


def test_a_set_that_is_worse_than_expected_shows(rng):
    error = maxwell.rvs(size=2000, random_state=rng) * np.where(np.arange(2000) < 1000, 0.3, 1)
    told = compared(np.ones(2000), error).told()
    assert told["miscalibration_area"] < 0.02
    assert min(group["miscalibration_area"] for group in told["by_set"].values()) > 0.1


def test_areas_by_hand():
    assert area(LEVELS) == 0
    assert area(np.ones(19)) == pytest.approx(0.5, abs=0.03)


# ------------------------------------------------------------------ crystals


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Real frames, none of them trained on."""
    frames = [*load("mlearn", SAMPLES), *load("mp_perturbed_sevennet", SAMPLES)]
    folder = tmp_path_factory.mktemp("calibration") / "set"
    pack([frame.in_split("val") for frame in frames], Radius(4.0), folder, labels=["energy"])
    return PackedCrystals(folder)


@pytest.fixture(scope="module")
def potential():
    model = tiny_potential()
    model.card = replace(model.card, elements=())
    return model


@contextmanager
def quickly():
    """For what does not need a good fit."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FORCE_EPOCHS", "ENERGY_EPOCHS", "LEAST_STEPS"):
            patch.setattr(expected_errors, name, 20 if name == "LEAST_STEPS" else 1)
        yield


@pytest.fixture
def few_steps():
    with quickly():
        yield


@pytest.fixture(scope="module")
def calibrated(potential, held_out):
    with quickly():
        return calibrate(potential, held_out.folder, progress=False)


def test_frames_of_one_crystal_stand_together_and_runs_are_cut(held_out):
    place = standing(held_out, np.arange(len(held_out)), seed=0)
    by_parent = {}
    for name, where in zip(held_out.ids, place.tolist(), strict=True):
        by_parent.setdefault(name.rpartition("/")[0], []).append(where)
    for places in by_parent.values():
        assert len(set(places)) == 1 or places == sorted(places)
    single = [places[0] for places in by_parent.values() if len(set(places)) == 1]
    assert len(set(single)) > 1
    assert (place >= 0).all()
    assert (place < 1).all()


@pytest.mark.parametrize("file", ["", "md.extxyz#", "/runs/md.extxyz#"])
def test_rows_without_names_are_runs_of_their_atoms(file, tmp_path):
    """Neighbours in time must not lie in both halves."""
    aluminium, *_, oxide = list(load("eos_vasp_pbe", SAMPLES))[:8]
    frames = [aluminium] * 14 + [oxide] * 14
    named = [replace(frame, id=f"{file}{n}", split="val") for n, frame in enumerate(frames)]
    pack(named, Radius(4.0), tmp_path / "set", labels=["energy"])
    place = standing(PackedCrystals(tmp_path / "set"), np.arange(len(named)), seed=0)
    evenly = (np.arange(14) + 0.5) / 14
    np.testing.assert_allclose(place, [*evenly, *evenly], atol=1e-6)


def test_halves_do_not_follow_from_what_was_held_out(held_out, monkeypatch):
    """CRCs of names with two prefixes differ by a constant; halves must not."""
    from ase_crystalformer.data.holdout import split_by_name

    names = [f"mp-{number}/1" for number in range(100_000, 120_000)]
    monkeypatch.setattr(
        held_out, "ids", [n for n in names if split_by_name(n[:-2], 20261120) == "val"]
    )
    count = len(held_out.ids)
    monkeypatch.setitem(held_out.arrays, "source", np.zeros(count, dtype=int))
    place = standing(held_out, np.arange(count), seed=0)
    assert np.histogram(place, 4, (0, 1))[0] == pytest.approx(count / 4, rel=0.2)


def test_training_frames_are_drawn_until_every_element_is_known(held_out, monkeypatch):
    split = np.zeros(len(held_out), dtype=int)
    monkeypatch.setitem(held_out.arrays, "split", split)
    chosen = training_sample(held_out, seed=0)
    species = np.split(held_out.arrays["species"], held_out.atom_start[1:])
    assert set(np.concatenate([species[n] for n in chosen])) == set(np.concatenate(species))
    monkeypatch.setattr("ase_crystalformer.training.calibration.PER_ELEMENT", 1)
    assert len(training_sample(held_out, seed=0)) < len(chosen)


def test_only_the_uncertainty_is_new(calibrated, potential, wurtzite):
    [before], [after] = potential.predict([wurtzite]), calibrated.model.predict([wurtzite])
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)
    assert after["forces_uncertainty"].shape == (4,)
    assert potential.uncertainty is None


def test_the_card_tells_how_well_it_does(calibrated):
    told = json.loads(json.dumps(calibrated.model.card.uncertainty))
    forces, energy = calibrated.compared
    assert told["forces"]["n"] == len(forces.error) > 100
    assert told["energy"]["n"] == len(energy.error) > 5
    assert told["forces"]["mean_error"] == pytest.approx(forces.error.mean(), rel=1e-3)
    assert set(told["forces"]["by_element"]) >= {"Li"}
    assert told["novelty"]["inside"]["atoms"] > 100


def test_the_head_is_scaled_by_the_half_that_it_was_not_fitted_to(calibrated):
    head = calibrated.model.uncertainty
    forces, energy = calibrated.compared
    assert float(head.force_scale) == pytest.approx(forces.scale, rel=1e-5)
    assert float(head.energy_scale) == pytest.approx(energy.scale, rel=1e-5)


@pytest.mark.usefixtures("few_steps")
def test_calibration_is_repeatable(calibrated, potential, held_out):
    again = calibrate(potential, held_out.folder, progress=False)
    for one, other in zip(
        calibrated.model.uncertainty.state_dict().values(),
        again.model.uncertainty.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("few_steps")
def test_the_command_writes_model_card_and_plot(tmp_path, monkeypatch, potential, held_out):
    monkeypatch.chdir(tmp_path)
    potential.save("model")
    told = CliRunner().invoke(
        app, ["calibrate", "./model", str(held_out.folder), "-o", "new/model"]
    )
    assert told.exit_code == 0, told.output
    assert "miscalibration" in told.output
    assert Path("new/model-calibration.png").read_bytes()[:4] == b"\x89PNG"
    assert CrystalModel.load("new/model").card.uncertainty["forces"]["n"] > 100


@pytest.mark.usefixtures("few_steps")
def test_files_without_parts_are_held_out_as_a_whole(potential, held_out, caplog, tmp_path):
    samples = [SAMPLES / f"{name}.extxyz.gz" for name in ("mlearn", "monbtaw")]
    text = "".join(gzip.decompress(sample.read_bytes()).decode() for sample in samples)
    file = tmp_path / "mine.extxyz"
    file.write_text(text)  # all of it to train on
    with pytest.raises(MissingData, match="none that is held out"):
        calibrate(potential, file, progress=False)
    file.write_text(text.replace("split=train", ""))
    found = calibrate(potential, file, progress=False)
    assert "count as held out" in caplog.text
    assert found.model.card.uncertainty["forces"]["n"] > 50


def test_too_little_is_refused(potential, tmp_path):
    packed_set([c.in_split("val") for c in crystals_with_forces()], tmp_path, "energy")
    with pytest.raises(MissingData, match="too few"):
        calibrate(potential, tmp_path, progress=False)


def test_property_models_are_refused(tmp_path):
    with pytest.raises(NoForces):
        calibrate(tiny_properties(), tmp_path)


def test_training_on_drops_an_uncertainty_that_is_none_any_more(tmp_path):
    packed = packed_set(crystals_with_forces(), tmp_path / "set", "energy")
    start = calibrated_potential()
    start.card = replace(start.card, elements=())
    start.save(tmp_path / "start")
    recipe = potential_recipe(tmp_path / "set", start=str(tmp_path / "start"))
    model = build_model(recipe, packed, packed.where("train"))
    assert model.uncertainty is None
