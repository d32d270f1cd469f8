"""What a potential says of labelled crystals, and by how much it is wrong."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from tqdm.auto import tqdm

from ase_crystalformer.data.holdout import draw
from ase_crystalformer.data.loader import Batch, EdgeBudgetSampler, loader, work
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.heads import EnergyHead, forces_and_stress, sum_over_atoms, with_leaves
from ase_crystalformer.model import CrystalModel

#: Work per batch: edges + 20 atoms.
BUDGET = 40_000

#: A series with more frames is a run, cut along time; a shorter one is of one crystal.
LONG = 10

#: Forces below this are zero, eV/Å: where labels and predictions are, symmetry forbids forces.
ZERO = 1e-3


@dataclass(frozen=True, eq=False, kw_only=True)
class Seen:
    """Atoms of a packed set as a potential sees them.

    Attributes:
        features: Of every atom.
        species: Atomic numbers.
        crystal: Which crystal each atom belongs to.
    """

    features: Float[Tensor, "atoms width"]
    species: Int[Tensor, " atoms"]
    crystal: Int[Tensor, " atoms"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Judged(Seen):
    """The same, and how wrong it was.

    Attributes:
        forces: Predicted, eV/Å.
        force_error: Length of the error of the force on every atom, eV/Å; NaN without a label, and
            where symmetry forbids forces: nothing can be wrong there.
        energy_error: Of every crystal, absolute, eV; NaN without a label on the model's scale.
        source: Set of data of every crystal.
        part: Where every crystal stands between 0 and 1; frames of one crystal stand together.
    """

    forces: Float[Tensor, "atoms 3"]
    force_error: Float[Tensor, " atoms"]
    energy_error: Float[Tensor, " crystals"]
    source: Int[Tensor, " crystals"]
    part: Float[Tensor, " crystals"]

    @property
    def atoms(self) -> Int[Tensor, " crystals"]:
        """Number of atoms of every crystal."""
        return self.crystal.bincount(minlength=len(self.part))


def look(
    model: CrystalModel, packed: PackedCrystals, which: Int[ndarray, " crystals"], progress: bool
) -> Seen:
    """Describe the atoms of crystals, without forces."""
    found: dict[str, list[Tensor]] = {"features": [], "species": [], "crystal": []}
    before = 0
    for graph, _ in _batches(packed, which, progress, "training frames"):
        with torch.no_grad():
            features = model.encoder(graph.to(model.device, model.dtype)).invariant
        found["features"].append(features.float().cpu())
        found["species"].append(graph.species)
        found["crystal"].append(graph.crystal + before)
        before += graph.crystals
    return Seen(**{name: torch.cat(parts) for name, parts in found.items()})


def judge(
    model: CrystalModel,
    packed: PackedCrystals,
    which: Int[ndarray, " crystals"],
    *,
    scale: str | None,
    seed: int,
    progress: bool = True,
) -> Judged:
    """Compare energies and forces of crystals with their labels.

    Args:
        model: A potential.
        packed: The crystals, with forces.
        which: Numbers of those to judge, in their order.
        scale: Energies of other scales than this are no labels; None if all stand on the model's.
        seed: Chooses where crystals stand.
        progress: Show a progress bar.
    """
    groups: list[str] = packed.meta["names"]["group"]
    foreign = [number for number, group in enumerate(groups) if scale not in (None, group)]
    found: dict[str, list[Tensor]] = {}
    before = 0
    for graph, labels in _batches(packed, which, progress, "held-out frames"):
        rows = _one_batch(model, graph, labels)
        rows["crystal"] = graph.crystal + before
        rows["energy_error"][torch.isin(labels["group"], torch.tensor(foreign))] = torch.nan
        for name, part in rows.items():
            found.setdefault(name, []).append(part)
        before += graph.crystals
    found["part"] = [torch.from_numpy(standing(packed, which, seed))]
    return Judged(**{name: torch.cat(parts) for name, parts in found.items()})


def _batches(
    packed: PackedCrystals, which: Int[ndarray, " crystals"], progress: bool, what: str
) -> Iterator[Batch]:
    sampler = EdgeBudgetSampler(work(packed), which, budget=BUDGET, seed=None)
    bar = tqdm(loader(packed, sampler), disable=not progress, desc=what, unit="batch")
    return iter(bar)


def _one_batch(
    model: CrystalModel, graph: CrystalGraph, labels: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Features, forces and errors of a batch, on the CPU."""
    assert isinstance(model.head, EnergyHead)
    leaf = with_leaves(graph.to(model.device, model.dtype), model.encoder)
    features = model.encoder(leaf)
    energies = model.head.interaction(features, leaf)
    forces = forces_and_stress(energies.sum(), leaf)[0].cpu()
    known = energies.detach().double() + model.head.references(leaf)
    error = (forces - labels["forces"]).norm(dim=-1)
    still = torch.maximum(forces.norm(dim=-1), labels["forces"].norm(dim=-1)) < ZERO
    return {
        "features": features.invariant.detach().float().cpu(),
        "species": graph.species,
        "forces": forces.float(),
        "force_error": error.masked_fill(still, torch.nan).float(),
        "energy_error": (sum_over_atoms(known, leaf).cpu() - labels["energy"]).abs(),
        "source": labels["source"],
    }


def standing(
    packed: PackedCrystals, which: Int[ndarray, " crystals"], seed: int
) -> Float[ndarray, " crystals"]:
    """Place crystals between 0 and 1, so that near places hold what resembles each other.

    Frames of one crystal are in one place; frames of a long run follow each other.
    """
    source = np.asarray(packed.arrays["source"])[which]
    runs: dict[tuple[int, str], list[int]] = {}
    for row, number in enumerate(which.tolist()):
        runs.setdefault((int(source[row]), _run_of(packed, number)), []).append(row)
    place = np.zeros(len(which), dtype=np.float32)
    for (_, run), rows in runs.items():
        if len(rows) > LONG:
            place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
        else:
            place[rows] = draw(run, seed)
    return place


def _run_of(packed: PackedCrystals, number: int) -> str:
    """Name the run a crystal belongs to: its parent; of rows without names, their atoms.

    Frames of a file of one's own are called by their number in it, those of fine-tuning by
    ``FILE#NUMBER`` (``data.files``, ``data.frames``).
    """
    name = packed.ids[number]
    file, mark, own = name.rpartition("#")
    if parent := own.rpartition("/")[0]:
        return f"{file}{mark}{parent}"
    if own.isdigit():
        start = packed.atom_start[number]
        species = packed.arrays["species"][start : start + packed.arrays["atoms"][number]]
        return f"{file}{mark}{species.tolist()}"
    return name
