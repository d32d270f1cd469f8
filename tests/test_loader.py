"""Batches of equal work, every crystal once."""

from itertools import pairwise

import numpy as np
import pytest
from small_runs import made_up, packed_set

from ase_crystalformer.data.loader import EdgeBudgetSampler, loader, work

BUDGET = 100


@pytest.fixture
def cost(rng):
    """Work of 200 crystals; two are larger than any batch."""
    cost = rng.integers(1, 40, size=200)
    cost[[17, 90]] = 250
    return cost


def sampler(cost, **options):
    which = options.pop("which", np.arange(len(cost)))
    return EdgeBudgetSampler(cost, which, budget=BUDGET, **({"seed": 0} | options))


def numbers(batches):
    return [number for batch in batches for number in batch]


def test_every_crystal_comes_once(cost):
    which = np.arange(10, 150)
    assert sorted(numbers(sampler(cost, which=which))) == which.tolist()


def test_the_budget_is_kept_and_used(cost):
    batches = list(sampler(cost))
    for batch in batches:
        assert cost[batch].sum() <= BUDGET or len(batch) == 1
    for batch, following in pairwise(batches):
        assert cost[batch].sum() + cost[following[0]] > BUDGET


def test_a_crystal_larger_than_the_budget_is_alone(cost):
    large = [batch for batch in sampler(cost) if {17, 90} & set(batch)]
    assert sorted(map(len, large)) == [1, 1]


def test_the_order_follows_seed_and_epoch(cost):
    def order(seed, epoch):
        drawn = sampler(cost, seed=seed)
        drawn.set_epoch(epoch)
        return list(drawn)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


def test_without_a_seed_the_order_is_that_given(cost):
    which = np.array([7, 3, 5, 1, 100])
    assert numbers(sampler(cost, which=which, seed=None)) == which.tolist()


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batches_and_get_equally_many(cost, world):
    parts = [list(sampler(cost, rank=rank, world=world)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    seen = numbers(batch for part in parts for batch in part)
    assert len(seen) == len(set(seen))
    whole = list(sampler(cost))
    assert len(whole) - world < sum(map(len, parts)) <= len(whole)


@pytest.mark.parametrize("world", [2, 5])
def test_processes_that_step_together_have_about_equal_work(rng, world):
    cost = rng.integers(1, 40, size=3000)
    parts = [
        [cost[batch].sum() for batch in sampler(cost, rank=rank, world=world)]
        for rank in range(world)
    ]
    together = np.array(parts)[:, :-1]
    assert together.shape[1] > 50
    assert together.max() <= BUDGET
    assert together.min() > BUDGET - cost.max()


def test_processes_miss_nothing_in_validation(cost):
    parts = [list(sampler(cost, seed=None, rank=rank, world=3)) for rank in range(3)]
    assert sorted(numbers(batch for part in parts for batch in part)) == list(range(len(cost)))


def test_a_share_is_drawn_anew_in_every_epoch(cost):
    share = np.where(np.arange(len(cost)) < 100, 0.3, 1.0)
    drawn = sampler(cost, share=share)
    epochs = []
    for epoch in range(40):
        drawn.set_epoch(epoch)
        epochs.append(set(numbers(drawn)))
    assert all(set(range(100, 200)) <= epoch for epoch in epochs)
    seen = np.mean([len(epoch & set(range(100))) for epoch in epochs])
    assert seen == pytest.approx(30, abs=3)
    assert set.union(*epochs) == set(range(200))


def test_a_resumed_epoch_goes_on_where_it_stopped(cost):
    whole, rest = sampler(cost), sampler(cost)
    rest.skip = 5
    assert list(rest) == list(whole)[5:]
    assert len(rest) == len(whole)


def test_an_empty_set_has_no_batches(cost):
    assert list(sampler(cost, which=np.array([], dtype=np.int64))) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_graphs_with_their_labels(tmp_path, workers):
    packed = packed_set(made_up(energy=2.0), tmp_path / "set", "energy")
    batches = list(loader(packed, sampler(work(packed), seed=None), workers))
    assert sum(graph.crystals for graph, _ in batches) == 4
    assert all((labels["energy"] == 2.0).all() for _, labels in batches)


def test_work_is_edges_and_atoms(tmp_path):
    packed = packed_set(made_up(), tmp_path / "set")
    graph, _ = packed.batch([2])
    assert work(packed, per_atom=20)[2] == graph.edges + 20 * 5
