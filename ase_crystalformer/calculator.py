"""Crystal transformers where materials scientists already work: behind an ASE calculator."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
    compare_atoms,
)

from ase_crystalformer.dispersion import Dispersion
from ase_crystalformer.errors import CrystalformerError
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.neighbours import Radius, VerletList
from ase_crystalformer.outside import ADVICE, GUESSED, outside, warn_once
from ase_crystalformer.pretrained import (
    ENERGY_PROPERTIES,
    Precision,
    describe,
    digest_of,
    name_of,
    shared_model,
    shared_potential,
)
from ase_crystalformer.quantities import (
    UNCERTAINTIES,
    Quantities,
    Results,
    energy_quantities,
)
from ase_crystalformer.spacing import odd_spacing

if TYPE_CHECKING:
    from ase import Atoms

#: What an energy costs less for than its derivatives.
WITHOUT_DERIVATIVES = {"energy", "free_energy", "energies", "energy_uncertainty", "novelty"}


class CrystalformerCalculator(Calculator):
    """Energy, forces, stress and other properties of any structure, by a crystal transformer.

    Stress is defined for structures that are periodic in all three directions. Other properties,
    such as ``calc.get_property("band_gap", atoms)``, come from a second model, which is loaded when
    one is first asked for. They are never in ``results``: ASE writes those, and knows no band gap.

    A calibrated potential also tells what it expects to be wrong by: ``results`` then knows
    ``energy_uncertainty`` (eV), ``forces_uncertainty`` (eV/Å, of every atom) and ``novelty`` (of
    every atom; beyond 1 its surroundings are outside of training) by name, but does not list them.
    The first structure outside of training is warned about (``OutsideTraining``), later ones not.

    Args:
        model: A potential: ``"small"`` (the default), ``"accurate"``, another name (see
            ``list_models``), the path of a model, or a model, which is copied.
        property_model: What predicts the other properties; likewise, or ``None``.
        device: ``"auto"`` takes a CUDA device if there is one.
        dtype: ``"float64"`` where energies are differentiated numerically, e.g. for phonons.
        dispersion: Add Grimme's D3 for PBE to energy, forces and stress: ``"d3bj"`` or
            ``"d3zero"`` (see ``Dispersion``). PBE, and a potential that learned from it, hardly
            holds layers and molecules together.

    Raises:
        UnknownName: There is no such model or dispersion.
        MissingExtra: Dispersion is asked for and simple-dftd3 is not installed.
        BadModelFile: Its files are missing or damaged.
        NoForces: The model is no potential, or its energy has kinks.

    Example:
        >>> from ase.build import bulk
        >>> from ase_crystalformer import CrystalformerCalculator
        >>> salt = bulk("NaCl", "rocksalt", a=5.64)
        >>> salt.calc = CrystalformerCalculator()
        >>> energy = salt.get_potential_energy()
    """

    name = "crystalformer"

    def __init__(
        self,
        model: str | Path | CrystalModel = "default",
        *,
        property_model: str | Path | CrystalModel | None = "default-properties",
        device: str = "auto",
        dtype: Precision = "float32",
        dispersion: str | None = None,
    ) -> None:
        super().__init__()
        self._dispersion = Dispersion(dispersion) if dispersion else None
        self.model = shared_potential(model, device, dtype)
        assert isinstance(self.model.encoder.rule, Radius)
        self._pairs = VerletList(self.model.encoder.rule)
        self._property_model = property_model
        self._properties = _properties_of(property_model)
        if set(self._properties) & set(ENERGY_PROPERTIES):
            raise ValueError(
                f"property_model is {name_of(property_model)!r}, a potential. Give it as model; "
                "property_model is what predicts band gaps and the like."
            )
        self._predicted: tuple[Atoms, Quantities] | None = None
        self._derivatives = self._warned = self._guessed = False
        own = UNCERTAINTIES if self.model.uncertainty else ()
        self.implemented_properties = [*ENERGY_PROPERTIES, *own, *self._properties]
        self.parameters.update(
            model=name_of(model),
            sha256=digest_of(model),
            property_model=name_of(property_model),
            device=str(self.model.device),
            dtype=dtype,
            dispersion=dispersion,
        )

    def __repr__(self) -> str:
        shown = ["model", "property_model", "device", "dtype"]
        shown += ["dispersion"] * (self._dispersion is not None)
        told = ", ".join(f"{key}={self.parameters[key]!r}" for key in shown)
        return f"{type(self).__name__}({told})"

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Refuse to change; a calculator is what it was made as."""
        if kwargs:
            raise TypeError(
                f"{', '.join(kwargs)} cannot be set. A calculator keeps its settings "
                f"({', '.join(self.parameters)}); make another one."
            )
        return {}

    def calculate(
        self,
        atoms: "Atoms | None" = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute energies, and once they were asked for, forces and stress with them.

        Raises:
            BadStructure: The structure cannot be computed.
            UnseenElement: The model does not know one of its elements.
            PropertyNotImplementedError: Stress was asked of what is no three-dimensional crystal.
        """
        self.results = Results({})
        super().calculate(atoms, properties, system_changes)
        _refuse_without_atoms(self.atoms, properties)
        if "stress" in properties:
            _refuse_without_volume(self.atoms)
        self.model.check_elements(torch.from_numpy(self.atoms.numbers))
        self._derivatives |= not set(properties) <= WITHOUT_DERIVATIVES
        graph = self._pairs.update(self.atoms).to(self.model.device, self.model.dtype)
        result = self.model.energy(graph, derivatives=self._derivatives)
        if self._dispersion:
            result = self._dispersion.add(result, graph)
        found = _sound(energy_quantities(result, graph)[0])
        self.results = Results(found)
        if not self._warned:
            told = outside(found.get("novelty"), self.atoms.numbers)
            self._warned = warn_once(told, self.model.card.name, ADVICE)

    def get_property(
        self, name: str, atoms: "Atoms | None" = None, allow_calculation: bool = True
    ) -> Any:
        """Return a property: those of ASE from the potential, others from the property model."""
        if name in self._properties:
            return self._predict(name, self.atoms if atoms is None else atoms, allow_calculation)
        if name == "stress" and atoms is not None and allow_calculation:
            _refuse_without_volume(atoms)
        if name in self.implemented_properties and allow_calculation:
            _refuse_without_atoms(self.atoms if atoms is None else atoms, [name])
        return super().get_property(name, atoms, allow_calculation)

    def _predict(self, name: str, atoms: "Atoms | None", allow_calculation: bool) -> float | None:
        _refuse_without_atoms(atoms, [name])
        assert atoms is not None
        assert self._property_model is not None
        if self._predicted is None or compare_atoms(self._predicted[0], atoms):
            if not allow_calculation:
                return None
            device, dtype = self.parameters["device"], self.parameters["dtype"]
            model = shared_model(self._property_model, device, dtype)
            drawn: list[CrystalGraph] = []
            [(_, found)] = model.each([atoms], watch=lambda _, graph: drawn.append(graph))
            self._predicted = atoms.copy(), _sound(found)
            if not self._guessed:
                odd = odd_spacing(atoms, drawn[0])
                self._guessed = warn_once(odd, model.card.name, GUESSED)
        return self._predicted[1][name]


def _refuse_without_atoms(atoms: "Atoms | None", properties: Sequence[str]) -> None:
    if atoms is None:
        raise ValueError(
            f"{', '.join(properties)} of which structure? Give atoms, as in "
            "get_potential_energy(atoms), or ask the atoms after atoms.calc = calculator."
        )


def _refuse_without_volume(atoms: "Atoms") -> None:
    if not atoms.pbc.all():
        raise PropertyNotImplementedError(
            f"Stress is energy per volume, and with pbc={atoms.pbc.tolist()} there is no volume. "
            "Make it periodic in three directions (with vacuum), or relax with a fixed cell."
        )


def _sound(values: Quantities | CrystalformerError) -> Quantities:
    if isinstance(values, CrystalformerError):
        raise values
    return values


def _properties_of(model: str | Path | CrystalModel | None) -> list[str]:
    if model is None:
        return []
    if isinstance(model, CrystalModel):
        return [target.name for target in model.targets]
    return list(describe(model).units)
