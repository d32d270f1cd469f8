"""A potential trained further: on the user's scale, without forgetting, and as its card says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from small_runs import MODEL, Stopped

from ase_crystalformer.calculator import CrystalformerCalculator
from ase_crystalformer.data import replay
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.packed import REPLAY, PackedCrystals
from ase_crystalformer.errors import BadRecipe, MissingData, NoForces
from ase_crystalformer.model import Card, CrystalModel
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training.batches import PackedData
from ase_crystalformer.training.build import build_model, build_objective
from ase_crystalformer.training.comparison import FORMER, HELD_OUT, compare
from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.defaults import started_recipe
from ase_crystalformer.training.finetuning import finetune
from ase_crystalformer.training.module import Fitting
from ase_crystalformer.training.prepare import prepare

#: What the code of the "user" puts on top of EMT's energies, eV/atom.
OFFSET = {"Cu": -3.0, "Au": 2.0, "Al": 7.0}

QUICK = [
    "optim.epochs=2",
    "optim.ema=0.0",
    "machine.accelerator='cpu'",
    "machine.devices=1",
    "machine.checkpoint_minutes=1e-6",
]


def dft(atoms, seed, **kept):
    """A frame of the user's: EMT stands in for the code."""
    atoms = atoms.copy()
    atoms.rattle(0.05, seed=seed)
    atoms.calc = EMT()
    energy = atoms.get_potential_energy() + sum(OFFSET[symbol] for symbol in atoms.symbols)
    results = {"energy": energy, "forces": atoms.get_forces(), "stress": atoms.get_stress()}
    atoms.calc = SinglePointCalculator(atoms, **{key: results[key] for key in kept or results})
    return atoms


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A small potential with random weights, on Materials Project's scale."""
    torch.manual_seed(0)
    card = Card(name="start", elements=(8, 13, 29, 79), data=("nothing",), licence="MIT")
    model = CrystalModel("crystalformer", MODEL, energy_scale="mp", card=card)
    model.head.reference.copy_(torch.arange(len(model.head.reference)) * -0.1)
    return model.save(tmp_path_factory.mktemp("start") / "start").with_suffix("")


def replayed(number):
    """A frame of the first training: strained aluminium, energies on Materials Project's scale."""
    atoms = bulk("Al", a=4.0 + 0.01 * number)
    atoms.calc = EMT()
    return LabelledCrystal(
        species=atoms.numbers.astype(np.int64),
        positions=atoms.positions,
        cell=atoms.cell.array,
        periodic=atoms.pbc,
        labels={"energy": atoms.get_potential_energy() - 1.3, "forces": atoms.get_forces()},
        id=f"mp/{number}",
        split="test" if number % 5 == 0 else "train",
        source=REPLAY,
        group=replay.SCALE,
    )


@pytest.fixture(scope="module", autouse=True)
def few_replayed():
    """Twenty frames to replay and five to see what was forgotten, instead of thousands."""
    few = tuple(replayed(number) for number in range(25))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "replay_frames", lambda: few)
        yield


def alloy():
    """Copper with a quarter of gold."""
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[0] = "Au"
    return atoms


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Eleven frames of copper, eleven of an alloy."""
    path = tmp_path_factory.mktemp("frames") / "mine.extxyz"
    kinds = (bulk("Cu", cubic=True), alloy())
    write(path, [dft(atoms, seed) for atoms in kinds for seed in range(11)])
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory, start, frames):
    """A run of a few steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return finetune(frames, folder, model=start, overrides=QUICK, progress=False)


