"""Turned crystals are the same crystals with the same labels, turned; each step turns them anew."""

import pytest
import torch
from small_runs import (
    MODEL,
    RULE,
    broken_and_resumed,
    crystals_with_forces,
    packed_set,
    potential_recipe,
)

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.graph import edge_vectors
from ase_crystalformer.heads import EnergyHead, forces_and_stress
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.testing import randomised
from ase_crystalformer.training import batches
from ase_crystalformer.training.augment import orthogonal, turned
from ase_crystalformer.training.module import Fitting
from ase_crystalformer.training.objective import EnergyObjective
from ase_crystalformer.training.run import fit
from ase_crystalformer.training.settings import EnergyLoss

EXACT = {"rtol": 1e-10, "atol": 1e-10}
PLAIN = {"cutoff": RULE.cutoff, "width": 16, "heads": 2, "blocks": 1, "feedforward": 16, "token": 8}


@pytest.fixture(scope="module")
def potential(tmp_path_factory):
    """A packed set of crystals with energies and forces, some without stress."""
    folder = tmp_path_factory.mktemp("packed") / "potential"
    packed_set(crystals_with_forces(), folder, "energy")
    return folder


@pytest.fixture
def batch(potential):
    """Shaken crystals in float64, whose atoms are where their edges say, with random labels."""
    graph, labels = PackedCrystals(potential).batch([0, 1, 12, 19])
    graph = graph.to("cpu", torch.float64)
    graph = graph.moved(graph.positions + 0.2 * torch.randn(graph.positions.shape), graph.cell)
    labels = {k: v.double() if v.is_floating_point() else v for k, v in labels.items()}
    labels["forces"] = torch.randn_like(labels["forces"])
    labels["stress"] = labels["stress"] * 0 + 0.1 * torch.randn_like(labels["stress"])
    return graph, labels


@pytest.fixture
def turns(batch):
    """Two rotations and two mirror images."""
    turns = orthogonal(4, (0, 1, 0))
    assert sorted(turns.det().round().tolist()) == [-1, -1, 1, 1]
    return turns


def model(encoder, **config):
    made = randomised(CrystalModel(encoder, config, energy_scale="mp").double())
    assert isinstance(made.head, EnergyHead)
    made.head.scale.fill_(100.0)
    return made


def loss(model, batch):
    objective = EnergyObjective(EnergyLoss(scale="mp"), ["mp", "other"]).double()
    return objective(model, *batch).detach()


def test_matrices_are_orthogonal_and_half_of_them_mirror():
    matrix = orthogonal(20_000, (1, 2))
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(3).double().expand_as(matrix), **EXACT)
    assert (matrix.det() > 0).double().mean() == pytest.approx(0.5, abs=0.02)


def test_rotations_prefer_no_direction():
    matrix = orthogonal(20_000, (1, 2))
    matrix = matrix * matrix.det()[:, None, None]
    # Components of unit vectors without preference; an angle with density (1 - cos) / pi.
    for power, mean in {1: 0.0, 2: 1 / 3, 3: 0.0, 4: 1 / 5}.items():
        assert (matrix**power).mean(0) == pytest.approx(mean * torch.ones(3, 3), abs=0.02)
    trace = matrix.diagonal(dim1=1, dim2=2).sum(1)
    assert trace.mean() == pytest.approx(0, abs=0.03)
    assert trace.square().mean() == pytest.approx(1, abs=0.05)


def test_the_seed_says_which_matrices():
    assert torch.equal(orthogonal(3, (0, 5, 0)), orthogonal(3, (0, 5, 0)))
    for other in ((1, 5, 0), (0, 6, 0), (0, 5, 1)):
        assert not torch.isclose(orthogonal(3, (0, 5, 0)), orthogonal(3, other)).any()


def test_atoms_cell_and_edges_turn_together(batch, turns):
    graph, _ = turned(batch, turns)
    vector = edge_vectors(graph.positions, graph.cell, graph)
    torch.testing.assert_close(graph.vector, vector, **EXACT)
    torch.testing.assert_close(graph.cell[1, 2], turns[1] @ batch[0].cell[1, 2], **EXACT)
    assert not torch.allclose(graph.vector, batch[0].vector)


def test_labels_turn_as_what_they_label(batch, turns):
    """An equivariant model's own forces and stress, taken as labels, remain its own."""
    judge = model("crystalformer", **MODEL)

    def labelled(graph):
        leaf = graph.with_vector(graph.vector.detach().requires_grad_())
        energy = judge.head.interaction(judge.encoder(leaf), leaf).sum()
        forces, stress = forces_and_stress(energy, leaf)
        return {"forces": forces.detach(), "stress": stress.detach()}

    graph, labels = turned((batch[0], labelled(batch[0])), turns)
    for name, expected in labelled(graph).items():
        torch.testing.assert_close(labels[name], expected, **EXACT)
        assert expected.abs().max() > 1e-2


def test_the_loss_of_an_equivariant_model_is_unchanged(batch, turns):
    judge = model("crystalformer", **MODEL)
    both = turned(batch, turns)
    torch.testing.assert_close(loss(judge, both), loss(judge, batch), **EXACT)
    forgotten = (both[0], batch[1])
    assert (loss(judge, forgotten) - loss(judge, batch)).abs() > 1e-3


def test_the_loss_of_a_plain_model_is_not(batch, turns):
    judge = model("plain", **PLAIN)
    assert (loss(judge, turned(batch, turns)) - loss(judge, batch)).abs() > 1e-6


@pytest.fixture
def seen(monkeypatch):
    """First edge of every batch of a run: those trained on, and those judged."""
    found = {"training_step": [], "validation_step": []}

    def watch(name):
        step = getattr(Fitting, name)

        def watched(self, batch, number):
            found[name].append(batch[0].vector[0].tolist())
            return step(self, batch, number)

        monkeypatch.setattr(Fitting, name, watched)

    for name in found:
        watch(name)
    return found


def test_training_batches_are_turned_anew_and_others_not(potential, tmp_path, seen):
    recipe = potential_recipe(
        potential, data={"augment": True}, optim={"epochs": 3, "budget": 10**6}
    )
    fit(recipe, tmp_path, progress=False)
    lengths = torch.tensor(seen["training_step"]).norm(dim=1)
    assert len({tuple(edge) for edge in seen["training_step"]}) == len(lengths) == 3
    assert len({tuple(edge) for edge in seen["validation_step"]}) == 1
    packed = PackedCrystals(potential)
    judged = packed.batch(packed.where("val"))[0].vector[0]
    assert seen["validation_step"][0] == judged.tolist()


def test_every_step_turns_by_other_matrices(potential, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        batches, "orthogonal", lambda *told: drawn.append(orthogonal(*told)) or drawn[-1]
    )
    recipe = potential_recipe(
        potential, data={"augment": True}, optim={"epochs": 3, "budget": 10**6}
    )
    fit(recipe, tmp_path, progress=False)
    firsts = torch.stack([matrices[0] for matrices in drawn])
    assert len(firsts) == len(firsts.unique(dim=0)) == 3


def test_an_augmented_run_resumes_as_if_unbroken(potential, tmp_path, monkeypatch):
    recipe = potential_recipe(
        potential,
        data={"augment": True},
        optim={"budget": 150},
        machine={"checkpoint_minutes": 1e-6},
    )
    unbroken = fit(recipe, tmp_path / "unbroken", progress=False)
    resumed = broken_and_resumed(recipe, tmp_path / "broken", monkeypatch, after=5)
    for name, weight in unbroken.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
