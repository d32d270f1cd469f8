"""Models by name: those that come with the package, and those in files."""

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch

from ase_crystalformer.errors import BadModelFile, NoForces, UnknownName, unknown_name
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.model_file import digest, model_paths, read_card
from ase_crystalformer.quantities import UNCERTAINTIES
from ase_crystalformer.units import UNITS

#: Where bundled models lie.
WEIGHTS = Path(__file__).with_name("weights")

ALIASES = {
    "default": "crystalformer-potential",
    "small": "crystalformer-potential",
    "accurate": "crystalformer-potential-accurate",
    "default-properties": "crystalformer-properties",
}

#: What a potential gives, and ASE asks for.
ENERGY_PROPERTIES = ("energy", "free_energy", "energies", "forces", "stress")

Precision = Literal["float32", "float64"]


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What there is to know of a model before it is loaded.

    Attributes:
        name: To load it by.
        summary: What for, and how far to trust it.
        licence: Of the weights.
        units: Quantities it predicts, each with its unit.
        elements: Symbols of the elements it was trained on.
        errors: Measured errors: quantity -> {"mae": …, "unit": …, "n": …, "on": …}.
        data: What it was trained on.
        citations: BibTeX of the method and the data.
        sha256: Of the weights.
    """

    name: str
    summary: str
    licence: str
    units: Mapping[str, str]
    elements: tuple[str, ...] = field(repr=False)
    errors: Mapping[str, Any] = field(repr=False)
    data: tuple[str, ...] = field(repr=False)
    citations: tuple[str, ...] = field(repr=False)
    sha256: str = field(repr=False)


def list_models() -> list[ModelInfo]:
    """Models that come with the package: what they predict, how well, and under which licence."""
    return [describe(name) for name in _bundled()]


def load_model(
    name: str | Path, *, device: str = "auto", dtype: Precision = "float32"
) -> CrystalModel:
    """Load a model by name or from its files, ready to predict.

    Args:
        name: One that ``list_models`` names; ``"default"``, which is the ``"small"`` potential,
            ``"accurate"`` or ``"default-properties"``; or the path of a model that
            ``CrystalModel.save`` wrote.
        device: ``"auto"`` takes a CUDA device if there is one.
        dtype: ``"float64"`` where energies are differentiated numerically.

    Raises:
        UnknownName: There is no such model and no such file.
        BadModelFile: A file is missing, truncated, altered, or of another kind.
    """
    _spare_threads_of_children()
    with torch.inference_mode(False):  # Else a model loaded inside it could never give forces.
        model = CrystalModel.load(find_model(name))
        return prepared(model, device, dtype)


@cache
def _spare_threads_of_children() -> None:
    """Let processes that are forked from now on compute on one thread.

    OpenMP waits for ever in a child for the threads its parent had; and workers share the cores.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def shared_model(
    model: str | Path | CrystalModel, device: str = "auto", dtype: Precision = "float32"
) -> CrystalModel:
    """Return a model to predict with: bundled ones are loaded once, a given one is copied."""
    if isinstance(model, CrystalModel):
        with torch.inference_mode(False):  # Else a copy made inside it could never give forces.
            return prepared(deepcopy(model), device, dtype)
    path = find_model(model)
    if path.parent == WEIGHTS:
        return _loaded_once(path, str(chosen_device(device)), dtype)
    return load_model(path, device=device, dtype=dtype)


@cache
def _loaded_once(path: Path, device: str, dtype: Precision) -> CrystalModel:
    return load_model(path, device=device, dtype=dtype)


def shared_potential(
    model: str | Path | CrystalModel, device: str = "auto", dtype: Precision = "float32"
) -> CrystalModel:
    """Return a model whose forces are the slope of a smooth energy.

    Raises:
        NoForces: The model is no potential, or its energy has kinks.
    """
    found = shared_model(model, device, dtype)
    name = found.card.name
    if not found.is_potential:
        raise NoForces(
            f"{name!r} predicts {', '.join(target.name for target in found.targets)}; it has no "
            "energy, forces or stress. Use predict(), or give it as property_model."
        )
    found.check_smooth()
    return found


def describe(name: str | Path) -> ModelInfo:
    """Read what there is to know of a model, but not its weights.

    Raises:
        UnknownName: There is no such model and no such file.
        BadModelFile: Its card cannot be read.
    """
    path = find_model(name)
    try:
        return _info(read_card(path))
    except (KeyError, TypeError, IndexError) as error:
        raise BadModelFile(
            f"{model_paths(path)[1]} lacks what the card of a model tells "
            f"({type(error).__name__}: {error}). Save the model anew."
        ) from error


def _info(told: Mapping[str, Any]) -> ModelInfo:
    from ase.data import chemical_symbols

    card = told["card"]
    units = {target["name"]: target["unit"] for target in told["targets"]}
    calibrated = UNCERTAINTIES if told.get("uncertainty") else ()
    return ModelInfo(
        name=card["name"],
        summary=card["summary"],
        licence=card["licence"],
        units=units or {key: UNITS[key] for key in (*ENERGY_PROPERTIES, *calibrated)},
        elements=tuple(chemical_symbols[number] for number in card["elements"]),
        errors=card["errors"],
        data=tuple(card["data"]),
        citations=tuple(card["citations"]),
        sha256=told["sha256"],
    )


def name_of(model: str | Path | CrystalModel | None) -> str | None:
    """Tell what a model is called, by whichever way it was given."""
    if model is None:
        return None
    return model.card.name if isinstance(model, CrystalModel) else str(model)


def digest_of(model: str | Path | CrystalModel) -> str:
    """Tell the weights of a model from all others, by whichever way it was given."""
    if isinstance(model, CrystalModel):
        return digest(model.state_dict())
    return describe(model).sha256


def find_model(name: str | Path) -> Path:
    """Find the files of a model; the path is their common stem.

    Raises:
        UnknownName: There is no such model and no such file.
    """
    bundled = _bundled()
    if not isinstance(name, str | os.PathLike):
        raise UnknownName(
            f"A model is given by its name or path, and this is of type {type(name).__name__}. "
            f"Known names: {', '.join([*ALIASES, *bundled])}."
        )
    known = ALIASES.get(str(name), str(name))
    if known in bundled:
        return WEIGHTS / known
    path = Path(name)
    if path.suffix or len(path.parts) > 1 or model_paths(path)[0].is_file():
        return path
    raise unknown_name("model", str(name), [*ALIASES, *bundled])


def prepared(model: CrystalModel, device: str, dtype: Precision) -> CrystalModel:
    """Put a model on a device, in a precision, its weights fixed."""
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype is {dtype!r}; it is 'float32' or 'float64'.")
    if model.is_potential:
        reference = model.head.reference
        model = model.to(chosen_device(device), getattr(torch, dtype))
        # Reference energies stay in float64: they are large, and differences matter.
        model.head.reference = reference.to(model.device)
    else:
        model = model.to(chosen_device(device), getattr(torch, dtype))
    return model.eval().requires_grad_(False)


def chosen_device(device: str) -> torch.device:
    """Return the device of that name; ``"auto"`` is a CUDA device if there is one, else the CPU.

    Raises:
        UnknownName: There is no such device here.
    """
    there = ["auto", "cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if device == "auto":
        return torch.device(there[-1])
    if device.partition(":")[0] not in there:
        raise unknown_name("device", device, there)
    return torch.device(device)


def _bundled() -> list[str]:
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
