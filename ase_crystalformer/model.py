"""A crystal model: an encoder, a head, and what must be known to use them later."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ase_crystalformer.batching import in_batches
from ase_crystalformer.card import Card
from ase_crystalformer.encoders import ENCODERS
from ase_crystalformer.errors import (
    BadModelFile,
    CrystalformerError,
    NoForces,
    UnseenElement,
    unknown_name,
)
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.heads import (
    EnergyHead,
    EnergyResult,
    PropertyHead,
    forces_and_stress,
    sum_over_atoms,
    with_leaves,
)
from ase_crystalformer.mixer import describe_encoder, make_encoder
from ase_crystalformer.model_file import read_model_file, write_model_file
from ase_crystalformer.neighbours import Radius, build
from ase_crystalformer.quantities import Quantities, energy_quantities, property_quantities
from ase_crystalformer.targets import Target
from ase_crystalformer.uncertainty import UncertaintyConfig, UncertaintyHead


class CrystalModel(nn.Module):
    """Encoder + head + card; of a calibrated potential also an uncertainty head.

    Args:
        encoder: A name in ``ENCODERS``.
        config: Fields of that encoder's configuration.
        targets: What a property model predicts; empty for a potential, and where an encoder was
            pretrained and predicts nothing yet.
        energy_scale: Of a potential, whose code and zero its energies stand on; else None.
        mixer: Fields of a ``MixerConfig``, for attention over all atoms behind the encoder.
        card: Origin and errors.

    Raises:
        UnknownName: if there is no such encoder.
    """

    def __init__(
        self,
        encoder: str,
        config: dict[str, Any],
        *,
        targets: Sequence[Target] = (),
        energy_scale: str | None = None,
        mixer: dict[str, Any] | None = None,
        card: Card | None = None,
    ) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise unknown_name("encoder", encoder, ENCODERS)
        if targets and energy_scale:
            raise ValueError(
                "A model has either targets (properties) or an energy_scale (a potential)."
            )
        self.encoder_name = encoder
        self.encoder = make_encoder(encoder, config, mixer)
        self.card = card or Card()
        self.targets = tuple(targets)
        self.energy_scale = energy_scale
        width = self.encoder.width
        self.head = EnergyHead(width) if energy_scale else PropertyHead(width, targets)
        self.uncertainty: UncertaintyHead | None = None

    @property
    def is_potential(self) -> bool:
        """Whether the model gives energy, forces and stress."""
        return self.energy_scale is not None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.parameters()).dtype

    def check_elements(self, species: Tensor) -> None:
        """Refuse atoms the model has never seen.

        Raises:
            UnseenElement: naming the elements.
        """
        seen = set(self.card.elements)
        unseen = sorted(set(species.tolist()) - seen) if seen else []
        if unseen:
            from ase.data import chemical_symbols

            names = ", ".join(chemical_symbols[number] for number in unseen)
            raise UnseenElement(
                f"Model {self.card.name!r} was trained without {names}; it knows {len(seen)} "
                "elements (its card lists them). Use another model, or train one on them."
            )

    def check_smooth(self) -> None:
        """Refuse to take derivatives of an energy that jumps.

        Raises:
            NoForces: saying what is not smooth.
        """
        smooth = self.encoder.claims.smooth
        if not isinstance(self.encoder.rule, Radius) or smooth is not True:
            because = getattr(smooth, "because", "pairs come and go at once")
            raise NoForces(
                f"The energy of {self.card.name!r} is not smooth ({because}), so its forces "
                "would be wrong. Use a model whose encoder is in smooth mode."
            )

    def forward(self, graph: CrystalGraph) -> dict[str, Tensor]:
        """Raw head outputs of a property model, per target (crystals, outputs)."""
        assert isinstance(self.head, PropertyHead)
        return self.head(self.encoder(graph), graph)

    def properties(self, graph: CrystalGraph) -> dict[str, Float[Tensor, " crystals"]]:
        """Every target of a property model, in its unit."""
        raw = self(graph)
        return {target.name: target.decode(raw[target.name]) for target in self.targets}

    def energy(self, graph: CrystalGraph, *, derivatives: bool = True) -> EnergyResult:
        """Energy of every crystal in float64, with forces and stress if asked.

        Raises:
            NoForces: if this is a property model, or derivatives are asked of one that is not
                smooth.
        """
        if not isinstance(self.head, EnergyHead):
            raise NoForces(
                f"{self.card.name!r} predicts "
                f"{', '.join(t.name for t in self.targets) or 'nothing, it is an encoder alone'}; "
                "it has no energy, forces or stress. Use a potential, e.g. 'default'."
            )
        if derivatives:
            self.check_smooth()
        with torch.inference_mode(False), torch.set_grad_enabled(derivatives):
            graph = graph.recorded()
            leaf = with_leaves(graph, self.encoder, record=derivatives)
            features = self.encoder(leaf)
            own = self.head.interaction(features, leaf)
            forces = stress = None
            if derivatives:
                forces, stress = (part.detach() for part in forces_and_stress(own.sum(), leaf))
        energies = own.detach().double() + self.head.references(graph)
        total = sum_over_atoms(energies, graph)
        found = EnergyResult(energies=energies, energy=total, forces=forces, stress=stress)
        if self.uncertainty is None:
            return found
        with torch.no_grad():
            expected = self.uncertainty(features.invariant.detach(), graph, forces)
        return replace(found, uncertainty=expected)

    def draw(self, structure: Any) -> CrystalGraph:
        """Draw the graph this model reads.

        Raises:
            BadStructure: if it cannot be computed.
            UnseenElement: if the model does not know one of its elements.
        """
        graph = build(structure, self.encoder.rule)
        self.check_elements(graph.species)
        return graph

    def each(
        self,
        structures: Iterable[Any],
        *,
        derivatives: bool = True,
        watch: Callable[[int, CrystalGraph], None] | None = None,
    ) -> Iterator[tuple[int, Quantities | CrystalformerError]]:
        """Predict for many structures, in batches; yield number and result as they are ready.

        A structure that cannot be computed yields its error; the others are computed. ``watch`` is
        shown number and graph of every structure before.
        """
        numbers = count()

        def draw(structure: Any) -> CrystalGraph:
            number, graph = next(numbers), self.draw(structure)
            if watch is not None:
                watch(number, graph)
            return graph

        def compute(graph: CrystalGraph) -> list[Quantities | CrystalformerError]:
            graph = graph.to(self.device, self.dtype)
            if self.targets:
                with torch.no_grad():
                    return property_quantities(self.properties(graph))
            return energy_quantities(self.energy(graph, derivatives=derivatives), graph)

        return in_batches(structures, draw, compute, self.device)

    def predict(self, structures: Sequence[Any]) -> list[Quantities]:
        """Predict for many structures, in batches.

        Returns:
            One dictionary per structure, in their order: every target of a property model in its
            unit, or energy, free_energy, energies, forces and stress of a potential as in ASE. If
            it was calibrated also energy_uncertainty (eV), forces_uncertainty (eV/Å, every atom)
            and novelty (every atom; beyond 1 it is outside of training).

        Raises:
            CrystalformerError: for the first structure that cannot be computed, ``BadStructure``
                or ``OutOfMemory``; ``each`` goes on.
        """
        results: dict[int, Quantities] = {}
        for number, result in self.each(structures):
            if isinstance(result, CrystalformerError):
                raise result
            results[number] = result
        return [results[number] for number in range(len(structures))]

    def with_mixer(self, mixer: dict[str, Any]) -> "CrystalModel":
        """Return a copy with a new mixer behind the encoder; it predicts the same until trained.

        Raises:
            ValueError: There is a mixer already.
        """
        told = describe_encoder(self.encoder)
        if "mixer" in told:
            raise ValueError(f"{self.card.name!r} has a mixer already: {told['mixer']}.")
        with torch.inference_mode(False):  # Else a copy made inside it could never give forces.
            new = deepcopy(self)
            mixed = make_encoder(self.encoder_name, told["config"], mixer)
            mixed.to(self.device, self.dtype).local = new.encoder
            new.encoder = mixed
        return new.train(self.training)

    def save(self, path: str | Path) -> Path:
        """Write ``path.safetensors`` and ``path.json``; each appears complete or not at all.

        Returns:
            Path of the weights.
        """
        return write_model_file(path, self._description(), self.state_dict())

    def _description(self) -> dict[str, Any]:
        return {
            "encoder": self.encoder_name,
            **describe_encoder(self.encoder),
            "targets": [asdict(target) for target in self.targets],
            "energy_scale": self.energy_scale,
            **({"uncertainty": asdict(self.uncertainty.config)} if self.uncertainty else {}),
            "card": asdict(self.card),
        }

    @classmethod
    def load(cls, path: str | Path) -> "CrystalModel":
        """Read a model that ``save`` wrote.

        Raises:
            BadModelFile: if a file is missing, truncated, altered, or of another kind.
        """
        told, weights = read_model_file(path)
        try:
            model = cls(
                told["encoder"],
                told["config"],
                targets=[Target(**target) for target in told["targets"]],
                energy_scale=told["energy_scale"],
                mixer=told.get("mixer"),
                card=Card.read(told["card"]),
            )
            if told.get("uncertainty"):
                config = UncertaintyConfig(**told["uncertainty"])
                model.uncertainty = UncertaintyHead(model.encoder.width, config)
            model.load_state_dict(weights)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BadModelFile(
                f"{path} does not describe a model of this version: {error}. Fetch it again."
            ) from error
        return model.eval()
