"""Distillations called again with another recipe, and what their training warns of."""

import json
import logging

import pytest
from ase.io import write
from command import run
from small_runs import Stopped
from test_distillation import AMOUNTS, QUICK, RECIPE, Teacher, crystals

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.training import distillation
from ase_crystalformer.training.distillation import distill

OPTIONS = {"name": "emt", "amounts": AMOUNTS, "overrides": QUICK, "progress": False}
SHORT = RECIPE.replace("epochs = 8", "epochs = 1")


@pytest.fixture(autouse=True)
def fresh():
    """Every test has a teacher who has done nothing."""
    Teacher.calls, Teacher.down_after = 0, 10**9


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A short distillation after the recipe beside its folder."""
    folder = tmp_path_factory.mktemp("distilled")
    (folder / "small.toml").write_text(SHORT)
    distill(crystals(), Teacher(), folder / "run", recipe=folder / "small.toml", **OPTIONS)
    return folder


def again(folder, recipe="small.toml"):
    return distill(crystals(), Teacher(), folder / "run", recipe=folder / recipe, **OPTIONS)


@pytest.fixture
def kept(done):
    """The same folder, whose recipe and settings are put back."""
    files = {path: path.read_text() for path in (done / "small.toml", done / "run/settings.json")}
    yield done
    for path, text in files.items():
        path.write_text(text)


def test_another_recipe_is_refused_wherever_it_lies(kept):
    (kept / "moved.toml").write_text("# of no matter\n" + SHORT.replace("matter", "use"))
    assert again(kept, "moved.toml").model.card.training["epochs"] == 1
    (kept / "small.toml").write_text(SHORT.replace("epochs = 1", "epochs = 2"))
    with pytest.raises(BadRecipe, match=r"holds a run with another recipe\.optim\.epochs\."):
        again(kept)
    with pytest.raises(BadRecipe, match=r"holds a run with another recipe\."):
        distill(crystals(), Teacher(), kept / "run", **OPTIONS)


def test_folders_that_keep_the_path_of_the_recipe_go_on(kept):
    path = kept / "run" / "settings.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "recipe": str(kept / "small.toml")}))
    assert again(kept).model.card.training["epochs"] == 1
    path.write_text(json.dumps({**settings, "recipe": "other.toml"}))
    with pytest.raises(BadRecipe, match="another recipe"):
        again(kept)


def test_the_recipe_may_change_before_the_student_begins(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise Stopped

    (tmp_path / "small.toml").write_text(SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(distillation, "fit", broken)
        with pytest.raises(Stopped):
            again(tmp_path)
    frames, calls = (tmp_path / "run" / "frames.extxyz").read_text(), Teacher.calls
    (tmp_path / "small.toml").write_text(SHORT.replace("epochs = 1", "epochs = 2"))
    assert again(tmp_path).model.card.training["epochs"] == 2
    assert (tmp_path / "run" / "frames.extxyz").read_text() == frames
    assert Teacher.calls < calls + 12  # what it cannot do, and to tell how fast it is
    (tmp_path / "small.toml").write_text(SHORT)
    with pytest.raises(BadRecipe, match=r"another recipe\.optim\.epochs"):
        again(tmp_path)


def test_warnings_of_the_training_are_not_among_what_was_left_out(tmp_path, monkeypatch, caplog):
    fit = distillation.fit

    def warning(*args, **options):
        logging.getLogger("ase_crystalformer.training").warning("the training is odd")
        return fit(*args, **options)

    monkeypatch.setattr(distillation, "fit", warning)
    (tmp_path / "small.toml").write_text(SHORT)
    again(tmp_path)
    assert "the training is odd" in caplog.text
    told = (tmp_path / "run" / "left_out.txt").read_text()
    assert "I know no single atom" in told
    assert "odd" not in told


def test_a_student_that_nothing_judges_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", crystals()["Cu"])
    (tmp_path / "small.toml").write_text(SHORT)
    told = ["--teacher", "ase.calculators.emt:EMT", "--frames", 1, "--recipe", "small.toml"]
    result = run("distill", "Cu.cif", *told, "-o", "run", "--set", QUICK[0], "--set", QUICK[1])
    assert "No structure was held out" in result.stderr
