"""Softmax over neighbours that fade away."""

import math

import pytest
import torch

from ase_crystalformer.nn.attention import fading_softmax

RECEIVER = torch.tensor([0, 0, 1])
SCORE = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
FADE = torch.tensor([[1.0], [0.5], [0.25]], dtype=torch.float64)
ALONE = torch.full((3, 1), -torch.inf, dtype=torch.float64)


def test_weights_by_hand():
    own = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    weight, kept = fading_softmax(SCORE, FADE, RECEIVER, own)
    e = torch.e
    first, second = 1 + e + 0.5 * e**2, e + 0.25 * e**3
    aim = torch.tensor([[e / first], [e**2 / first], [e**3 / second]], dtype=torch.float64)
    torch.testing.assert_close(weight, aim)
    aim = torch.tensor([[1 / first], [e / second], [1]], dtype=torch.float64)
    torch.testing.assert_close(kept, aim)


def test_neighbours_alone_share_the_whole():
    weight, kept = fading_softmax(SCORE, FADE, RECEIVER, ALONE)
    total = torch.zeros(3, 1, dtype=torch.float64).index_add(0, RECEIVER, weight * FADE)
    torch.testing.assert_close(total, torch.tensor([[1.0], [1.0], [0.0]], dtype=torch.float64))
    assert kept.count_nonzero() == 0


def test_neighbours_that_all_have_left_weigh_nothing_and_are_finite():
    for dtype in (torch.float32, torch.float64):
        weight, _ = fading_softmax(
            60 * SCORE.to(dtype), torch.zeros(3, 1, dtype=dtype), RECEIVER, ALONE.to(dtype)
        )
        assert (weight * 0).count_nonzero() == 0
        assert weight.isfinite().all()


def test_large_scores_are_safe_however_faint():
    score = torch.tensor([[5000.0], [4000.0], [-5000.0]])
    fade = torch.tensor([[1e-36], [1.0], [1.0]])
    weight, _ = fading_softmax(score, fade, RECEIVER, ALONE.float())
    assert weight.isfinite().all()
    torch.testing.assert_close((weight * fade)[2], torch.ones(1))


def test_a_high_score_of_a_forgotten_neighbour_is_no_division_by_zero():
    # The atom itself scores 120 below a pair whose image has decayed to nothing in float32.
    score, own = torch.tensor([[60.0], [0.0]]), torch.tensor([[-60.0], [1.0]])
    rows = torch.tensor([0, 1])
    for decay in (0.0, 1e-42, 1e-33, 0.5):
        fall = torch.tensor([[decay], [0.25]], requires_grad=True)
        weight, self_weight = fading_softmax(score, fall, rows, own)
        parts = (weight * fall)[:, 0] + self_weight[:, 0]
        assert torch.allclose(parts, torch.ones(2))
        (slope,) = torch.autograd.grad((weight * fall).sum(), fall)
        assert slope.isfinite().all()
    expected = 0.25 / (0.25 + math.e)
    assert (weight * fall)[1].item() == pytest.approx(expected)
