"""From tensors to numbers users get: Python floats and float64 arrays, as ASE defines them."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, TypeAlias

from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ase_crystalformer.errors import BadStructure, CrystalformerError
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.heads import EnergyResult

Quantities: TypeAlias = dict[str, Any]

UNCERTAINTIES = ("energy_uncertainty", "forces_uncertainty", "novelty")
"""What a calibrated potential says of its errors; ASE has no such properties."""

_VOIGT = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))


def voigt(stress: Float[Tensor, "crystals 3 3"]) -> Float[Tensor, "crystals 6"]:
    """Write symmetric tensors as xx, yy, zz, yz, xz, xy."""
    return stress[:, _VOIGT[0], _VOIGT[1]]


def energy_quantities(
    result: EnergyResult, graph: CrystalGraph
) -> list[Quantities | CrystalformerError]:
    """Split the result of a batch into energy, forces and stress of every crystal.

    Stress is there only where the crystal is periodic in all directions, uncertainty only if the
    model was calibrated. A crystal whose numbers are not finite gets an error instead.
    """
    counts = graph.crystal.bincount(minlength=graph.crystals).tolist()
    energies = _parts(result.energies, counts)
    forces = _parts(result.forces, counts)
    stress = None if result.stress is None else _array(voigt(result.stress))
    periodic = graph.periodic.all(1).tolist()
    uncertainty = _uncertainties(result, counts)
    found: list[Quantities | CrystalformerError] = []
    for number, energy in enumerate(result.energy.tolist()):
        values: Quantities = {"energy": energy, "free_energy": energy}
        values["energies"] = energies[number]
        if forces:
            values["forces"] = forces[number]
        if stress is not None and periodic[number]:
            values["stress"] = stress[number]
        values.update(uncertainty[number])
        found.append(_finite(values))
    return found


def _uncertainties(result: EnergyResult, counts: list[int]) -> list[Quantities]:
    """Split what the model says of its errors."""
    told = result.uncertainty
    if told is None:
        return [{} for _ in counts]
    parts: dict[str, list[Any]] = {
        "energy_uncertainty": told.energy.tolist(),
        "novelty": _parts(told.novelty, counts),
    }
    if told.forces is not None:
        parts["forces_uncertainty"] = _parts(told.forces, counts)
    return [{name: part[number] for name, part in parts.items()} for number in range(len(counts))]


def property_quantities(
    properties: Mapping[str, Float[Tensor, " crystals"]],
) -> list[Quantities | CrystalformerError]:
    """Split the properties of a batch into those of every crystal."""
    columns = [values.double().tolist() for values in properties.values()]
    rows = zip(*columns, strict=True)
    return [_finite(dict(zip(properties, row, strict=True))) for row in rows]


def _finite(values: Quantities) -> Quantities | CrystalformerError:
    """Return the quantities, or what is wrong with them."""
    for name, value in values.items():
        # A sum is finite only if all of its terms are, and costs less than asking each.
        total = value.sum() if isinstance(value, ndarray) else value
        if not isfinite(total):
            return BadStructure(
                f"The model gives {name} = {value}, with dispersion where that was asked for. The "
                "structure is far from anything it knows; check distances between atoms and the "
                "cell."
            )
    return values


def _array(values: Tensor) -> ndarray:
    return values.double().cpu().numpy()


def _parts(values: Tensor | None, counts: list[int]) -> list[ndarray]:
    if values is None:
        return []
    return [_array(part) for part in values.cpu().split(counts)]


class Results(dict[str, Any]):
    """Results of a calculator, and the uncertainties besides.

    ASE's writers and ``SinglePointCalculator(atoms, **results)`` refuse properties they do not
    know. So uncertainties are found by name, as in any dictionary, but are not among the keys.

    Example:
        >>> results = Results({"energy": -1.0, "energy_uncertainty": 0.1})
        >>> results["energy_uncertainty"], "energy_uncertainty" in results, list(results)
        (0.1, True, ['energy'])
    """

    def __init__(self, values: Quantities) -> None:
        super().__init__({key: values[key] for key in values if key not in UNCERTAINTIES})
        self.uncertainties = {key: values[key] for key in UNCERTAINTIES if key in values}

    def __missing__(self, name: str) -> Any:
        return self.uncertainties[name]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.uncertainties

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value, or the default if it is not there."""
        return super().get(name, self.uncertainties.get(name, default))

    def copy(self) -> "Results":
        """Return a copy that knows the uncertainties too."""
        return Results({**self, **self.uncertainties})
