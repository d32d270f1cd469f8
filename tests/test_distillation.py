"""A student of EMT: labels that survive an interrupt, errors and times that are what they say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read
from matplotlib.figure import Figure
from small_runs import MODEL

from ase_crystalformer.calculator import CrystalformerCalculator
from ase_crystalformer.data.crystals import leave_out
from ase_crystalformer.data.perturbations import Perturbation
from ase_crystalformer.errors import BadRecipe, MissingData
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.comparison import HELD_OUT
from ase_crystalformer.training.distillation import distill, held_out_names
from ase_crystalformer.training.labelling import label_frames
from ase_crystalformer.training.parity import plot_parity
from ase_crystalformer.training.record import noted

AMOUNTS = Perturbation(frames=3, rattle=(0.02, 0.1), strain=0.02, squeeze=0.05)

QUICK = ["machine.accelerator='cpu'", "machine.devices=1"]

RECIPE = f"""
encoder = "crystalformer"
[data]
packed = "of no matter"
[model]
{chr(10).join(f"{key} = {str(value).lower()}" for key, value in MODEL.items())}
[energy]
[optim]
epochs = 8
budget = 1500
peak_lr = 0.01
ema = 0.5
"""


class Teacher(EMT):
    """EMT that counts, fails for one atom, and goes down when it is told to."""

    calls = 0
    down_after = 10**9

    def calculate(self, atoms, *args):
        type(self).calls += 1
        if type(self).calls > self.down_after:
            raise KeyboardInterrupt
        if len(atoms) == 1:
            raise ValueError("I know no single atom")
        super().calculate(atoms, *args)


@pytest.fixture(autouse=True)
def fresh():
    """Every test has a teacher who has done nothing."""
    Teacher.calls, Teacher.down_after = 0, 10**9


def crystals():
    """Four crystals of two elements, and one that the teacher refuses."""
    found = {"one": bulk("Cu")}
    for name, symbols in {"Cu": "Cu4", "Al": "Al4", "mix": "Cu3Al", "xim": "Al3Cu"}.items():
        found[name] = bulk("Cu", cubic=True)
        found[name].set_chemical_symbols(Atoms(symbols).get_chemical_symbols())
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A whole distillation."""
    folder = tmp_path_factory.mktemp("distilled")
    (folder / "small.toml").write_text(RECIPE)
    Teacher.calls, Teacher.down_after = 0, 10**9
    return distill(
        crystals(),
        Teacher(),
        folder / "run",
        name="emt",
        amounts=AMOUNTS,
        recipe=folder / "small.toml",
        overrides=QUICK,
        progress=False,
    )


def test_frames_are_the_teachers_and_what_failed_is_named(done):
    frames = read(done.folder / "frames.extxyz", ":")
    assert len(frames) == 4 * 4
    assert set(done.failed) == {f"one/{number}" for number in range(4)}
    assert "I know no single atom" in (done.folder / "left_out.txt").read_text()
    for frame in frames[:5]:
        taught = frame.copy()
        taught.calc = EMT()
        assert frame.get_potential_energy() == pytest.approx(taught.get_potential_energy())
        assert np.allclose(frame.get_forces(), taught.get_forces(), atol=1e-7)
        assert np.allclose(frame.get_stress(), taught.get_stress(), atol=1e-7)
    parts = {frame.info["parent"]: frame.info["split"] for frame in frames}
    assert sorted(parts.values()).count("val") == 1
    assert all(frame.info["split"] == parts[frame.info["parent"]] for frame in frames)


def test_errors_are_those_of_the_student_on_parents_held_out(done):
    calc = CrystalformerCalculator(done.folder / "model", property_model=None)
    errors = []
    for frame in read(done.folder / "frames.extxyz", ":"):
        if frame.info["split"] == "val":
            own = frame.copy()
            own.calc = calc
            errors.append(own.get_forces() - frame.get_forces())
    assert done.errors["forces"].mae == pytest.approx(np.abs(errors).mean(), rel=1e-3)
    assert done.errors["forces"].on == HELD_OUT
    told = json.loads((done.folder / "distillation.json").read_text())
    assert told["errors"]["forces"]["mae"] == done.errors["forces"].mae
    assert told["frames"] == {"train": 12, "held out": 4}
    assert (done.folder / "parity.png").is_file()


def test_the_card_names_the_teacher(done):
    model = CrystalModel.load(done.folder / "model")
    assert model.energy_scale == "emt"
    assert "student of emt" in model.card.summary
    assert "12 frames labelled by emt" in model.card.data[0]
    assert model.card.elements == (13, 29)


def test_teacher_and_student_are_timed_on_the_same_frames(done):
    assert done.speed.frames == 4
    assert done.speed.teacher > 0
    assert done.speed.student > 0
    low, high = done.speed.spread
    assert low <= done.speed.ratio <= high


