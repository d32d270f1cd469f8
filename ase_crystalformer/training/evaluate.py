"""Judge a model on labelled crystals: errors with units, a JSON file, a parity plot."""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from ase_crystalformer.data.loader import Batch, EdgeBudgetSampler, loader, work
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.errors import BadModelFile, CrystalformerError, MissingData
from ase_crystalformer.heads import sum_over_atoms
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.fitting import compositions, element_energies
from ase_crystalformer.training.judged_set import check_judged, judged_by, open_or_pack
from ase_crystalformer.training.objective import error_name
from ase_crystalformer.training.parity import plot_parity
from ase_crystalformer.training.prepare import check_rule
from ase_crystalformer.training.record import write_json

LOGGER = logging.getLogger(__name__)

#: Work per batch of an evaluation: edges + 20 atoms.
BUDGET = 40_000

#: Energies are compared after a fit of element energies only if there are so many per element.
CRYSTALS_PER_ELEMENT = 3

Values = NDArray[np.float64]

#: Quantity and unit -> predicted and labelled values, NaN where there is no label.
Compared = dict[tuple[str, str], tuple[Values, Values]]


@dataclass(frozen=True, kw_only=True)
class Score:
    """How far predictions are from labels.

    Attributes:
        mae: Mean absolute error.
        rmse: Root of the mean squared error.
        unit: Of all but ``n``.
        n: How many labels.
        on: Which part of the data: ``train``, ``val``, ``test``, ``all``.
        spread: Mean absolute deviation of the labels from their median: the error of a constant.
    """

    mae: float
    rmse: float
    unit: str
    n: int
    on: str
    spread: float


def score(predicted: Values, label: Values, unit: str, on: str = "all") -> Score:
    """Compare predictions with labels."""
    error = predicted - label
    return Score(
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt((error**2).mean())),
        unit=unit,
        n=len(label),
        on=on,
        spread=float(np.abs(label - np.median(label)).mean()),
    )


def evaluate(
    model: CrystalModel,
    dataset: str | Path,
    *,
    split: str | None,
    out: str | Path,
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Score]:
    """Predict every labelled crystal; write ``scores.json`` and ``parity.png`` into ``out``.

    Energies on another scale than the model's are compared after energies of elements are fitted to
    the difference, as ``energy, elements fitted``.

    Args:
        model: Properties or a potential.
        dataset: A packed set, a file of labelled crystals, or the name of a public data set.
        split: ``train``, ``val`` or ``test``; None for all. Where no crystal is in any, all judge.
        out: Folder for the two files.
        data_dir: The folder with the files of public data sets.
        progress: Show a progress bar.

    Raises:
        UnknownName: There is no such split.
        MissingData: No crystal of that split, or none with a label; or the folder lacks the set.
        BadModelFile: No prediction that has a label is finite.
        BadRecipe: The packed set has other graphs than the model reads.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        packed, split = open_or_pack(model, Path(dataset), Path(scratch), data_dir, split)
        check_rule(packed, model.encoder, f"the model {model.card.name!r}")
        check_judged(model, packed)
        which = _computable(model, packed, split, dataset)
        compared = collect(model, packed, which, progress)
    _tell_without_logarithm(model, compared)
    pairs = labelled(compared)
    if not pairs:
        raise _nothing_compared(model, dataset, compared)
    scores = {name: score(*pair, unit, split or "all") for (name, unit), pair in pairs.items()}
    write_json(out / "scores.json", {name: vars(s) for name, s in scores.items()})
    plot_parity(pairs, {name: s.mae for name, s in scores.items()}, out / "parity.png")
    return scores


def _computable(
    model: CrystalModel, packed: PackedCrystals, split: str | None, dataset: str | Path
) -> NDArray[np.int64]:
    """Number the crystals of a split whose elements the model knows."""
    which = np.arange(len(packed)) if split is None else packed.where(split)
    which = of_known_elements(model, packed, which)
    if len(which) == 0:
        part = f" of split {split}" if split else ""
        raise MissingData(
            f"Nothing to judge in {dataset}: none of its crystals{part} is of elements alone that "
            f"{model.card.name!r} was trained on. Judge by others, or another model."
        )
    return which


def of_known_elements(
    model: CrystalModel, packed: PackedCrystals, which: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Leave out crystals with elements the model never saw; a warning says how many."""
    if not model.card.elements:
        return which
    present = compositions(packed, which, 118) > 0
    present[:, list(model.card.elements)] = False
    unseen = present.any(1)
    if unseen.any():
        LOGGER.warning("Left out %d crystals with elements the model never saw.", unseen.sum())
    return which[~unseen]


def _tell_without_logarithm(model: CrystalModel, compared: Compared) -> None:
    """Warn of labels that errors of logarithms leave out."""
    for target in model.targets:
        _, label = compared.get((target.name, target.unit), ((), np.zeros(0)))
        if target.kind == "log10" and (lost := int((label <= 0).sum())):
            LOGGER.warning(
                "%d labels of %s are not above zero, have no logarithm and are left out of %s.",
                *(lost, target.name, error_name(target)[0]),
            )


