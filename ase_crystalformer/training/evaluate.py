"""Judge a model on labelled crystals: errors with units, a JSON file, a parity plot."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ase_crystalformer.data.loader import Batch, EdgeBudgetSampler, loader, work
from ase_crystalformer.data.packed import PackedCrystals, pack
from ase_crystalformer.data.readers import load
from ase_crystalformer.heads import sum_over_atoms
from ase_crystalformer.model import CrystalModel

#: Work per batch of an evaluation: edges + 20 atoms.
BUDGET = 40_000

#: Predicted and labelled values of a quantity, in its unit.
Pairs = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Score:
    """How far predictions are from labels.

    Attributes:
        unit: Of all but ``count``.
        count: How many labels.
        mae: Mean absolute error.
        rmse: Root of the mean squared error.
        spread: Mean absolute deviation of the labels from their median: the error of a constant.
    """

    unit: str
    count: int
    mae: float
    rmse: float
    spread: float


def score(predicted: NDArray[np.float64], label: NDArray[np.float64], unit: str) -> Score:
    """Compare predictions with labels."""
    error = predicted - label
    return Score(
        unit=unit,
        count=len(label),
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt((error**2).mean())),
        spread=float(np.abs(label - np.median(label)).mean()),
    )


def evaluate(
    model: CrystalModel, dataset: str | Path, *, split: str | None, out: str | Path, progress: bool = True
) -> dict[str, Score]:
    """Predict every labelled crystal; write ``scores.json`` and ``parity.png`` into ``out``.

    Args:
        model: Properties or a potential.
        dataset: A packed set, or a file of labelled crystals.
        split: Which part; None for all.
        out: Folder for the two files.
        progress: Show a progress bar.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        packed = _packed(model, Path(dataset), Path(scratch))
        which = np.arange(len(packed)) if split is None else packed.where(split)
        pairs = collect(model, packed, which, progress)
    scores = {name: score(*pair, unit) for (name, unit), pair in pairs.items() if len(pair[0])}
    text = json.dumps({name: vars(value) for name, value in scores.items()}, indent=1, ensure_ascii=False)
    (out / "scores.json").write_text(text + "\n", encoding="utf-8")
    plot_parity({name: (pairs[name, s.unit], s) for name, s in scores.items()}, out / "parity.png")
    return scores


def _packed(model: CrystalModel, dataset: Path, scratch: Path) -> PackedCrystals:
    """Open a packed set, or pack a file as the model's encoder wants it."""
    if (dataset / "meta.json").is_file():
        return PackedCrystals(dataset)
    labels = ["energy"] if model.is_potential else [target.name for target in model.targets]
    symmetric = not model.is_potential and model.encoder.claims.orbits is True
    pack(load(str(dataset)), model.encoder.rule, scratch / "packed", labels=labels, by_symmetry=symmetric)
    return PackedCrystals(scratch / "packed")


def collect(
    model: CrystalModel, packed: PackedCrystals, which: NDArray[np.int64], progress: bool = True
) -> dict[tuple[str, str], Pairs]:
    """Predict; return the labelled values of every (quantity, unit)."""
    model.eval()
    found: dict[tuple[str, str], list[tuple[Any, Any]]] = {}
    sampler = EdgeBudgetSampler(work(packed), which, budget=BUDGET, seed=None)
    compare = _compare_energies if model.is_potential else _compare_properties
    for batch in tqdm(loader(packed, sampler), disable=not progress, desc="evaluate", unit="batch"):
        for key, predicted, label in compare(model, batch):
            known = label.isfinite()
            pair = (predicted[known].double().cpu().numpy(), label[known].double().cpu().numpy())
            found.setdefault(key, []).append(pair)
    return {key: tuple(map(np.concatenate, zip(*pairs, strict=True))) for key, pairs in found.items()}


Compared = Iterator[tuple[tuple[str, str], torch.Tensor, torch.Tensor]]


@torch.no_grad()
def _compare_properties(model: CrystalModel, batch: Batch) -> Compared:
    graph, labels = batch
    values = model.properties(graph.to(model.device, model.dtype))
    for target in model.targets:
        predicted, label = values[target.name].cpu(), labels[target.name]
        if target.kind == "log10":
            yield (f"log10 {target.name}", f"log10 {target.unit}"), predicted.log10(), label.log10()
        yield (target.name, target.unit), predicted, label


def _compare_energies(model: CrystalModel, batch: Batch) -> Compared:
    graph, labels = batch
    result = model.energy(graph.to(model.device, model.dtype))
    assert result.forces is not None and result.stress is not None
    atoms = sum_over_atoms(torch.ones(graph.atoms, dtype=torch.float64), graph)
    yield ("energy per atom", "eV/atom"), result.energy.cpu() / atoms, labels["energy"] / atoms
    yield ("forces", "eV/Å"), result.forces.cpu().flatten(), labels["forces"].flatten()
    yield ("stress", "eV/Å³"), result.stress.cpu().flatten(), labels["stress"].flatten()


def plot_parity(panels: dict[str, tuple[Pairs, Score]], path: Path) -> None:
    """Draw predicted against labelled values, one panel per quantity, darker where there are more."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels), 4), layout="constrained")
    for axes, (name, (pair, told)) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True
    ):
        low, high = np.percentile(np.concatenate(pair), [0.1, 99.9])
        margin = 0.03 * (high - low) or 1.0
        box = (low - margin, high + margin)
        axes.hexbin(pair[1], pair[0], gridsize=70, bins="log", mincnt=1, cmap="viridis", extent=box * 2)
        axes.plot(box, box, color="black", linewidth=0.8)
        axes.set(xlim=box, ylim=box, aspect="equal", xlabel=f"reference ({told.unit})")
        axes.set_ylabel(f"predicted ({told.unit})")
        axes.set_title(f"{name.replace('_', ' ')}\nMAE {told.mae:.3g} {told.unit}, n = {told.count}", fontsize=9)
    figure.savefig(path, dpi=130)
