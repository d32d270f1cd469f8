"""A model on disk: ``name.safetensors`` with the weights, ``name.json`` with everything else.

Nothing is ever unpickled. The card holds the digest of the weights, so that neither is ever used
with another's partner.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ase_crystalformer.errors import BadModelFile
from ase_crystalformer.writing import whole

FORMAT = 1


def model_paths(path: str | Path) -> tuple[Path, Path]:
    """Name the two files of a model; either, or their common stem, may be given."""
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in {".safetensors", ".json"} else path
    return stem.with_name(f"{stem.name}.safetensors"), stem.with_name(f"{stem.name}.json")


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of the weights, as of the file that holds them."""
    return hashlib.sha256(_packed(weights)).hexdigest()


def write_model_file(
    path: str | Path, description: dict[str, Any], weights: Mapping[str, Tensor]
) -> Path:
    """Write a model; each file appears complete or not at all.

    Returns:
        Path of the weights.
    """
    weights_path, card_path = model_paths(path)
    weights_path.parent.mkdir(parents=True, exist_ok=True)
    packed = _packed(weights)
    told = {"format": FORMAT, **description, "sha256": hashlib.sha256(packed).hexdigest()}
    text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    for file, content in ((weights_path, packed), (card_path, text.encode())):
        with whole(file) as partial:
            partial.write_bytes(content)
    return weights_path


def read_card(path: str | Path) -> dict[str, Any]:
    """Read everything but the weights.

    Raises:
        BadModelFile: if a file is missing, or the card is no card of this format.
    """
    for file in model_paths(path):
        if not file.is_file():
            raise BadModelFile(
                f"{file} does not exist. A model is a .safetensors file and a .json file of the "
                "same name; pickled checkpoints (.pt, .pth, .ckpt) are never loaded."
            )
    _, card_path = model_paths(path)
    try:
        told = json.loads(card_path.read_text(encoding="utf-8"))
        form = told["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadModelFile(
            f"{card_path} is not the card of a model ({error}). Fetch it again."
        ) from error
    if form != FORMAT:
        raise BadModelFile(f"{card_path} has format {form}; this version reads format {FORMAT}.")
    return told


def read_model_file(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the description and the weights of a model.

    Raises:
        BadModelFile: if a file is missing, truncated, altered, or of another kind.
    """
    told = read_card(path)
    weights_path, card_path = model_paths(path)
    packed = weights_path.read_bytes()
    if hashlib.sha256(packed).hexdigest() != told.get("sha256"):
        raise BadModelFile(
            f"{weights_path} is not the file that {card_path.name} describes: its sha256 differs. "
            "It is truncated or altered, or another model's. Fetch both files again."
        )
    try:
        return told, load(packed)
    except SafetensorError as error:
        raise BadModelFile(f"{weights_path} holds no safetensors: {error}.") from error


def _packed(weights: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