def labelled(compared: Compared) -> Compared:
    """Keep the pairs of finite numbers; quantities without any are left out.

    A warning tells how many labels have no finite prediction beside them.
    """
    pairs, lost = {}, 0
    for key, (predicted, label) in compared.items():
        known = np.isfinite(label)
        both = known & np.isfinite(predicted)
        lost += int((known & ~both).sum())
        if both.any():
            pairs[key] = predicted[both], label[both]
    if lost:
        LOGGER.warning("%d labels have no finite prediction beside them, and are left out.", lost)
    return pairs


def _nothing_compared(
    model: CrystalModel, dataset: str | Path, compared: Compared
) -> CrystalformerError:
    """Say what is missing where nothing can be compared: the labels, or predictions."""
    name = repr(model.card.name)
    known = [key for key, (_, label) in compared.items() if np.isfinite(label).any()]
    if known:
        return BadModelFile(
            f"{dataset} has labels of {', '.join(name for name, _ in known)}, but none of the "
            f"predictions of {name} beside them is finite, as of one whose training diverged. "
            "Train it anew, with a lower optim.peak_lr."
        )
    return MissingData(
        f"{dataset} has no label to judge {name} by. Name its columns after what the model "
        f"predicts: {', '.join(judged_by(model))}."
    )


def collect(
    model: CrystalModel, packed: PackedCrystals, which: NDArray[np.int64], progress: bool = True
) -> Compared:
    """Predict the crystals of a packed set, in order."""
    model.eval()
    found: dict[tuple[str, str], list[tuple[Tensor, Tensor]]] = {}
    sampler = EdgeBudgetSampler(work(packed), which, budget=BUDGET, seed=None)
    compare = _compare_energies if model.is_potential else _compare_properties
    for batch in tqdm(loader(packed, sampler), disable=not progress, desc="evaluate", unit="batch"):
        for key, predicted, label in compare(model, batch):
            found.setdefault(key, []).append((predicted.cpu(), label))
    compared = {key: _joined(pairs) for key, pairs in found.items()}
    if model.is_potential:
        return _by_scale(model, packed, which, compared)
    return compared


def _joined(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Values, Values]:
    predicted, label = (torch.cat(part).double().numpy() for part in zip(*pairs, strict=True))
    return predicted, label


Rows = Iterator[tuple[tuple[str, str], Tensor, Tensor]]


def _compare_properties(model: CrystalModel, batch: Batch) -> Rows:
    graph, labels = batch
    with torch.no_grad():
        values = model.properties(graph.to(model.device, model.dtype))
    for target in model.targets:
        if target.name not in labels:
            continue
        predicted, label = values[target.name], labels[target.name]
        if target.kind == "log10":
            yield error_name(target), predicted.log10(), label.log10()
        yield (target.name, target.unit), predicted, label


def _compare_energies(model: CrystalModel, batch: Batch) -> Rows:
    graph, labels = batch
    result = model.energy(graph.to(model.device, model.dtype))
    assert result.forces is not None
    assert result.stress is not None
    atoms = sum_over_atoms(torch.ones(graph.atoms, dtype=torch.float64), graph)
    yield ("energy", "eV/atom"), result.energy.cpu() / atoms, labels["energy"] / atoms
    yield ("forces", "eV/Å"), result.forces.flatten(), labels["forces"].flatten()
    yield ("stress", "eV/Å³"), result.stress.flatten(), labels["stress"].flatten()


def _by_scale(
    model: CrystalModel, packed: PackedCrystals, which: NDArray[np.int64], compared: Compared
) -> Compared:
    """Set energies on other scales apart, and move them to the model's as far as elements can."""
    groups: list[str] = packed.meta["names"]["group"]
    group = np.asarray(packed.arrays["group"])[which]
    predicted, label = compared["energy", "eV/atom"]
    counts = compositions(packed, which, 118)
    own, moved = label.copy(), np.full_like(label, np.nan)
    for number, name in enumerate(groups):
        if name == model.energy_scale:
            continue
        here = (group == number) & ~np.isnan(label)
        rows = np.flatnonzero(here & np.isfinite(predicted))
        if len(rows) >= CRYSTALS_PER_ELEMENT * np.count_nonzero(counts[rows].any(0)) > 0:
            atoms = counts[rows].sum(1)
            fitted = element_energies(counts[rows], (label - predicted)[rows] * atoms)
            moved[rows] = label[rows] - counts[rows] @ fitted / atoms
        if model.energy_scale in groups:
            own[here] = np.nan
    return {
        **compared,
        ("energy", "eV/atom"): (predicted, own),
        ("energy, elements fitted", "eV/atom"): (predicted, moved),
    }