def test_the_potential_gives_the_energies_of_the_user(done, start, frames):
    calc = CrystalformerCalculator(done.folder / "model", property_model=None)
    wrong = []
    for atoms in read(frames, ":"):
        calculated = atoms.copy()
        calculated.calc = calc
        difference = calculated.get_potential_energy() - atoms.get_potential_energy()
        wrong.append(difference / len(atoms))
    assert np.abs(wrong).max() < 0.5  # the offsets are 2 and 3 eV, references -2.9 and -7.9
    assert done.model.energy_scale == "own"
    assert done.frames == {"train": 20, "held out": 2}
    assert "Cu, Au stand on the scale 'own'" in done.model.card.summary
    assert "other elements on 'mp'" in done.model.card.summary
    reference = CrystalModel.load(start).head.reference
    assert torch.equal(done.model.head.reference[13], reference[13])
    assert not torch.isclose(done.model.head.reference[29], reference[29])


def test_the_run_folder_tells_what_was_done(done, start, frames):
    told = json.loads((done.folder / "finetuning.json").read_text())
    assert {one["on"] for one in told["errors"]} == {HELD_OUT, FORMER}
    assert (done.folder / "parity.png").stat().st_size > 1000
    card = CrystalModel.load(done.folder / "model").card
    assert card == done.model.card
    assert card.training["start"] == str(start)
    assert card.training["replay"] == 4.0
    assert "started from start" in card.data[0]
    assert "20 frames of the user's" in card.data[1]
    assert set(card.errors) == {"energy", "forces", "stress"}
    assert card.errors["forces"]["n"] == 2 * 4 * 3
    assert recipe_of(done).data.source == (str(frames),)
    with pytest.raises(BadRecipe, match="holds a run already"):
        finetune(frames, done.folder, model=start, progress=False)


def recipe_of(done):
    """The recipe as it was run."""
    return check_recipe(json.loads((done.folder / "recipe.json").read_text()))


def test_before_and_after_are_what_the_calculator_gives(done, start, frames):
    packed = PackedCrystals(done.folder / "packed")
    names = [packed.ids[number] for number in packed.where("val")]
    held_out = [read(frames, ":")[int(name.rpartition("#")[2])] for name in names]
    [told] = [one for one in done.changes if (one.quantity, one.on) == ("forces", HELD_OUT)]
    for model, error in ((start, told.before), (done.folder / "model", told.after)):
        calc = CrystalformerCalculator(model, property_model=None)
        differences = []
        for atoms in held_out:
            calculated = atoms.copy()
            calculated.calc = calc
            differences.append(calculated.get_forces() - atoms.get_forces())
        assert error == pytest.approx(np.abs(differences).mean(), rel=1e-3)
    assert told.before != told.after


@pytest.mark.parametrize(("elements", "labels"), [((13, 29, 79), 24), ((29,), 12), ((8,), None)])
def test_both_are_measured_on_crystals_that_both_know(done, start, elements, labels):
    packed = PackedCrystals(done.folder / "packed")
    before = CrystalModel.load(start)
    before.energy_scale = done.model.energy_scale
    before.card = replace(before.card, elements=elements)
    changes = compare(before, done.model, packed, packed.where("val"))
    found = {one.quantity: one.n for one in changes}
    assert found.get("forces") == labels


def test_replayed_energies_keep_the_references_they_were_learned_with(done, start):
    recipe, packed = recipe_of(done), PackedCrystals(done.folder / "packed")
    which = packed.where("train")
    model = build_model(recipe, packed, which)
    objective = build_objective(recipe, model, packed, which)
    groups = packed.meta["names"]["group"]
    shift = objective.shift[groups.index("mp")].detach().double()
    former = CrystalModel.load(start).head.reference
    assert torch.allclose(model.head.reference + shift, former, atol=1e-5)
    assert not torch.allclose(model.head.reference, former, atol=0.1)


@pytest.mark.parametrize(("wanted", "drawn"), [(0.0, 0), (0.5, 10), (100.0, 20)])
def test_as_many_frames_are_replayed_as_asked(done, wanted, drawn):
    recipe, packed = recipe_of(done), PackedCrystals(done.folder / "packed")
    data = PackedData(packed, replace(recipe, data=replace(recipe.data, replay=wanted)))
    number = packed.meta["names"]["source"].index(REPLAY)
    from_replay = data.train[np.asarray(packed.arrays["source"])[data.train] == number]
    own = np.setdiff1d(data.train, from_replay)
    assert (data.share[own] == 1).all()
    assert data.share[from_replay].sum() == pytest.approx(drawn)


