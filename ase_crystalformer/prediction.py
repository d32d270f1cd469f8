"""Properties of many structures as a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_crystalformer.errors import BadStructure, CrystalformerError, unknown_name
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.outside import ADVICE, GUESSED, outside, warn_outside
from ase_crystalformer.pretrained import ENERGY_PROPERTIES, shared_model
from ase_crystalformer.quantities import UNCERTAINTIES, Quantities
from ase_crystalformer.spacing import odd_spacing
from ase_crystalformer.structures import as_crystal
from ase_crystalformer.units import UNITS

if TYPE_CHECKING:
    from pandas import DataFrame

OF_POTENTIALS = ("energy", "energy_per_atom", "energy_uncertainty", "novelty")
"""What a calibrated potential predicts here."""


def predict(
    structures: Any,
    properties: Sequence[str] | None = None,
    *,
    model: str | Path | CrystalModel = "default-properties",
    device: str = "auto",
    progress: bool = True,
) -> "DataFrame":
    """Predict properties of many structures.

    Args:
        structures: ASE, pymatgen or JARVIS structures, in a list, a table column, or any iterable;
            or one of them.
        properties: Which; all the model knows if ``None``. A potential knows ``energy`` and
            ``energy_per_atom``; if it was calibrated, also ``energy_uncertainty`` and ``novelty``,
            the largest of the atoms, which is beyond 1 for structures outside of training.
        model: A name (see ``list_models``), the path of a model, or a model.
        device: ``"auto"`` takes a CUDA device if there is one.
        progress: Show a bar.

    Returns:
        One row per structure, in their order and with the index of a table column; one column per
        property, units in ``.attrs["units"]``; and a column ``error``, which says why a row is NaN
        and is ``None`` everywhere else. ``.attrs["outside"]`` says of rows, by number, why they are
        outside of training.

    Raises:
        UnknownName: There is no such model, or it knows no such property.
        BadStructure: ``structures`` is a whole table, not its column.

    Warns:
        OutsideTraining: Once, if structures are outside of what a calibrated potential knows. A
            property model knows no more than distances: it is told of atoms closer, or farther from
            all others, than in any ordinary crystal.

    Example:
        >>> from ase.build import bulk
        >>> from ase_crystalformer import predict
        >>> table = predict([bulk("Si"), bulk("Cu")], ["band_gap"])
    """
    from pandas import DataFrame, Series
    from tqdm.auto import tqdm

    chosen = shared_model(model, device)
    units = _units(chosen, properties)
    index = structures.index if isinstance(structures, Series) else None
    structures = as_list(structures)
    rows: list[Quantities] = [{} for _ in structures]
    strange: dict[int, str] = {}

    def watch(number: int, graph: CrystalGraph) -> None:
        if told := odd_spacing(structures[number], graph):
            strange[number] = told

    by_distances = watch if chosen.targets else None
    with tqdm(total=len(rows), disable=not progress, unit="crystal") as bar:
        for number, result in chosen.each(structures, derivatives=False, watch=by_distances):
            rows[number] = _row(result)
            if rows[number].get("novelty", 0.0) > 1:
                strange[number] = _outside(result, structures[number])
            bar.update()
    warn_outside(strange, len(rows), chosen.card.name, GUESSED if by_distances else ADVICE)
    table = DataFrame(rows, index=index, columns=[*units, "error"])
    table = table.astype(dict.fromkeys(units, float))
    table.attrs.update(units=units, model=chosen.card.name, outside=strange)
    return table


def as_list(structures: Any) -> list[Any]:
    """List structures; one on its own, which is an iterable of its atoms, is a list of one.

    Raises:
        BadStructure: It is a whole table or a dictionary, which lists its names.
    """
    single = ("get_atomic_numbers", "lattice_mat", "cart_coords", "species")
    if isinstance(structures, str | Path) or any(hasattr(structures, name) for name in single):
        return [structures]
    if hasattr(structures, "columns") or isinstance(structures, Mapping):
        names = ", ".join(map(str, structures))
        raise BadStructure(
            f"A {type(structures).__name__} with {names} is no list of structures. Give its "
            "column, such as table['structure'], or its values."
        )
    return list(structures)


def _units(model: CrystalModel, properties: Sequence[str] | None) -> dict[str, str]:
    """Return the properties asked for, each with its unit."""
    known = {target.name: target.unit for target in model.targets}
    own = ("energy_uncertainty", "novelty") if model.uncertainty else ()
    known = known or {name: UNITS[name] for name in ("energy", "energy_per_atom", *own)}
    asked = [properties] if isinstance(properties, str) else list(properties or known)
    for name in asked:
        if name not in known:
            advice = _advice(name) if model.targets else ""
            raise unknown_name(f"property of model {model.card.name!r}", name, known, advice)
    return {name: known[name] for name in asked}


def _advice(name: str) -> str:
    """Say where a property comes from that no property model knows; nothing of other names."""
    if name in OF_POTENTIALS:
        return f"A potential tells {name}: model='default', on the command line -m default."
    if name in (*ENERGY_PROPERTIES, *UNCERTAINTIES):
        return f"A potential tells {name}, through CrystalformerCalculator or relax."
    return ""


def _row(result: Quantities | CrystalformerError) -> Quantities:
    if isinstance(result, CrystalformerError):
        return {"error": f"{type(result).__name__}: {result}"}
    row = {**result, "error": None}
    if "energies" in result:
        row["energy_per_atom"] = result["energy"] / len(result["energies"])
    if "novelty" in result:
        row["novelty"] = float(result["novelty"].max())
    return row


def _outside(result: Quantities | CrystalformerError, structure: Any) -> str:
    """Name the atom that is farthest from training."""
    assert not isinstance(result, CrystalformerError)
    return outside(result["novelty"], as_crystal(structure).species)
