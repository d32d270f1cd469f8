"""What training minimises: missing labels count nothing, gradients are derivatives."""

import copy
from dataclasses import replace

import pytest
import torch
from factories import tiny_potential
from small_runs import MODEL, crystals_with_forces, made_up, packed_set

from ase_crystalformer.heads import forces_and_stress
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.neighbours import build
from ase_crystalformer.targets import TARGETS
from ase_crystalformer.training.objective import EnergyObjective, Errors, PropertyObjective
from ase_crystalformer.training.settings import EnergyLoss

NAMES = ("formation_energy_per_atom", "band_gap", "bulk_modulus")
NAN = float("nan")


@pytest.fixture
def properties(tmp_path):
    """A property model in float64, and a batch without labels."""
    packed = packed_set(made_up(), tmp_path / "set")
    graph, _ = packed.batch(range(4))
    model = CrystalModel("crystalformer", MODEL, targets=[TARGETS[name] for name in NAMES])
    return model.double(), graph.to("cpu", torch.float64)


@pytest.fixture
def potential(tmp_path):
    """A potential in float64, its objective, and a batch of two energy scales."""
    packed = packed_set(crystals_with_forces(), tmp_path / "set", "energy")
    graph, labels = packed.batch([0, 1, 12, 19])
    model = CrystalModel("crystalformer", MODEL, energy_scale="mp").double()
    objective = EnergyObjective(EnergyLoss(scale="mp"), packed.meta["names"]["group"]).double()
    return model, objective, graph.to("cpu", torch.float64), labels


def labelled(**values):
    labels = {name: torch.full((4,), NAN, dtype=torch.float64) for name in NAMES}
    return labels | {name: torch.tensor(row).double() for name, row in values.items()}


def gradient(model, loss):
    """The slope of a loss with respect to every weight, as one vector."""
    model.zero_grad()
    loss.backward()
    weights = model.parameters()
    return torch.cat([(w.grad if w.grad is not None else w * 0).flatten() for w in weights])


def test_missing_labels_move_no_weight(properties):
    model, graph = properties
    objective = PropertyObjective({})
    gappy = labelled(band_gap=[1.0, NAN, 0.0, NAN], bulk_modulus=[NAN, 90.0, NAN, NAN])
    whole = objective(model, graph, gappy)
    terms = [
        (TARGETS["band_gap"], [0, 2], [1.0, 0.0]),
        (TARGETS["bulk_modulus"], [1], [90.0]),
    ]
    raw = model(graph)
    by_hand = sum(t.loss(raw[t.name][n], torch.tensor(v).double()).mean() for t, n, v in terms)
    torch.testing.assert_close(gradient(model, whole), gradient(model, by_hand))
    assert gradient(model, objective(model, graph, gappy)).abs().max() > 0


def test_a_batch_without_any_label_has_no_loss(properties):
    model, graph = properties
    loss = PropertyObjective({})(model, graph, labelled())
    assert loss == 0
    assert (gradient(model, loss) == 0).all()


def test_weights_scale_their_target_alone(properties):
    model, graph = properties
    gap, modulus = labelled(band_gap=[1.0] * 4), labelled(bulk_modulus=[50.0] * 4)
    both = {**gap, "bulk_modulus": modulus["bulk_modulus"]}
    single = PropertyObjective({})
    weighted = PropertyObjective({"band_gap": 3.0})(model, graph, both)
    expected = 3 * single(model, graph, gap) + single(model, graph, modulus)
    torch.testing.assert_close(weighted, expected)


def test_gaps_of_metals_are_learned_as_zero(properties):
    model, graph = properties
    labels = labelled(band_gap=[0.0, 0.0, 0.0, 5.0])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.04)
    for _ in range(40):
        optimizer.zero_grad()
        PropertyObjective({})(model, graph, labels).backward()
        optimizer.step()
    gap = model.properties(graph)["band_gap"].detach()
    assert gap[:3].max() < 0.3
    assert gap[3] == pytest.approx(5.0, abs=1.0)


def test_errors_are_in_the_units_they_name(properties):
    model, graph = properties
    objective, errors = PropertyObjective({}), Errors()
    labels = labelled(band_gap=[1.0, NAN, 0.0, NAN], bulk_modulus=[NAN, 90.0, NAN, NAN])
    objective(model, graph, labels, errors)
    units = objective.units(model)
    assert units == {
        "formation_energy_per_atom": "eV/atom",
        "band_gap": "eV",
        "log10 bulk_modulus": "log10(GPa)",
    }
    values = {name: value.detach() for name, value in model.properties(graph).items()}
    gap = (values["band_gap"][0] - 1).abs() + values["band_gap"][2].abs()
    assert errors.total["band_gap"] == pytest.approx(float(gap))
    ratio = torch.log10(values["bulk_modulus"][1] / 90).abs()
    assert errors.total["log10 bulk_modulus"] == pytest.approx(float(ratio))
    assert errors.count == {"formation_energy_per_atom": 0, "band_gap": 2, "log10 bulk_modulus": 1}


