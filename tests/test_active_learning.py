"""Active learning asks where it is unsure, resumes, and compares with no plan."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import read
from programs_run import program

from ase_crystalformer import CrystalformerError, load_calculator

learning = program("active_learning")
committee = program("committee")

RECIPE = """
encoder = "crystalformer"
data = { packed = "packed" }
model = { cutoff = 4.0, width = 8, heads = 2, blocks = 1, feedforward = 8, basis = 4, norm = true }
energy = { force = 4.0 }
optim = { budget = 3_000 }
machine = { accelerator = "cpu", devices = 1, threads = 1 }
"""

TINY = committee.Plan(start=3, picked=2, epochs=2, steps=20, every=4, test=2, trusted=1e3)


@pytest.fixture
def crystal():
    return bulk("Cu", cubic=True)


def argon(depth):
    return LennardJones(sigma=3.4, epsilon=depth, rc=6.0)


def test_members_disagree_by_half_of_what_two_differ(rng):
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.2, rng=rng)
    weak, strong = (argon(depth).get_forces(atoms) for depth in (0.01, 0.012))
    expected = np.linalg.norm(strong - weak, axis=1).max() / 2
    found = committee.disagreement(atoms, [argon(0.01), argon(0.012)])
    assert found == pytest.approx(expected, rel=1e-9)


def test_frames_nobody_can_trust_are_not_picked(crystal, rng):
    plan = committee.Plan(picked=2, steps=40, every=4, trusted=1e-6)
    with pytest.raises(CrystalformerError, match="Only 0 frames can be trusted"):
        committee.explore(crystal, [EMT(), argon(0.01)], plan, rng)
    frames, scores = committee.explore(crystal, [EMT(), EMT()], plan, rng)
    assert len(frames) == 10
    assert scores == pytest.approx(0, abs=1e-9)


def test_rounds_go_on_where_they_were(crystal, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(
        learning, "trained", lambda *told: begun.append(told[1]) or [EMT(), argon(0.01)]
    )
    first = learning.learn(crystal, TINY, 1, tmp_path)
    both = learning.learn(crystal, TINY, 2, tmp_path)
    assert begun == ["round-0", "round-1"]
    assert both.rounds[0] == first.rounds[0]
    assert [one.frames for one in both.rounds] == [3, 5]
    # The first member is what labels.
    assert both.rounds[0].test_error == pytest.approx(0, abs=1e-6)
    assert both.rounds[0].disagreement > 0.01
    picked = read(tmp_path / "round-2.extxyz", ":")
    assert len(picked) == 2
    assert (tmp_path / "active_learning.png").exists()
    with pytest.raises(CrystalformerError, match="another seed"):
        learning.learn(crystal, replace(TINY, seed=1), 3, tmp_path)


def test_a_study_cut_off_in_its_first_round_knows_its_plan(crystal, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "trained", killed)
    with pytest.raises(KeyboardInterrupt):
        learning.learn(crystal, TINY, 1, tmp_path)
    for plan, other, told in (
        (replace(TINY, temperature=100.0), crystal, "another temperature"),
        (TINY, bulk("Ag", cubic=True), "another crystal"),
        (TINY, bulk("Cu", cubic=True, a=3.7), "another crystal"),
    ):
        with pytest.raises(CrystalformerError, match=told):
            learning.learn(other, plan, 1, tmp_path)
    with pytest.raises(KeyboardInterrupt):  # as far as it came before
        learning.learn(crystal, TINY, 1, tmp_path)


def test_frames_of_an_unknown_plan_are_not_learned(crystal, tmp_path):
    (tmp_path / "round-0.extxyz").write_text("")
    with pytest.raises(CrystalformerError, match="whose plan is not there"):
        learning.learn(crystal, TINY, 1, tmp_path)


@pytest.mark.slow
def test_a_committee_learns_what_it_asked_for(crystal, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    plan = replace(TINY, recipe=str(tmp_path / "recipe.toml"), epochs=20)
    study = learning.learn(crystal, plan, 2, tmp_path)
    assert [one.frames for one in study.rounds] == [3, 5]
    assert all(0 < one.test_error < 10 for one in study.rounds)
    members = [load_calculator(str(tmp_path / f"models/round-1-{n}/model")) for n in range(2)]
    forces = [member.get_forces(read(tmp_path / "test.extxyz")) for member in members]
    assert not np.allclose(forces[0], forces[1], atol=1e-4)
