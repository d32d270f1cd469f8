"""Fine-tuning that is resumed with other things, or given frames that lack labels."""

from dataclasses import replace

import pytest
import torch
from ase.build import bulk
from ase.io import write
from command import run
from small_runs import MODEL, property_recipe
from test_finetuning import QUICK, dft, replayed

from ase_crystalformer.data import replay
from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.model import Card, CrystalModel
from ase_crystalformer.training.energy_scale import lasting
from ase_crystalformer.training.finetuning import finetune
from ase_crystalformer.training.force_only import MEANINGLESS
from ase_crystalformer.training.record import write_record

CLAIMS = "Trained on much, with expected errors. Of 60 crystals 98 % relax."


@pytest.fixture(scope="module", autouse=True)
def few_replayed():
    """Frames of the first training: few, with energies, forces and stress."""
    stress = {"stress": torch.zeros(3, 3).numpy()}
    rows = [replayed(number) for number in range(25)]
    few = tuple(row.labelled(row.labels | stress) for row in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "replay_frames", lambda: few)
        yield


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A small potential whose card claims much."""
    torch.manual_seed(0)
    card = Card(name="start", summary=CLAIMS, elements=(13, 29, 79))
    model = CrystalModel("crystalformer", MODEL, energy_scale="mp", card=card)
    return model.save(tmp_path_factory.mktemp("start") / "start").with_suffix("")


def frames_in(folder, **kept):
    """Five frames of copper, with all labels or those named."""
    atoms = bulk("Cu", cubic=True)
    write(folder / "cu.extxyz", [dft(atoms, seed, **kept) for seed in range(5)])
    return folder / "cu.extxyz"


@pytest.fixture(scope="module")
def done(tmp_path_factory, start):
    """A folder with frames and a finished run on them."""
    folder = tmp_path_factory.mktemp("tuned")
    told = {"model": start, "replay": 0.0, "overrides": QUICK, "progress": False}
    finetune(frames_in(folder), folder / "ft", **told)
    return folder


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"frames": "nosuch.extxyz"}, r"with frames \S+cu.extxyz, not with frames nosuch.extxyz\."),
        ({"model": "accurate"}, r"with model \S+start, not with model accurate"),
        ({"scale": "mp"}, "with scale own, not with scale mp"),
        ({"replay": 2.0}, r"with replay 0\.0, not with replay 2\.0"),
        ({"hold_out": 0.5, "scale": "x"}, r"with scale own, hold_out 0\.1, not .* hold_out 0\.5"),
        ({"overrides": ["energy.scale='mp'"]}, "with scale own, not with scale mp"),
        ({"overrides": ["data.replay=3"]}, r"with replay 0\.0, not with replay 3"),
    ],
)
def test_a_run_does_not_go_on_with_anything_else(done, asked, told):
    with pytest.raises(BadRecipe, match=told):
        finetune(asked.pop("frames", None), done / "ft", resume=True, progress=False, **asked)


def test_more_epochs_go_on_by_the_command(done, start, monkeypatch):
    before = CrystalModel.load(done / "ft" / "model")
    assert before.card.training["epochs"] == 2
    run("finetune", "-o", done / "ft", "--resume", "--set", "optim.epochs=3")
    after = CrystalModel.load(done / "ft" / "model")
    assert after.card.training["epochs"] == 3
    assert not torch.equal(*(next(one.parameters()) for one in (before, after)))
    monkeypatch.chdir(done)
    same = ["--replay", 0, "--scale", "own", "-m", start, "--hold-out", 0.1]
    run("finetune", "cu.extxyz", "-o", "ft", "--resume", *same)
    result = run("finetune", "cu.extxyz", "-o", "ft", "--resume", "-m", "accurate", code=2)
    assert "began with model" in result.stderr


def test_frames_are_named_unless_a_run_goes_on(tmp_path, properties):
    result = run("finetune", "-o", tmp_path / "ft", code=2)
    assert "No frames are named" in result.stderr
    write_record(property_recipe(properties), tmp_path / "other")
    with pytest.raises(BadRecipe, match="fine-tunes no potential"):
        finetune(None, tmp_path / "other", resume=True)


@pytest.mark.parametrize("replayed", [0.0, 2.0])
def test_what_the_users_frames_lack_is_told_whatever_is_replayed(tmp_path, start, caplog, replayed):
    frames = frames_in(tmp_path, forces=True)
    told = {"model": start, "replay": replayed, "overrides": QUICK, "progress": False}
    tuned = finetune(frames, tmp_path / "ft", **told)
    how = " but of replayed frames" if replayed else ": its weight in [energy] does nothing"
    for name in ("energy", "stress"):
        assert f"holds no {name}{how}" in caplog.text
    assert "packed holds no forces" not in caplog.text
    scale = [one for one in caplog.messages if "potential stays on the scale 'mp'" in one]
    assert len(scale) == 1
    assert tuned.model.energy_scale == "mp"
    card = CrystalModel.load(tmp_path / "ft" / "model").card
    assert card.summary == tuned.model.card.summary == "Fine-tuned from start."


def test_the_card_claims_nothing_of_the_start(done):
    summary = CrystalModel.load(done / "ft" / "model").card.summary
    assert summary.startswith("Fine-tuned from start. Energies of crystals of Cu stand on the sc")
    assert "98 %" not in summary


def test_what_is_true_of_energies_stays_on_the_card(done, tmp_path):
    """A second fine-tuning on the same scale leaves what the first has told of it."""
    frames, first = frames_in(tmp_path), done / "ft" / "model"
    told = {"model": first, "replay": 0.0, "overrides": QUICK, "progress": False}
    for name, scale in {"same": "own", "other": "lab"}.items():
        tuned = finetune(frames, tmp_path / name, scale=scale, **told)
        summary = tuned.model.card.summary
        assert summary.startswith("Fine-tuned from ft. Energies of crystals of Cu")
        assert f"on the scale '{scale}'" in summary
        assert summary.count("Energies of crystals") == 1
    meaningless = replace(Card(), summary=f"A student of x. {MEANINGLESS}")
    assert lasting(meaningless.summary) == MEANINGLESS
    assert lasting(CLAIMS) == ""