def built(folder, start, atoms, scale="own"):
    """The model that a run on these frames begins with."""
    write(folder / "frames.extxyz", atoms)
    told = started_recipe(folder, start)
    told["data"] |= {"source": (str(folder / "frames.extxyz"),), "replay": 0.0}
    told["energy"]["scale"] = scale
    recipe = check_recipe(told)
    packed = prepare(recipe)
    return packed, build_model(recipe, packed, packed.where("train"))


def test_frames_on_the_scale_of_the_model_leave_its_references_alone(tmp_path, start):
    atoms = [dft(bulk("Cu", cubic=True), seed) for seed in range(4)]
    packed, model = built(tmp_path, start, atoms, scale="mp")
    assert model.energy_scale == "mp"
    assert packed.meta["names"]["group"] == ["mp"]
    assert torch.equal(model.head.reference, CrystalModel.load(start).head.reference)
    assert model.card.summary == "Fine-tuned from start."


def test_frames_without_energies_leave_the_scale_alone(tmp_path, start):
    atoms = [dft(bulk("Cu", cubic=True), seed, forces=True) for seed in range(4)]
    packed, model = built(tmp_path, start, atoms)
    assert np.isnan(packed.label("energy")[packed.where("val")]).all()
    assert model.energy_scale == "mp"
    assert torch.equal(model.head.reference, CrystalModel.load(start).head.reference)


def test_one_composition_cannot_tell_elements_apart_and_the_card_says_so(tmp_path, start):
    _, model = built(tmp_path, start, [dft(alloy(), seed) for seed in range(4)])
    assert "do not tell the energies of single elements apart" in model.card.summary
    second = tmp_path / "second"
    second.mkdir()
    _, both = built(
        second, start, [dft(bulk("Cu", cubic=True), 0), *(dft(alloy(), n) for n in (1, 2))]
    )
    assert "do not tell" not in both.card.summary


def test_a_run_that_is_cut_off_goes_on(tmp_path, done, start, frames, monkeypatch):
    step = Fitting.training_step

    def broken(self, batch, number):
        if self.trainer.global_step == 5:
            raise Stopped
        return step(self, batch, number)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Fitting, "training_step", broken)
        with pytest.raises(Stopped):
            finetune(frames, folder, model=start, overrides=QUICK, progress=False)
    resumed = finetune(frames, folder, model=start, resume=True, progress=False)
    for name, weight in done.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    assert resumed.changes == done.changes


def test_what_cannot_be_started_is_said(tmp_path, start, frames):
    with pytest.raises(BadRecipe, match="no run to go on with"):
        finetune(frames, tmp_path / "none", resume=True)
    write(tmp_path / "bare.extxyz", bulk("Cu"))
    with pytest.raises(MissingData, match="no frame that can be learned from"):
        finetune(tmp_path / "bare.extxyz", tmp_path / "run", model=start)
    assert "neither energy nor forces" in (tmp_path / "run" / "left_out.txt").read_text()
    properties = CrystalModel("crystalformer", MODEL, targets=[TARGETS["band_gap"]])
    with pytest.raises(NoForces, match="predicts properties"):
        finetune(frames, tmp_path / "run", model=properties.save(tmp_path / "gap").with_suffix(""))


@pytest.mark.parametrize("override", ["data.packed='elsewhere'", "data={packed='elsewhere'}"])
def test_the_folder_of_the_data_stays_that_of_the_run(override, tmp_path, start, frames):
    with pytest.raises(BadRecipe, match=r"--set changes data\.packed"):
        finetune(frames, tmp_path / "run", model=start, overrides=[*QUICK, override])
    assert not (tmp_path / "run").exists()
