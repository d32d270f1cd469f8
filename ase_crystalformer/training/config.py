"""What a training run is: a recipe file, checked before anything starts."""

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from ase_crystalformer.encoders import ENCODERS
from ase_crystalformer.errors import BadRecipe, unknown_name
from ase_crystalformer.mixer import MixerConfig
from ase_crystalformer.targets import TARGETS, Kind, Pooling
from ase_crystalformer.training.pretraining import take_network
from ase_crystalformer.training.rows import Published, choose_row, name_run, names_of
from ase_crystalformer.training.settings import (
    STRICT,
    Count,
    Denoise,
    EnergyLoss,
    Fraction,
    Machine,
    Optim,
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Data:
    """Which crystals are learned.

    Attributes:
        packed: Folder of a packed set; made from ``source`` if it does not exist, with the parts
            that ``seed`` chooses then. Recipes of other seeds that name it share these parts.
        source: ``properties`` or ``potential`` (the mixtures of the bundled models), the name of a
            data set, or a file of the user's own. One without splits gets 5 % set aside. Or a list
            of files, folders and globs of frames (``data.frames``); a file that a potential learns
            is a list of one.
        fold: Of a MatBench set, the official fold whose rows are the test; 5 % of the others are
            set aside for validation.
        directory: Where data sets of that name lie.
        largest: By source, leave crystals of more atoms out of the packed set.
        largest_crystal: Leave out crystals of more atoms (of orbits, if packed by symmetry).
        share: By source, which share of its crystals is drawn in each epoch; 1 unless named. A
            source of share 0 is neither learned from nor judged by.
        augment: Turn and mirror each training crystal at random, anew in every step. An encoder
            that is equivariant learns nothing from it.
        hold_out: Of a list of files, the share that is set aside, in whole runs.
        replay: How many frames of the bundled potential's training are drawn per epoch for every
            crystal of the source, against forgetting. 0 keeps those that measure it (``test``).
    """

    packed: Path
    source: str | tuple[str, ...] | None = None
    directory: Path | None = None
    fold: Annotated[int, Field(ge=0, le=4)] | None = None
    largest: dict[str, Count] = field(default_factory=dict)
    largest_crystal: Count | None = None
    share: dict[str, Annotated[float, Field(ge=0, le=1)]] = field(default_factory=dict)
    augment: bool = False
    hold_out: Fraction = 0.1
    replay: Annotated[float, Field(ge=0)] | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mixer(MixerConfig):
    """The table ``[mixer]``: attention over all atoms behind the encoder; may be empty."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """Everything a run depends on.

    Attributes:
        name: Of the run folder and the model.
        encoder: A name in ``ENCODERS``.
        model: Fields of the encoder's configuration; with ``start`` as there, or more ``blocks``.
            A file that tells neither ``encoder`` nor ``[model]`` has those of the model it starts
            from, and overrides change what differs.
        mixer: Size of a global mixer behind the encoder; leave out for none. With ``start``, a
            model without one gets a new one, and predicts at first what it did.
        targets: Properties to learn; leave empty for a potential.
        weights: How much each target counts; 1 unless named.
        kinds: Of targets that are scaled otherwise than usual (``targets.Target``): the papers
            learn a ``band_gap`` as ``linear``.
        pooling: Of targets that a few atoms decide, ``attention``; ``mean`` unless named.
        loss: Of properties: ``absolute`` or ``squared`` scaled errors.
        energy: Weights of a potential's errors; leave out for properties.
        denoise: An auxiliary task; without ``targets`` and ``energy`` it pretrains an encoder.
        start: A model to start from instead of random weights.
        start_encoder: A model, of whatever it predicts, whose encoder alone is taken over.
        seed: Of random weights and of the order of crystals; and, where this recipe packs its set,
            of the crystals that are set aside for validation.
        published: Numbers to hold the run against; nothing is learned from them.
    """

    name: str
    data: Data
    encoder: str = "crystalformer"
    model: dict[str, Any] = field(default_factory=dict)
    mixer: Mixer | None = None
    targets: tuple[str, ...] = ()
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = field(
        default_factory=dict
    )
    kinds: dict[str, Kind] = field(default_factory=dict)
    pooling: dict[str, Pooling] = field(default_factory=dict)
    loss: Literal["absolute", "squared"] = "absolute"
    energy: EnergyLoss | None = None
    denoise: Denoise | None = None
    optim: Optim = Optim()
    machine: Machine = Machine()
    start: str | None = None
    start_encoder: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    published: tuple[Published, ...] = ()

    @model_validator(mode="after")
    def _one_task(self) -> "Recipe":
        """A model learns properties or energies; both heads at once are two models."""
        tasks = bool(self.targets) + (self.energy is not None)
        if tasks == 2 or (tasks == 0 and self.denoise is None):
            raise ValueError(
                "give either targets = [...] (properties) or a table [energy] (a potential), or "
                "a table [denoise] alone to pretrain an encoder"
            )
        if self.start is not None and self.start_encoder is not None:
            raise ValueError("start takes over the encoder, too: drop start_encoder")
        return self

    @model_validator(mode="after")
    def _known_names(self) -> "Recipe":
        """Encoders and targets are those there are; only what is learned has a weight."""
        _refuse_unknown("encoder", [self.encoder], ENCODERS)
        _refuse_unknown("target", self.targets, TARGETS)
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets names one twice: {', '.join(self.targets)}")
        if self.targets:
            for entries in (self.weights, self.kinds, self.pooling):
                _refuse_unknown("target of this recipe", entries, self.targets)
        named = [one.target for one in self.published if one.target is not None]
        if named and not self.targets:
            raise ValueError(
                f"published.target = {named[0]!r}, but this recipe learns no property: leave it out"
            )
        _refuse_unknown("target of this recipe (published.target)", named, self.targets)
        return self

    @model_validator(mode="after")
    def _nothing_idle(self) -> "Recipe":
        """What is told changes something."""
        if not self.targets:
            idle = [name for name in ("weights", "kinds", "pooling") if getattr(self, name)]
            idle += ["loss"] * (self.loss != "absolute")
            if idle:
                raise ValueError(
                    f"{', '.join(idle)} are of properties, and this recipe learns none; weights of "
                    "a potential are in [energy]"
                )
        if self.energy is None and self.data.replay is not None:
            raise ValueError("data.replay is of potentials; drop it")
        if self.data.fold is not None and isinstance(self.data.source, tuple):
            raise ValueError("data.fold is of a MatBench set, and data.source is a list of files")
        return self


def _refuse_unknown(kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(str(unknown_name(kind, name, known)))


def mixer_of(recipe: Recipe) -> dict[str, Any] | None:
    """Fields of the mixer a recipe asks for, as a model takes them."""
    return None if recipe.mixer is None else asdict(recipe.mixer)


def read_recipe(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    row: str | None = None,
    fold: int | None = None,
) -> Recipe:
    """Read a TOML recipe.

    Args:
        path: Of the file.
        overrides: ``section.key=value`` in TOML.
        row: Of a recipe with rows, which one (``training.rows``).
        fold: The official fold to test; it becomes part of the names of run and packed set.

    Raises:
        BadRecipe: naming the key that is wrong and what is allowed.
        UnknownName: There is no such model as it starts from.
        BadModelFile: That model is damaged.
    """
    path = Path(path)
    told = choose_row(read_toml(path), row, path)
    names = names_of(told)
    bare = not told.keys() & {"encoder", "model"}
    for override in overrides:
        set_key(told, override)
    if bare:
        take_network(told)
    name_run(told, path.stem, row, names, fold)
    return check_recipe(told)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read the file of a recipe as it is written.

    Raises:
        BadRecipe: It cannot be read.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRecipe(f"{path} cannot be read as a TOML recipe: {error}") from error


def check_recipe(told: dict[str, Any]) -> Recipe:
    """Turn a plain dictionary into a recipe.

    Raises:
        BadRecipe: naming the key that is wrong and what is allowed.
    """
    try:
        return TypeAdapter(Recipe).validate_python(told)
    except ValidationError as error:
        lines = [_explain(entry["loc"], entry) for entry in error.errors()]
        raise BadRecipe("The recipe is not valid. " + "; ".join(lines) + ".") from error


def _explain(place: tuple[int | str, ...], entry: Any) -> str:
    """Say what is wrong at one place of a recipe, and what would be right."""
    key = ".".join(map(str, place)) or "recipe"
    if entry["type"] == "unexpected_keyword_argument":
        known = _keys(place[:-1])
        close = get_close_matches(str(place[-1]), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return f"{key}: there is no such key.{hint} Known here: {', '.join(known)}"
    message = entry["msg"].removeprefix("Value error, ").rstrip(".")
    if entry["type"] in ("value_error", "missing", "missing_argument"):
        return f"{key}: {message}"
    return f"{key}: {message}; given was {entry['input']!r}"


def _keys(section: tuple[int | str, ...]) -> list[str]:
    """Keys allowed in a section of a recipe."""
    sections = {
        "data": Data,
        "denoise": Denoise,
        "energy": EnergyLoss,
        "machine": Machine,
        "mixer": Mixer,
        "optim": Optim,
        "published": Published,
    }
    kind = sections[str(section[0])] if section else Recipe
    return [entry.name for entry in fields(kind)]


def set_key(told: dict[str, Any], override: str) -> None:
    """Set one dotted key."""
    key, equals, text = override.partition("=")
    if not equals:
        raise BadRecipe(f"--set takes section.key=value, not {override!r}.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        hint = f"--set {key}='\"{text}\"'"
        raise BadRecipe(f"{text!r} is not a TOML value; strings need quotes: {hint}.") from error
    *sections, last = key.strip().split(".")
    for section in sections:
        told = told.setdefault(section, {})
        if not isinstance(told, dict):
            raise BadRecipe(
                f"--set {override}: {section!r} is a value, not a section of the recipe."
            )
    told[last] = value


def recipe_dict(recipe: Recipe) -> dict[str, Any]:
    """Turn a recipe into plain values, for JSON and TOML files."""
    plain = TypeAdapter(Recipe).dump_python(recipe, mode="json")
    assert isinstance(plain, dict)
    return plain
