"""From a recipe and its data to a model and an objective that are ready to train."""

import logging
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ase_crystalformer.card import Card
from ase_crystalformer.data.packed import REPLAY, PackedCrystals
from ase_crystalformer.encoders.crystalformer import Crystalformer
from ase_crystalformer.errors import BadRecipe, NoForces
from ase_crystalformer.heads import EnergyHead
from ase_crystalformer.mixer import MixedEncoder, fixed
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.pretrained import find_model
from ase_crystalformer.training.config import Recipe, mixer_of
from ase_crystalformer.training.denoising import DenoisingObjective
from ase_crystalformer.training.energy_scale import keep_former_scale, lasting, move_to_scale
from ase_crystalformer.training.fitting import (
    check_labels,
    elements_seen,
    fit_references,
    fit_shifts,
    fit_targets,
)
from ase_crystalformer.training.force_only import (
    FITTED,
    MEANINGLESS,
    NO_SCALE,
    fit_scale_to_forces,
    is_force_only,
    lacks_energies,
)
from ase_crystalformer.training.objective import EnergyObjective, PropertyObjective
from ase_crystalformer.training.prepare import check_rule
from ase_crystalformer.training.pretraining import PRETRAINED, take_encoder
from ase_crystalformer.training.settings import EnergyLoss
from ase_crystalformer.training.steps import has_labels

LOGGER = logging.getLogger(__name__)

#: The energy scale of the bundled potentials: Materials Project's.
USUAL_SCALE = "mp"


