"""Quantities, their scaling, and what counts as an error."""

import math

import pytest
import torch

from ase_crystalformer.targets import GATE_WEIGHT, TARGETS, Target

NAN = math.nan


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def encoded(target, value):
    """Head outputs that mean a value."""
    if target.kind == "chance":
        return tensor([[math.log(value / (1 - value))]])
    if target.kind == "gap":
        return tensor([[40.0, math.log(math.expm1(value / target.std))]])
    straight = math.log10(value) if target.kind == "log10" else value
    return tensor([[(straight - target.mean) / target.std]])


@pytest.mark.parametrize("kind", ["linear", "log10", "gap"])
def test_decoding_undoes_the_scaling(kind):
    target = Target(name="x", unit="GPa", kind=kind).fitted(tensor([10.0, 30.0, 250.0]))
    assert target.decode(encoded(target, 30.0)).item() == pytest.approx(30, rel=1e-9)
    assert target.error(encoded(target, 30.0), tensor([30.0])).item() == pytest.approx(0, abs=1e-7)


def test_a_linear_target_is_fitted_to_mean_and_spread():
    target = Target(name="x", unit="eV").fitted(tensor([1.0, 2.0, 3.0, NAN]))
    assert (target.mean, target.std) == (2.0, 1.0)


def test_a_logarithmic_target_is_fitted_after_the_logarithm():
    target = Target(name="x", unit="GPa", kind="log10").fitted(tensor([10.0, 1000.0]))
    assert (target.mean, target.std) == pytest.approx((2.0, math.sqrt(2)))


def test_a_gap_keeps_its_zero():
    target = Target(name="x", unit="eV", kind="gap").fitted(tensor([0.0, 0.0, 4.0, 2.0]))
    assert target.mean == 0
    assert target.std == pytest.approx(1.914854, rel=1e-6)


def test_a_single_label_fits_without_a_spread():
    assert Target(name="x", unit="eV").fitted(tensor([3.0])).std == 1


def test_equal_labels_do_not_divide_by_zero():
    target = Target(name="x", unit="eV").fitted(tensor([3.0, 3.0]))
    assert target.loss(tensor([[0.0]]), tensor([3.0])).item() == 0


def test_no_label_cannot_be_fitted():
    with pytest.raises(ValueError, match="no label of 'bulk_modulus'"):
        TARGETS["bulk_modulus"].fitted(tensor([NAN, NAN]))


@pytest.mark.parametrize("kind", ["linear", "log10", "gap", "chance"])
def test_a_missing_label_costs_nothing_and_teaches_nothing(kind):
    target = Target(name="x", unit="eV", kind=kind, std=2.0)
    raw = torch.randn(3, target.outputs, dtype=torch.float64, requires_grad=True)
    loss = target.loss(raw, tensor([NAN, 1.0, NAN]))
    loss.sum().backward()
    assert (loss[[0, 2]] == 0).all()
    assert (raw.grad[[0, 2]] == 0).all()
    assert loss[1] > 0
    assert raw.grad.isfinite().all()


def test_the_loss_is_the_error_in_units_of_the_spread():
    target = Target(name="x", unit="eV", mean=5.0, std=2.0)
    assert target.loss(tensor([[1.0]]), tensor([10.0])).item() == 1.5
    assert target.error(tensor([[1.0]]), tensor([10.0])).item() == -3


def test_logarithmic_errors_are_those_of_the_logarithm():
    target = Target(name="x", unit="GPa", kind="log10", mean=2.0, std=0.5)
    assert target.decode(tensor([[2.0]])).item() == pytest.approx(1000)
    assert target.error(tensor([[2.0]]), tensor([100.0])).item() == pytest.approx(1)
    assert target.loss(tensor([[2.0]]), tensor([100.0])).item() == pytest.approx(2)


def test_a_gap_is_a_gate_times_a_size():
    target = Target(name="x", unit="eV", kind="gap", std=2.0)
    raw = tensor([[0.0, 1.0]])
    gap = 2.0 * 0.5 * math.log(1 + math.e)
    assert target.decode(raw).item() == pytest.approx(gap)
    expected = abs(gap - 3.0) / 2.0 + GATE_WEIGHT * math.log(2)
    assert target.loss(raw, tensor([3.0])).item() == pytest.approx(expected)


def test_a_metal_is_learned_from_the_gate():
    target = Target(name="x", unit="eV", kind="gap")
    closed, open_ = tensor([[-5.0, 1.0]]), tensor([[5.0, 1.0]])
    metal = tensor([0.0])
    assert target.loss(closed, metal) < target.loss(open_, metal)
    assert target.decode(closed).item() < 0.01


def test_a_chance_is_learned_by_cross_entropy():
    target = Target(name="x", unit="1", kind="chance").fitted(tensor([0.0, 1.0, 1.0]))
    assert (target.mean, target.std) == (0, 1)
    raw = encoded(target, 0.8)
    assert target.decode(raw).item() == pytest.approx(0.8)
    assert target.loss(raw, tensor([1.0])).item() == pytest.approx(-math.log(0.8))
    assert target.loss(raw, tensor([0.0])).item() == pytest.approx(-math.log(0.2))
    assert target.error(raw, tensor([1.0])).item() == pytest.approx(-0.2)


@pytest.mark.parametrize("kind", ["linear", "log10", "gap"])
def test_squared_errors_are_squares_of_scaled_ones(kind):
    target = Target(name="x", unit="GPa", kind=kind).fitted(tensor([10.0, 30.0, 250.0]))
    raw, label = encoded(target, 200.0), tensor([30.0])
    plain, squared = target.loss(raw, label), target.loss(raw, label, squared=True)
    assert plain.item() > 1e-2
    assert squared.item() == pytest.approx(plain.item() ** 2)


def test_known_targets_are_found_by_their_names_and_have_units():
    assert all(target.name == name and target.unit for name, target in TARGETS.items())
    assert TARGETS["band_gap"].outputs == 2
    assert TARGETS["is_metal"].kind == "chance"
    assert TARGETS["bulk_modulus"].kind == TARGETS["shear_modulus"].kind == "log10"
