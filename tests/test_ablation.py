"""The ablation: one thing changed at a time, seeds compared with themselves."""

import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_runs import MODEL, SAMPLES

from ase_crystalformer.leaderboards.judged import Judged
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training.config import check_recipe
from benchmarks import ablation

RECIPE = Path(__file__).parents[1] / "workflows" / "recipes" / "angular-mp-2018.toml"


def told(name, seed, error):
    """A run that is wrong by so much."""
    recipe = {"name": name, "seed": seed, "targets": ["band_gap"], "data": {"packed": "p"}}
    return Judged(
        name=name,
        recipe=check_recipe(recipe),
        training={"epochs": 10, "hours": 0.5},
        target=TARGETS["band_gap"],
        part="val",
        ids=("a", "b"),
        predicted=np.array([error, -error]),
        labels=np.zeros(2),
    )


def test_every_variant_changes_one_thing_and_is_a_recipe(tmp_path, monkeypatch):
    trained = {}
    monkeypatch.setattr(
        ablation, "fit", lambda recipe, folder, **_: trained.update({folder.name: recipe})
    )
    asked = Namespace(recipe=RECIPE, row="band_gap", set=["optim.epochs=3"], data=Path("data"))
    asked = Namespace(**vars(asked), out=tmp_path, start=["x=a/model"], seeds=2, folds=None)
    asked = Namespace(**vars(asked), variants=[])
    ablation.run(asked)
    assert len(trained) == 2 * (len(ablation.VARIANTS) + 3)
    base = trained["as-it-is-seed-1"]
    assert (base.seed, base.optim.epochs, base.data.packed) == (1, 3, tmp_path / "packed")
    changed = {
        name: [key for key in vars(base) if getattr(base, key) != getattr(recipe, key)]
        for name, recipe in trained.items()
        if name.endswith("seed-1")
    }
    assert changed["without-angular-invariants-seed-1"] == ["name", "model"]
    assert changed["gap-as-a-plain-number-seed-1"] == ["name", "kinds"]
    assert changed["attention-over-atoms-seed-1"] == ["name", "pooling"]
    assert changed["encoder-from-x-seed-1"] == ["name", "start_encoder"]
    beside = "displacements-told-beside-seed-1"
    assert changed.pop(beside) == ["name", "data", "denoise"]
    assert trained[beside].data.packed == tmp_path / "packed-atoms"
    assert all(len(keys) == 2 for name, keys in changed.items() if "as-it-is" not in name)
    with pytest.raises(SystemExit, match="No variant nonsense"):
        ablation.run(Namespace(**{**vars(asked), "variants": ["nonsense"]}))


def test_seeds_are_compared_with_themselves():
    seeds = {
        "better": {(0, 0): told("better", 0, 0.5), (0, 1): told("better", 1, 1.0)},
        ablation.BASE: {(0, 0): told(ablation.BASE, 0, 1.0), (0, 1): told(ablation.BASE, 1, -3.0)},
    }
    base, better, mean = ablation.compare(seeds)
    assert (base["variant"], base["score"]) == (ablation.BASE, 2.0)
    assert (better["score"], better["change"]) == (0.75, -1.25)
    assert better["change spread"] == pytest.approx(np.std([-0.5, -2.0], ddof=1))
    assert (mean["variant"], mean["score"], mean["change"]) == ("mean of 2 models", 1.0, -1.0)
    assert mean["n"] == 2
    table = ablation.markdown([base, better, mean])
    assert "| better | 0.75 ± 0.35 | -1.25 ± 1.1 | 2 | 10 | 0.5 |" in table
    assert "mae, eV (val, n = 2)" in table


@pytest.fixture
def tiny(tmp_path):
    """A recipe of a set with folds."""
    path = tmp_path / "tiny.toml"
    model = "\n".join(f"{key} = {json.dumps(value)}" for key, value in MODEL.items())
    path.write_text(
        "targets = ['formation_energy_per_cell']\n"
        f"[data]\npacked = 'unused'\nsource = 'matbench_perovskites'\nfold = 0\n[model]\n{model}\n"
        "[optim]\nepochs = 1\nbudget = 4000\n[machine]\naccelerator = 'cpu'\ndevices = 1\n"
    )
    return path


def test_every_fold_has_runs_and_data_of_its_own(tiny, tmp_path, monkeypatch):
    trained = {}
    monkeypatch.setattr(
        ablation, "fit", lambda recipe, folder, **_: trained.update({folder.name: recipe})
    )
    asked = {"recipe": tiny, "row": None, "set": ["data.fold=4"], "data": SAMPLES, "out": tmp_path}
    asked |= {"start": [], "seeds": 2, "variants": [ablation.BASE]}
    ablation.run(Namespace(**asked, folds=3))
    folds = {name: (one.data.fold, one.seed) for name, one in trained.items()}
    assert folds == {f"as-it-is-fold-{f}-seed-{s}": (f, s) for f in range(3) for s in range(2)}
    assert {one.data.packed.name for one in trained.values()} == {f"packed-fold-{f}" for f in "012"}
    trained.clear()
    ablation.run(Namespace(**asked, folds=None))
    assert list(trained) == ["as-it-is-fold-4-seed-0", "as-it-is-fold-4-seed-1"]


def test_folds_are_compared_fold_by_fold():
    def of_fold(name, fold, error):
        one = told(name, 0, error)
        return replace(one, recipe=replace(one.recipe, data=replace(one.recipe.data, fold=fold)))

    runs = {
        "better": {(0, 0): of_fold("better", 0, 1.0), (1, 0): of_fold("better", 1, 5.0)},
        ablation.BASE: {(0, 0): of_fold(ablation.BASE, 0, 2.0), (1, 0): of_fold("b", 1, 6.0)},
    }
    base, better = ablation.compare(runs)
    assert (base["score"], base["runs"]) == (4.0, 2)
    assert (better["change"], better["change spread"]) == (-1.0, 0.0)


def test_a_small_one_runs_and_goes_on(tiny, tmp_path, monkeypatch, capsys):
    command = ["ablation", "run", str(tiny), "--data", str(SAMPLES), "--out", str(tmp_path / "out")]
    command += ["--variants", ablation.BASE, "--seeds", "1", "--split", "test"]
    monkeypatch.setattr(sys, "argv", command)
    ablation.main()
    shown = capsys.readouterr().out
    assert f"| {ablation.BASE} |" in shown
    assert (tmp_path / "out" / "ablation.md").read_text() == shown
    monkeypatch.setattr(ablation, "fit", None)
    ablation.main()
    assert capsys.readouterr().out == shown
