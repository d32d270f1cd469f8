"""What fine-tuning gains, and what it forgets: before, after 50 frames, after all.

    python benchmarks/finetuning.py run polymlp_srtio3 --data data --out finetuned
    python benchmarks/finetuning.py table --out finetuned

Trains the bundled potential further on frames of one set, with and without replay, and a potential
from random weights on the same 50 frames in the same steps. Errors are those of held-out frames of
the set, one run in twenty, and of perturbed Materials Project crystals labelled by SevenNet-0. The
bundled potential has seen neither, nor the parents of the latter; but it has seen the other frames
of the set, among many. A run that is cut off goes on.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.holdout import split_by_block, split_by_name
from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import pack
from ase_crystalformer.data.potential import RUNS, SEED
from ase_crystalformer.data.readers import load
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.pretrained import find_model
from ase_crystalformer.training.comparison import Change, compare, compare_forgotten
from ase_crystalformer.training.config import check_recipe
from ase_crystalformer.training.finetuning import finetune
from ase_crystalformer.training.run import fit
from benchmarks.timing import machine

HERE = Path(__file__).parent

#: How many frames a user may have at first.
FEW = 50

#: Case -> file of frames, passes over them, and how many frames are replayed for each.
CASES: dict[str, tuple[str, int, float]] = {
    "50 frames": ("few.extxyz", 20, 4.0),
    "50 frames, no replay": ("few.extxyz", 20, 0.0),
    "all frames": ("all.extxyz", 8, 4.0),
    "all frames, no replay": ("all.extxyz", 8, 0.0),
}
SCRATCH = "50 frames, from random weights"

#: Every so many frames of perturbed crystals are enough to see what was forgotten.
STRIDE = 6

#: Behind this line the prose ends.
MARK = "<!-- tables -->"

COLUMNS = (("energy", "meV/atom"), ("forces", "meV/Å"), ("stress", "meV/Å³"))


def prepare(name: str, data: Path, out: Path) -> None:
    """Write the frames of a set as a user would have them, and the crystals not to forget."""
    out.mkdir(parents=True, exist_ok=True)
    frames = list(split_by_block(load(name, data), SEED))
    train = [frame for frame in frames if frame.split == "train"]
    held_out = [frame for frame in frames if frame.split == "val"]
    few = [train[number] for number in np.linspace(0, len(train) - 1, FEW).astype(int)]
    for file, chosen in (("few.extxyz", few), ("all.extxyz", train)):
        write(out / file, [_atoms(frame) for frame in [*chosen, *held_out]])
    start = CrystalModel.load(find_model("default"))
    pack(_unseen(data), start.encoder.rule, out / "unseen", labels=["energy"])


def _unseen(data: Path) -> list[LabelledCrystal]:
    """Read perturbed crystals to see what was forgotten."""
    found = list(_of_unseen_parents("mp_perturbed_sevennet", data))
    return found[::STRIDE]


def _of_unseen_parents(name: str, data: Path) -> Iterator[LabelledCrystal]:
    """Read perturbed crystals of whose parents no bundled potential has seen anything."""
    parts = {row.id: row.split or split_by_name(row.id, SEED) for row in load("mp_labelled", data)}
    for crystal in load(name, data):
        parent = crystal.info["material_id"]
        calm = np.abs(crystal.labels["forces"]).max() <= 50.0
        if calm and (parts.get(parent) or split_by_name(parent, SEED)) == "val":
            yield crystal.in_split("val")


def _atoms(frame: LabelledCrystal) -> Atoms:
    atoms = Atoms(
        numbers=frame.species, positions=frame.positions, cell=frame.cell, pbc=frame.periodic
    )
    atoms.calc = SinglePointCalculator(atoms, **frame.labels)
    atoms.info["split"] = frame.split
    return atoms


def run(name: str, data: Path, out: Path) -> None:
    """Train every case that is not done, and measure it."""
    if not (out / "unseen" / "meta.json").is_file():
        prepare(name, data, out)
    start = CrystalModel.load(find_model("default"))
    unseen = PackedCrystals(out / "unseen")
    for case, (file, passes, replay) in CASES.items():
        folder = out / case.replace(", ", "-").replace(" ", "-")
        if (folder / "judged.json").is_file():
            continue
        begun = time.monotonic()
        done = finetune(
            out / file,
            folder,
            replay=replay,
            overrides=[f"optim.epochs={passes}", "machine.threads=1"],
            resume=(folder / "recipe.json").is_file(),
            progress=False,
        )
        kept = compare_forgotten(start, done.model, unseen, unseen.where("val"))
        _judged(folder, name, time.monotonic() - begun, done.changes, kept)
    _from_scratch(name, out, unseen)


def _from_scratch(name: str, out: Path, unseen: PackedCrystals) -> None:
    """Train the same network on the few frames in the same steps, from random weights."""
    folder = out / "from-scratch"
    if (folder / "judged.json").is_file():
        return
    told = json.loads((out / "50-frames-no-replay" / "recipe.json").read_text(encoding="utf-8"))
    told["start"] = None
    told["optim"]["peak_lr"] = 1.2e-3
    begun = time.monotonic()
    recipe = check_recipe(told)
    model = fit(recipe, folder, resume=(folder / "checkpoints/last.ckpt").is_file(), progress=False)
    packed = PackedCrystals(recipe.data.packed)
    changes = compare(model, model, packed, packed.where("val"))
    _judged(folder, name, time.monotonic() - begun, changes, [])


def _judged(
    folder: Path, name: str, seconds: float, changes: list[Change], kept: list[Change]
) -> None:
    told = {
        "set": name,
        "minutes": round(seconds / 60, 1),
        "own": [vars(one) for one in changes if one.on == "held-out frames"],
        "kept": [vars(one) for one in kept],
    }
    (folder / "judged.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def gathered(out: Path) -> dict[str, Any]:
    """Read every case of a set."""
    folders = {case: case.replace(", ", "-").replace(" ", "-") for case in CASES}
    folders[SCRATCH] = "from-scratch"
    return {
        case: json.loads((out / folder / "judged.json").read_text(encoding="utf-8"))
        for case, folder in folders.items()
        if (out / folder / "judged.json").is_file()
    }


def markdown(cases: dict[str, Any]) -> str:
    """Write the table of a set."""
    head = ["", *(f"own {name}, {unit}" for name, unit in COLUMNS)]
    head += [f"others' {name}, {unit}" for name, unit in COLUMNS] + ["minutes"]
    first = next(iter(cases.values()))
    rows = [["before", *_cells(first["own"], "before"), *_cells(first["kept"], "before"), ""]]
    for case, judged in cases.items():
        cells = [*_cells(judged["own"], "after"), *_cells(judged["kept"], "after")]
        rows.append([case, *cells, f"{judged['minutes']:g}"])
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(changes: list[dict[str, Any]], when: str) -> list[str]:
    found = {one["quantity"]: one[when] for one in changes}
    return [f"{1000 * found[name]:.3g}" if name in found else "" for name, _ in COLUMNS]


def record(out: Path) -> None:
    """Write ``finetuning.json`` and the tables of ``finetuning.md``."""
    sets = {name: gathered(out / name) for name in RUNS if (out / name).is_dir()}
    sets = {name: cases for name, cases in sets.items() if cases}
    told = {"machine": machine(), "sets": sets}
    text = json.dumps(told, indent=1, ensure_ascii=False)
    (HERE / "finetuning.json").write_text(text + "\n", encoding="utf-8")
    path = HERE / "finetuning.md"
    prose = path.read_text(encoding="utf-8").partition(MARK)[0] if path.is_file() else ""
    tables = "\n\n".join(f"## {name}\n\n{markdown(cases)}" for name, cases in sets.items())
    path.write_text(f"{prose}{MARK}\n\n{tables}\n", encoding="utf-8")
    print(tables)


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(RUNS))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("finetuned"), help="folder of the runs")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.sets) - set(RUNS)):
        parser.error(f"no set {', '.join(unknown)}; there are {', '.join(RUNS)}")
    for name in (asked.sets or ["polymlp_srtio3"]) if asked.what == "run" else ():
        run(name, asked.data, asked.out / name)
    record(asked.out)


if __name__ == "__main__":
    main()
