"""Muon for the matrices and AdamW for the rest, joined into one optimiser."""

import copy

import pytest
import torch
from small_runs import (
    assert_same_weights,
    broken_and_resumed,
    crystals_with_forces,
    packed_set,
    potential_recipe,
)
from torch import nn

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.optimizers import BETAS, Joined, make_optimizer
from ase_crystalformer.training.run import fit
from ase_crystalformer.training.settings import Optim

MUON = Optim(optimizer="muon", peak_lr=1e-2, weight_decay=0.1)


class Network(nn.Module):
    """A table, a hidden layer, a last layer, and references of an energy scale."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(5, 8)
        self.hidden = nn.Linear(8, 12)
        self.last = nn.Linear(12, 1)
        self.objective = nn.Module()
        self.objective.shift = nn.Parameter(torch.zeros(2, 3))

    def forward(self, x):
        return self.last(torch.tanh(self.hidden(self.table(x)))) + self.objective.shift.sum()


def stepped(network, optimizer, steps, first=0):
    for number in range(first, first + steps):
        x = torch.randint(5, (16,), generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        (network(x)[:, 0] - x).square().mean().backward()
        optimizer.step()
    return network


def parts_of(optimizer):
    return [type(part).__name__ for part in getattr(optimizer, "parts", [optimizer])]


def test_muon_takes_hidden_matrices_alone():
    network = Network()
    optimizer = make_optimizer(network, MUON)
    assert parts_of(optimizer) == ["Muon", "AdamW"]
    assert [p for group in optimizer.parts[0].param_groups for p in group["params"]] == [
        network.hidden.weight
    ]
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(map(id, network.parameters()))
    assert parts_of(make_optimizer(network, Optim())) == ["AdamW"]


def test_references_move_faster_and_neither_they_nor_biases_decay():
    network = Network()
    for name in ("adamw", "muon"):
        groups = make_optimizer(network, Optim(optimizer=name, weight_decay=0.1)).param_groups
        of = {id(p): group for group in groups for p in group["params"]}
        assert of[id(network.objective.shift)]["lr"] == pytest.approx(1e-2)
        assert of[id(network.objective.shift)]["weight_decay"] == 0
        assert of[id(network.hidden.bias)]["weight_decay"] == 0
        for matrix in (network.table.weight, network.hidden.weight, network.last.weight):
            assert of[id(matrix)]["weight_decay"] == 0.1


def test_a_step_of_muon_is_about_as_long_in_every_direction_that_is_learned():
    def moved_by(optim):
        network = Network()
        before = network.hidden.weight.detach().clone()
        stepped(network, make_optimizer(network, optim), 1)
        # The table has five rows: four directions and their mean.
        return torch.linalg.svdvals((network.hidden.weight - before).detach())[:4]

    lengths = moved_by(Optim(optimizer="muon", weight_decay=0))
    assert lengths.max() < 1.5 * lengths.min()
    # A matrix whose 8 singular values are 0.2 lr sqrt(12) has entries of 0.2 lr, as AdamW's are.
    torch.testing.assert_close(lengths.mean(), torch.tensor(0.2e-3 * 12**0.5), rtol=0.3, atol=0)
    lengths = moved_by(Optim(weight_decay=0))
    assert lengths.max() > 3 * lengths.min()


def test_joined_optimisers_step_as_they_would_alone():
    joined, apart = Network(), Network()
    stepped(joined, make_optimizer(joined, MUON), 7)
    muon = torch.optim.Muon(
        [apart.hidden.weight], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    rest = [
        {"params": [apart.table.weight, apart.last.weight], "weight_decay": 0.1},
        {"params": [apart.hidden.bias, apart.last.bias], "weight_decay": 0.0},
        {"params": [apart.objective.shift], "weight_decay": 0.0, "lr": 0.1},
    ]
    stepped(apart, Joined(muon, torch.optim.AdamW(rest, lr=1e-2, betas=BETAS)), 7)
    assert_same_weights(joined, apart)


def test_a_schedule_and_a_loaded_state_reach_every_part():
    network = Network()
    optimizer = make_optimizer(network, MUON)
    stepped(network, optimizer, 3)
    state, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(network.state_dict())
    stepped(network, optimizer, 3, first=3)
    other = Network()
    other.load_state_dict(weights)
    again = make_optimizer(other, MUON)
    again.load_state_dict(state)
    stepped(other, again, 3, first=3)
    assert_same_weights(network, other)
    for group in again.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(other)
    stepped(other, again, 1)
    assert_same_weights(other, before)


def test_the_closure_is_called_once():
    network, calls = Network(), []
    optimizer = make_optimizer(network, MUON)

    def closure():
        calls.append(torch.is_grad_enabled())
        loss = network(torch.arange(5)).square().mean()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure) > 0
    assert calls == [True]


def test_an_old_torch_without_muon_is_named(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(BadRecipe, match=r"needs torch 2\.9"):
        make_optimizer(Network(), MUON)


def test_unknown_optimisers_are_refused():
    with pytest.raises(BadRecipe, match=r"optim\.optimizer.*'adamw' or 'muon'"):
        check_recipe({"name": "x", "energy": {}, "optim": {"optimizer": "sgd"}})


def test_a_run_resumes_as_if_unbroken_and_never_with_another_optimiser(tmp_path, monkeypatch):
    packed_set(crystals_with_forces(), tmp_path / "packed", "energy")
    optim = {"optimizer": "muon", "budget": 150}
    often = {"checkpoint_minutes": 1e-6}
    recipe = potential_recipe(tmp_path / "packed", optim=optim, machine=often)
    unbroken = fit(recipe, tmp_path / "unbroken", progress=False)
    resumed = broken_and_resumed(recipe, tmp_path / "broken", monkeypatch, after=4)
    assert_same_weights(unbroken, resumed)
    other = potential_recipe(tmp_path / "packed", optim={"budget": 150}, machine=often)
    with pytest.raises(BadRecipe, match=r"another optim\.optimizer"):
        fit(other, tmp_path / "broken", resume=True, progress=False)
