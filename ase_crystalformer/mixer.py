"""A global mixer: what any encoder says of its atoms, mixed over the crystal beyond its reach.

Linear attention over all atoms and all images (``nn.plane_waves``) is added to the features of an
encoder. It starts at nothing, so that a trained model with a new mixer is the model it was.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ase_crystalformer.encoders import ENCODERS, AtomFeatures, Encoder
from ase_crystalformer.encoders.base import Broken
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.nn.plane_waves import PlaneWaveAttention, PlaneWaves


@dataclass(frozen=True, kw_only=True)
class MixerConfig:
    """Size of a mixer: the table ``[mixer]`` of a recipe.

    Attributes:
        reach: Width of the Gaussian of the distance, Å.
        heads: Attention heads; must divide ``channels``.
        channels: Of what is mixed, all heads together.
        features: Positive features of queries and keys per head.
    """

    reach: float = 8.0
    heads: int = 4
    channels: int = 32
    features: int = 4

    def __post_init__(self) -> None:
        if not self.reach > 0:
            raise ValueError(f"reach is {self.reach}; a positive number of Å is needed.")
        if min(self.heads, self.channels, self.features) < 1:
            raise ValueError(
                f"heads, channels and features are {self.heads}, {self.channels} and "
                f"{self.features}; each is one or more."
            )
        if self.channels % self.heads:
            raise ValueError(
                f"heads must divide channels; {self.heads} do not divide {self.channels}."
            )


class Mixer(nn.Module):
    """What attention over all atoms adds to the features of each; at first, nothing."""

    def __init__(self, width: int, config: MixerConfig) -> None:
        super().__init__()
        self.reach = config.reach
        self.norm = nn.LayerNorm(width)
        self.attention = PlaneWaveAttention(width, config.channels, config.heads, config.features)
        self.gain = nn.Parameter(torch.zeros(width))

    def forward(
        self, x: Float[Tensor, "atoms width"], graph: CrystalGraph
    ) -> Float[Tensor, "atoms width"]:
        places = (graph.positions, graph.cell, graph.periodic, graph.crystal)
        return self.gain * self.attention(self.norm(x), PlaneWaves.build(*places, self.reach))


@dataclass(frozen=True, kw_only=True)
class MixedConfig:
    """An encoder by name, its own configuration, and its mixer's."""

    encoder: str
    config: Any
    mixer: MixerConfig


class MixedEncoder(Encoder):
    """An encoder with a global mixer behind it."""

    reads_positions = True

    def __init__(self, config: MixedConfig) -> None:
        super().__init__()
        self.config = config
        build, _ = ENCODERS[config.encoder]
        self.local = build(config.config)
        self.mixer = Mixer(self.local.width, config.mixer)
        self.width, self.rule = self.local.width, self.local.rule
        self.citation = self.local.citation
        self.claims = replace(
            self.local.claims,
            orbits=Broken(because="the mixer's waves pass through every atom, not one per orbit"),
        )

    def forward(self, graph: CrystalGraph) -> AtomFeatures:
        features = self.local(graph)
        mixed = features.invariant + self.mixer(features.invariant, graph)
        return replace(features, invariant=mixed)


def make_encoder(name: str, config: dict[str, Any], mixer: dict[str, Any] | None = None) -> Encoder:
    """Make an encoder by name, with a mixer if one is configured."""
    build, config_type = ENCODERS[name]
    # TOML and JSON have lists only; a configuration does not change.
    own = config_type(**{key: fixed(value) for key, value in config.items()})
    if mixer is None:
        return build(own)
    return MixedEncoder(MixedConfig(encoder=name, config=own, mixer=MixerConfig(**mixer)))


def fixed(value: Any) -> Any:
    """Turn a list of TOML or JSON into what a configuration holds; anything else stays."""
    return tuple(value) if isinstance(value, list) else value


def describe_encoder(encoder: Encoder) -> dict[str, Any]:
    """Write the configuration of an encoder, and of its mixer if it has one, as plain values."""
    if isinstance(encoder, MixedEncoder):
        told = encoder.config
        return {"config": asdict(told.config), "mixer": asdict(told.mixer)}
    return {"config": asdict(encoder.config)}