def slope_along(parameters, loss, direction, step=1e-6):
    """Central difference of a loss along a direction in the space of the weights."""
    start = [weight.detach().clone() for weight in parameters]
    values = []
    for shift in (step, -step, 0.0):
        for weight, here, part in zip(parameters, start, direction, strict=True):
            weight.data = here + shift * part
        values.append(float(loss().detach()))
    return (values[0] - values[1]) / (2 * step)


def assert_gradient_is_the_derivative(module, loss):
    weights = list(module.parameters())
    direction = [torch.randn_like(weight) for weight in weights]
    module.zero_grad()
    loss().backward()
    slope = sum(
        float((weight.grad * part).sum())
        for weight, part in zip(weights, direction, strict=True)
        if weight.grad is not None
    )
    assert slope == pytest.approx(slope_along(weights, loss, direction), rel=1e-5)
    assert abs(slope) > 1e-3


def test_the_slope_of_the_property_loss(properties):
    model, graph = properties
    values = {"formation_energy_per_atom": [-1.0] * 4, "band_gap": [0.0, 2.0, 0.0, 4.0]}
    labels = labelled(**values, bulk_modulus=[10.0, 100.0, NAN, 30.0])
    assert_gradient_is_the_derivative(model, lambda: PropertyObjective({})(model, graph, labels))


def test_the_slope_of_the_energy_loss_through_forces_and_stress(potential):
    model, objective, graph, labels = potential
    both = torch.nn.ModuleList([model, objective])
    assert_gradient_is_the_derivative(both, lambda: objective(model, graph, labels))


@pytest.mark.parametrize("name", ["energy", "forces", "stress"])
def test_unlabelled_crystals_leave_gradients_finite_and_count_nothing(potential, name):
    model, objective, graph, labels = potential
    missing = {key: value.clone() for key, value in labels.items()}
    rows = graph.crystal == 1 if name == "forces" else slice(1, 2)
    missing[name][rows] = NAN
    errors = Errors()
    some = gradient(model, objective(model, graph, missing, errors))
    assert some.isfinite().all()
    sizes = {"energy": 3, "forces": 3 * int((graph.crystal != 1).sum()), "stress": 27}
    assert errors.count[name] == sizes[name]
    missing[name][:] = NAN
    none = gradient(model, objective(model, graph, missing))
    weights = {"energy": "energy", "forces": "force", "stress": "stress"}
    objective.weights = replace(objective.weights, **{weights[name]: 0.0})
    torch.testing.assert_close(none, gradient(model, objective(model, graph, labels)))
    assert not torch.allclose(some, none)


def test_the_zero_of_a_foreign_scale_does_not_matter(potential):
    model, objective, graph, labels = potential
    before = objective(model, graph, labels)
    offset = torch.randn(99, dtype=torch.float64)
    foreign = labels["group"][graph.crystal] == 1
    assert foreign.any()
    assert not foreign.all()
    added = torch.where(foreign, offset[graph.species], 0.0)
    moved = labels["energy"].double().index_add(0, graph.crystal, added)
    after = copy.deepcopy(objective)
    after.shift.data[1] += offset
    torch.testing.assert_close(after(model, graph, labels | {"energy": moved}), before)
    assert (objective(model, graph, labels | {"energy": moved}) - before).abs() > 1e-3


def test_the_models_own_scale_cannot_be_moved(potential):
    model, objective, graph, labels = potential
    before = objective(model, graph, labels)
    objective.shift.data[0] += 7.0
    torch.testing.assert_close(objective(model, graph, labels), before)


def test_training_on_forces_alone_reads_nothing_else(potential):
    model, objective, graph, labels = potential
    objective.weights = EnergyLoss(energy=0, stress=0, scale="mp")
    slope = gradient(model, objective(model, graph, labels))
    other = {**labels, "energy": labels["energy"] + 3, "stress": labels["stress"] * 2 + 1}
    torch.testing.assert_close(gradient(model, objective(model, graph, other)), slope)
    assert slope.abs().max() > 0


def test_large_forces_count_in_proportion(potential):
    model, objective, graph, labels = potential
    knee = 0.5
    objective.weights = EnergyLoss(energy=0, stress=0, force_knee=knee, scale="mp")
    forces = torch.zeros_like(labels["forces"]).double()
    forces[0] = torch.tensor([30.0, 40.0, 0.0])
    result = model.energy(graph).forces
    length = (result - forces).norm(dim=1)
    expected = (length / (1 + forces.norm(dim=1) / knee)).mean()
    loss = objective(model, graph, {**labels, "forces": forces})
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_a_batch_is_not_changed(potential):
    model, objective, graph, labels = potential
    before = graph.vector.clone()
    objective(model, graph, labels)
    assert not graph.vector.requires_grad
    assert torch.equal(graph.vector, before)


def test_crystals_without_volume_have_no_stress_and_sound_gradients(water):
    model = tiny_potential().train().requires_grad_(True)
    graph = build(water, model.encoder.rule).to(dtype=torch.float32)
    leaf = graph.with_vector(graph.vector.requires_grad_())
    energy = model.head.interaction(model.encoder(leaf), leaf).sum()
    forces, stress = forces_and_stress(energy, leaf, create_graph=True)
    assert stress.isnan().all()
    loss = forces.square().sum() + torch.where(stress.isnan(), 0.0, stress).sum()
    slopes = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert all(slope.isfinite().all() for slope in slopes if slope is not None)
