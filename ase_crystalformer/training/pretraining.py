"""Encoders that are trained before the property that is asked of them, and taken over."""

from dataclasses import asdict
from typing import Any

from ase_crystalformer.encoders.base import Encoder
from ase_crystalformer.errors import BadModelFile, BadRecipe
from ase_crystalformer.mixer import MixedEncoder
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.model_file import read_card
from ase_crystalformer.pretrained import find_model

#: What the card of an encoder without a head says.
PRETRAINED = (
    "An encoder, pretrained; it predicts nothing yet. Name it as start_encoder of a recipe."
)


def take_network(told: dict[str, Any]) -> None:
    """Let a recipe that starts from a model have that model's network, but for what it tells.

    Args:
        told: The recipe; changed.

    Raises:
        UnknownName: There is no such model.
        BadModelFile: It is damaged, or no file is there.
    """
    start, own = told.get("start") or told.get("start_encoder"), told.get("model", {})
    if not isinstance(start, str) or not isinstance(own, dict):
        return
    card = read_card(find_model(start))
    try:
        encoder, config = card["encoder"], card["config"]
    except KeyError as error:
        raise BadModelFile(
            f"The card of {start!r} lacks {error}. Save the model anew, or name another."
        ) from error
    if told.setdefault("encoder", encoder) == encoder:
        told["model"] = {**config, **own}
        if "mixer" in card:
            told.setdefault("mixer", card["mixer"])


def take_encoder(model: CrystalModel, start: str) -> None:
    """Give a model the encoder of another, whatever that predicts; its heads stay as they are.

    Args:
        model: Changed in place. A mixer behind its encoder is new, unless the other has one, too.
        start: Name or path of the other.

    Raises:
        BadRecipe: The encoders are not of one kind and size.
    """
    other = CrystalModel.load(find_model(start))
    own, given = model.encoder, other.encoder
    if isinstance(own, MixedEncoder) and not isinstance(given, MixedEncoder):
        own = own.local
    here, there = _described(model, own), _described(other, given)
    if here != there:
        told = ", ".join(
            f"{key} = {here.get(key)} (it has {there.get(key)})"
            for key in sorted({*here, *there})
            if here.get(key) != there.get(key)
        )
        raise BadRecipe(
            f"start_encoder {start!r} has another encoder: the recipe asks for {told}. Make "
            "encoder, [model] and [mixer] of both the same."
        )
    own.load_state_dict(given.state_dict())


def _described(model: CrystalModel, encoder: Encoder) -> dict[str, object]:
    """Kind and size."""
    return {"encoder": model.encoder_name, **asdict(encoder.config)}