def build_model(recipe: Recipe, packed: PackedCrystals, train: NDArray[np.int64]) -> CrystalModel:
    """Make the model of a recipe, scaled to the labels; or take the one it starts from.

    Raises:
        BadRecipe: The labels, or the model to start from, do not fit the recipe.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if recipe.start is not None:
            return _started(recipe, packed, train)
        model = _new(recipe, packed, train)
    if recipe.start_encoder is not None:
        take_encoder(model, recipe.start_encoder)
    return model


def _new(recipe: Recipe, packed: PackedCrystals, train: NDArray[np.int64]) -> CrystalModel:
    if recipe.energy is not None:
        return _new_potential(recipe, recipe.energy, packed, train)
    summary = "" if recipe.targets else PRETRAINED
    card = Card(name=recipe.name, summary=summary, elements=elements_seen(packed, train))
    targets = fit_targets(recipe.targets, packed, train, recipe.kinds, recipe.pooling)
    return _new_model(recipe, card, targets=targets)


def _new_model(recipe: Recipe, card: Card, **purpose: Any) -> CrystalModel:
    """Make a model with random weights, for the purpose of ``targets`` or ``energy_scale``."""
    mixer = mixer_of(recipe)
    return CrystalModel(recipe.encoder, recipe.model, mixer=mixer, card=card, **purpose)


def _new_potential(
    recipe: Recipe, energy: EnergyLoss, packed: PackedCrystals, train: NDArray[np.int64]
) -> CrystalModel:
    if is_force_only(energy) and lacks_energies(packed, train):
        return _without_energies(recipe, packed, train)
    groups = packed.meta["names"]["group"]
    scale = own_scale(energy, groups)
    if "energy" not in packed.labels or scale not in groups:
        raise BadRecipe(
            f"{packed.folder} holds no energies of scale {scale!r}; its scales are "
            f"{', '.join(groups)}. Name one of them as energy.scale, or pack other data."
        )
    own = train[np.asarray(packed.arrays["group"])[train] == groups.index(scale)]
    summary = FITTED if is_force_only(energy) else ""
    card = Card(name=recipe.name, summary=summary, elements=elements_seen(packed, own))
    model = _new_model(recipe, card, energy_scale=scale)
    try:
        model.check_smooth()
    except NoForces as error:
        raise BadRecipe(f"[energy] asks for forces, but: {error}") from error
    assert isinstance(model.head, EnergyHead)
    fit_references(model.head, packed, own)
    return model


def _without_energies(
    recipe: Recipe, packed: PackedCrystals, train: NDArray[np.int64]
) -> CrystalModel:
    """Make a potential of crystals that have forces alone."""
    elements = elements_seen(packed, train)
    card = Card(name=recipe.name, summary=MEANINGLESS, elements=elements)
    model = _new_model(recipe, card, energy_scale=NO_SCALE)
    assert isinstance(model.head, EnergyHead)
    fit_scale_to_forces(model.head, packed, train)
    return model


def _started(recipe: Recipe, packed: PackedCrystals, train: NDArray[np.int64]) -> CrystalModel:
    """Load the model to start from; it learns the elements of the data.

    It keeps its scaling, but for the energies of elements where the recipe names another scale.
    """
    assert recipe.start is not None
    model = CrystalModel.load(find_model(recipe.start))
    has = "energies" if model.is_potential else [target.name for target in model.targets]
    wanted = "energies" if recipe.energy else list(recipe.targets)
    if sorted(has) != sorted(wanted):
        raise BadRecipe(
            f"start {recipe.start!r} is a model of {has}, but the recipe is to learn {wanted}. "
            "Name the same, or another model to start from; or start_encoder, to take over its "
            "encoder alone."
        )
    if model.encoder_name != recipe.encoder:
        raise BadRecipe(
            f"start {recipe.start!r} is a {model.encoder_name}, but encoder is {recipe.encoder!r}. "
            f"Write encoder = {model.encoder_name!r}."
        )
    former = model.card
    _check_targets(model, recipe, packed, train)
    _grow(model, recipe)
    model = _with_mixer(model, recipe)
    check_rule(packed, model.encoder, f"the model {recipe.start!r}")
    scale = recipe.energy.scale if recipe.energy else None
    if scale not in (None, model.energy_scale):
        move_to_scale(model, str(scale), packed, _of_scale(str(scale), packed, train))
    told = lasting(former.summary) if model.card is former else model.card.summary
    model.card = replace(
        model.card,
        name=recipe.name,
        summary=f"Fine-tuned from {former.name}. {told}".strip(),
        elements=tuple(sorted({*former.elements, *elements_seen(packed, train)})),
        uncertainty={},
    )
    model.uncertainty = None  # It was calibrated for features that change now.
    return model.train()


def _check_targets(
    model: CrystalModel, recipe: Recipe, packed: PackedCrystals, train: NDArray[np.int64]
) -> None:
    """Refuse what the targets of the model to start from cannot learn."""
    for target in model.targets:
        for table, learned in (("kinds", target.kind), ("pooling", target.pooling)):
            asked = getattr(recipe, table).get(target.name, learned)
            if asked != learned:
                raise BadRecipe(
                    f"start {recipe.start!r} learned {target.name!r} as {learned!r}, but {table} "
                    f"asks for {asked!r}. Leave it out of {table}, or name the model as "
                    "start_encoder, to take over its encoder alone."
                )
        check_labels(target, packed, train)


def _of_scale(scale: str, packed: PackedCrystals, which: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose the crystals whose energies stand on a scale."""
    groups = packed.meta["names"]["group"]
    if scale not in groups:
        raise BadRecipe(
            f"{packed.folder} holds no crystals of scale {scale!r}; its scales are "
            f"{', '.join(groups)}. Name one of them as energy.scale, or leave it out."
        )
    return which[np.asarray(packed.arrays["group"])[which] == groups.index(scale)]