def test_the_same_command_asks_the_teacher_nothing_twice(done):
    before = read(done.folder / "frames.extxyz", ":")
    recipe = done.folder.parent / "small.toml"
    options = {"name": "emt", "amounts": AMOUNTS, "overrides": QUICK, "progress": False}
    again = distill(crystals(), Teacher(), done.folder, recipe=recipe, **options)
    timed = 1 + again.speed.frames
    assert Teacher.calls == len(again.failed) + timed
    assert len(read(done.folder / "frames.extxyz", ":")) == len(before)
    for name, weight in done.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name])
    with pytest.raises(BadRecipe, match="holds a run with"):
        distill(crystals(), Teacher(), done.folder, recipe=recipe, **options | {"name": "other"})
    more = {**crystals(), "more": bulk("Al", cubic=True)}  # which would change what is held out
    with pytest.raises(BadRecipe, match="structures 5"):
        distill(more, Teacher(), done.folder, recipe=recipe, **options)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.packed='elsewhere'", r"--set changes data\.packed"),
        ("data.source='elsewhere.extxyz'", r"--set changes data\.source"),
        ("data={packed='elsewhere'}", r"--set changes data\.packed"),
        ("optim.epoch=3", r"optim\.epoch"),
    ],
)
def test_a_wrong_recipe_is_refused_before_the_teacher_begins(override, told, done, tmp_path):
    recipe = done.folder.parent / "small.toml"
    options = {"amounts": AMOUNTS, "overrides": [override], "progress": False}
    with pytest.raises(BadRecipe, match=told):
        distill(crystals(), Teacher(), tmp_path / "run", recipe=recipe, **options)
    assert Teacher.calls == 0
    assert not (tmp_path / "run").exists()  # so that the command may be given anew


def test_what_was_left_out_before_is_forgotten(tmp_path):
    with noted(tmp_path):
        leave_out("one", "for a reason")
    assert "for a reason" in (tmp_path / "left_out.txt").read_text()
    with noted(tmp_path):
        pass
    assert not (tmp_path / "left_out.txt").exists()


def test_a_plot_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def cut(figure, path, **_):
        Path(path).write_bytes(b"half")
        raise OSError("the disk is full")

    pairs = {("energy", "eV"): (np.arange(3.0), np.arange(3.0))}
    plot_parity(pairs, {"energy": 0.0}, tmp_path / "parity.png")
    before = (tmp_path / "parity.png").read_bytes()
    monkeypatch.setattr(Figure, "savefig", cut)
    with pytest.raises(OSError, match="full"):
        plot_parity(pairs, {"energy": 0.0}, tmp_path / "parity.png")
    assert (tmp_path / "parity.png").read_bytes() == before


def numbered(count):
    for number in range(count):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=number)
        atoms.info = {"id": f"Cu/{number}", "split": "train"}
        yield atoms


def test_labels_survive_an_interrupt(tmp_path):
    path = tmp_path / "frames.extxyz"
    Teacher.down_after = 3
    with pytest.raises(KeyboardInterrupt):
        label_frames(numbered(6), Teacher(), path, progress=False)
    assert len(read(path, ":")) == 3
    cut_off(path)
    Teacher.calls, Teacher.down_after = 0, 10**9
    assert label_frames(numbered(6), Teacher(), path, progress=False) == {}
    assert Teacher.calls == 4
    whole = tmp_path / "whole.extxyz"
    label_frames(numbered(6), Teacher(), whole, progress=False)
    for one, other in zip(read(path, ":"), read(whole, ":"), strict=True):
        assert one.info["id"] == other.info["id"]
        assert np.array_equal(one.positions, other.positions)
        assert np.allclose(one.get_forces(), other.get_forces(), atol=1e-7)


def cut_off(path: Path) -> None:
    """Lose the end of the last frame."""
    text = path.read_text()
    path.write_text(text[:-20])


def test_a_teacher_without_stress_and_one_without_sense(tmp_path):
    class Forceful(EMT):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012

    class Senseless(EMT):
        def calculate(self, *args):
            super().calculate(*args)
            self.results["energy"] = np.nan

    label_frames(numbered(1), Forceful(), tmp_path / "a.extxyz", progress=False)
    assert "stress" not in read(tmp_path / "a.extxyz").calc.results
    failed = label_frames(numbered(2), Senseless(), tmp_path / "b.extxyz", progress=False)
    assert "energy is not finite" in failed["Cu/1"]
    with pytest.raises(MissingData, match="labelled no frame"):
        distill([bulk("Cu")], Senseless(), tmp_path / "run", amounts=AMOUNTS, progress=False)


def test_held_out_crystals_hold_elements_that_the_others_hold():
    found = {f"Cu{number}": bulk("Cu") for number in range(19)} | {"Ag": bulk("Ag")}
    for seed in range(20):
        chosen = held_out_names(found, seed)
        assert len(chosen) == 2
        assert "Ag" not in chosen
    assert held_out_names({"Ag": bulk("Ag"), "Cu": bulk("Cu")}, 0) == set()