def _grow(model: CrystalModel, recipe: Recipe) -> None:
    """Add the blocks that the recipe asks for beyond those of the model to start from."""
    encoder = model.encoder.local if isinstance(model.encoder, MixedEncoder) else model.encoder
    has = asdict(encoder.config)
    asked = {key: fixed(value) for key, value in recipe.model.items()}
    other = {key: value for key, value in asked.items() if has.get(key) != value}
    if not other:
        return
    deeper = set(other) == {"blocks"} and other["blocks"] > has["blocks"]
    if not (deeper and isinstance(encoder, Crystalformer)):
        told = ", ".join(f"{key} = {value} (it has {has.get(key)})" for key, value in other.items())
        raise BadRecipe(
            f"start {recipe.start!r} cannot have [model] {told}. Leave out what differs; only a "
            "crystalformer may be given more blocks."
        )
    encoder.deepen(other["blocks"])
    if isinstance(model.encoder, MixedEncoder):
        model.encoder.config = replace(model.encoder.config, config=encoder.config)


def _with_mixer(model: CrystalModel, recipe: Recipe) -> CrystalModel:
    """Give the model to start from the mixer of the recipe, unless it has that one already."""
    asked = mixer_of(recipe)
    if asked is None:
        return model
    if not isinstance(model.encoder, MixedEncoder):
        return model.with_mixer(asked)
    has = asdict(model.encoder.config.mixer)
    if has != asked:
        raise BadRecipe(
            f"start {recipe.start!r} has a mixer of {has}, but [mixer] asks for {asked}. Leave "
            "[mixer] out to go on with the one there is."
        )
    return model


def own_scale(energy: EnergyLoss, groups: list[str]) -> str:
    """Name the energy scale a new potential shall stand on."""
    if energy.scale is None and len(groups) == 1:
        return groups[0]
    return energy.scale or USUAL_SCALE


def build_objective(
    recipe: Recipe, model: CrystalModel, packed: PackedCrystals, train: NDArray[np.int64]
) -> PropertyObjective | EnergyObjective | DenoisingObjective:
    """Make what is minimised; other energy scales start from references fitted to the data."""
    labelled = bool(recipe.targets) or recipe.energy is not None
    main = _main_objective(recipe, model, packed, train) if labelled else None
    if recipe.denoise is None:
        assert main is not None
        return main
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return DenoisingObjective(recipe.denoise, model.encoder.width, main)


def _tell_idle(
    recipe: Recipe, model: CrystalModel, packed: PackedCrystals, train: NDArray[np.int64]
) -> None:
    """Warn of labels that no training crystal has but those replayed, and of what follows."""
    energy = recipe.energy
    assert energy is not None
    names = packed.meta["names"]["source"]
    replayed = [number for number, name in enumerate(names) if name == REPLAY]
    own = train[~np.isin(np.asarray(packed.arrays["source"])[train], replayed)]
    told = ": its weight in [energy] does nothing"
    if recipe.data.replay:
        told = " but of replayed frames, so nothing is learned of it from yours"
    weights = {"energy": energy.energy, "forces": energy.force, "stress": energy.stress}
    for name, weight in weights.items():
        if weight and not has_labels(packed, name, own):
            LOGGER.warning(
                "%s holds no %s%s. Is the column of your file called %r?",
                *(packed.folder, name, told, name),
            )
    if energy.scale not in (None, model.energy_scale):
        LOGGER.warning(
            "No energy of scale %r is there to fit to: the potential stays on the scale %r.",
            *(energy.scale, model.energy_scale),
        )


def _main_objective(
    recipe: Recipe, model: CrystalModel, packed: PackedCrystals, train: NDArray[np.int64]
) -> PropertyObjective | EnergyObjective:
    if recipe.energy is None:
        return PropertyObjective(recipe.weights, squared=recipe.loss == "squared")
    assert isinstance(model.head, EnergyHead)
    groups = packed.meta["names"]["group"]
    weights = replace(recipe.energy, scale=model.energy_scale)
    objective = EnergyObjective(weights, groups, model.head.reference.shape[0] - 1)
    fit_shifts(objective, model.head, packed, train)
    _tell_idle(recipe, model, packed, train)
    if recipe.start is not None:
        former = CrystalModel.load(find_model(recipe.start))
        keep_former_scale(objective, groups, former, model)
    return objective
