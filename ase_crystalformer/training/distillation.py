"""A fast student of any ASE calculator: perturb crystals, let the teacher label them, train."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_crystalformer.data.packed import PackedCrystals
from ase_crystalformer.data.packing import check_replaceable, remove_packed
from ase_crystalformer.data.perturbations import Perturbation, perturbed
from ase_crystalformer.errors import BadRecipe, MissingData
from ase_crystalformer.model import CrystalModel
from ase_crystalformer.training.comparison import HELD_OUT, judge
from ase_crystalformer.training.config import (
    Recipe,
    check_recipe,
    read_recipe,
    read_toml,
    recipe_dict,
)
from ase_crystalformer.training.defaults import (
    fresh_recipe,
    overridden,
    started_recipe,
    with_defaults,
)
from ase_crystalformer.training.evaluate import Score, of_known_elements
from ase_crystalformer.training.labelling import label_frames
from ase_crystalformer.training.prepare import prepare
from ase_crystalformer.training.record import differing, noted, recipe_of, write_json
from ase_crystalformer.training.run import fit
from ase_crystalformer.training.speed import Speed, time_both

if TYPE_CHECKING:
    from ase import Atoms

#: What the folder holds besides that of a run.
FRAMES, SETTINGS, RESULT = "frames.extxyz", "settings.json", "distillation.json"

#: Share of the crystals whose frames are held out.
HOLD_OUT = 0.1

#: Frames on which teacher and student are timed.
TIMED = 12


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """What distillation led to.

    Attributes:
        model: The student; its files are ``folder/model``.
        folder: Of the run.
        errors: Of the student beside the teacher, on crystals held out.
        speed: Of both; None if nothing was held out.
        failed: Frames the teacher could not label, and why.
    """

    model: CrystalModel
    folder: Path
    errors: dict[str, Score]
    speed: Speed | None
    failed: dict[str, str]


def distill(  # noqa: PLR0913  what is perturbed, who teaches, who learns
    structures: "Mapping[str, Atoms] | Sequence[Atoms]",
    teacher: Any,
    out: str | Path,
    *,
    name: str = "teacher",
    amounts: Perturbation | None = None,
    start: str | Path | None = "default",
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    progress: bool = True,
) -> Distilled:
    """Train a potential to give what a teacher gives.

    Labelled frames are in ``out/frames.extxyz``; what failed is in ``out/left_out.txt``; errors and
    times in ``out/distillation.json``, a plot in ``out/parity.png``. Called again on the same
    folder it goes on where it was cut off.

    Args:
        structures: Crystals to perturb, by name or in a list.
        teacher: An ASE calculator.
        out: The run folder; the student is ``out/model``.
        name: Of the teacher, for the card and as the name of its energy scale.
        amounts: How crystals are perturbed.
        start: A model to start from; None for random weights.
        recipe: A recipe file that says what to train, instead of ``start``; its data are not read.
        overrides: Entries of the recipe to replace, ``section.key=value`` as in TOML.
        progress: Show bars.

    Raises:
        BadRecipe: Something told is wrong, or ``out`` holds a run with other settings.
        MissingData: The teacher could label nothing.
    """
    amounts = amounts or Perturbation()
    folder = Path(out)
    named = dict(structures if isinstance(structures, Mapping) else _numbered(structures))
    settings = {
        "teacher": name,
        "start": None if start is None else str(start),
        "recipe": None if recipe is None else _content(recipe),
        "amounts": asdict(amounts),
        "overrides": list(overrides),
        "structures": _summary(named),
    }
    check_replaceable(folder / "packed")
    begun = (folder / "checkpoints" / "last.ckpt").is_file()
    told = None if begun else _recipe(folder, settings, recipe)  # wrong ones end before any work
    _open(folder, settings, recipe, begun=begun)
    with noted(folder):
        failed = label_frames(
            _frames(named, amounts),
            teacher,
            folder / FRAMES,
            total=len(named) * (amounts.frames + 1),
            progress=progress,
        )
        whole = recipe_of(folder) if told is None else _packed(folder, told)
    student = fit(whole, folder, resume=begun, progress=progress)
    return _judged(folder, name, str(recipe or start or "random weights"), student, teacher, failed)


def _numbered(structures: "Sequence[Atoms]") -> "dict[str, Atoms]":
    return {f"{atoms.symbols}-{number}": atoms for number, atoms in enumerate(structures)}


def _summary(structures: "Mapping[str, Atoms]") -> str:
    """Tell sets of structures apart: all of them together decide which are held out."""
    digest = sha256()
    for name, atoms in sorted(structures.items()):
        digest.update(name.encode())
        for part in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
            digest.update(np.ascontiguousarray(part).tobytes())
    return f"{len(structures)} ({digest.hexdigest()[:12]})"


def _frames(structures: "Mapping[str, Atoms]", amounts: Perturbation) -> "Iterator[Atoms]":
    """Perturb every crystal; all frames of one are in the same part."""
    held_out = held_out_names(structures, amounts.seed)
    for name, atoms in structures.items():
        for frame in perturbed(atoms, name, amounts):
            frame.info["split"] = "val" if name in held_out else "train"
            yield frame


def held_out_names(structures: "Mapping[str, Atoms]", seed: int) -> set[str]:
    """Choose a tenth of the crystals, at least one, whose elements the others hold, too.

    Args:
        structures: By name.
        seed: With the names it decides.
    """
    order = np.random.default_rng(seed).permutation(sorted(structures)).tolist()
    counts = Counter(symbol for atoms in structures.values() for symbol in set(atoms.symbols))
    chosen: set[str] = set()
    for name in order:
        kinds = set(structures[name].symbols)
        if len(chosen) >= max(1, round(HOLD_OUT * len(order))):
            break
        if all(counts[kind] > 1 for kind in kinds):
            chosen.add(name)
            counts.subtract(kinds)
    return chosen


def _content(recipe: str | Path) -> dict[str, Any]:
    """Read what a recipe file says of the student: all but its name and its data."""
    told = read_toml(recipe)
    return {key: told[key] for key in told if key not in ("name", "data", "published")}


def _open(
    folder: Path, settings: dict[str, Any], recipe: str | Path | None, *, begun: bool
) -> None:
    """Make the folder, or make sure that what it holds was made with the same settings.

    The recipe may change until the student begins to learn: frames do not depend on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SETTINGS
    plain = json.loads(json.dumps(settings, default=str))
    if not path.is_file():
        write_json(path, plain)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    if begun and isinstance(before.get("recipe"), str):  # folders of before keep the path alone
        plain["recipe"] = None if recipe is None else str(recipe)
    other = [key for key in plain if before.get(key, plain[key]) != plain[key]]
    changed = [f"{key} {before[key]}" for key in other if key != "recipe"]
    if begun:
        recipes = ({"recipe": one.get("recipe")} for one in (before, plain))
        changed += [f"another {key}" for key in differing(*recipes)]
    if changed:
        raise BadRecipe(
            f"{folder} holds a run with {'; '.join(changed)}. Ask for the same to go on with it, "
            "or choose another folder."
        )
    if not begun:
        write_json(path, plain)


def _packed(folder: Path, told: dict[str, Any]) -> Recipe:
    """Pack the frames of the teacher, and complete the recipe by their number and size."""
    if not (folder / FRAMES).is_file() or (folder / FRAMES).stat().st_size == 0:
        raise MissingData(f"The teacher labelled no frame; {folder}/left_out.txt tells why.")
    remove_packed(folder / "packed")  # of fewer frames
    return with_defaults(told, prepare(check_recipe(told)))


def _recipe(folder: Path, settings: dict[str, Any], recipe: str | Path | None) -> dict[str, Any]:
    """Make the recipe of the student; epochs and batches follow from the frames."""
    told = _begun_recipe(folder, settings["start"], recipe)
    told["data"]["source"] = (str(folder / FRAMES),)
    told["energy"]["scale"] = settings["teacher"]
    overridden(told, settings["overrides"], own=("packed", "source"))
    return told


def _begun_recipe(folder: Path, start: str | None, recipe: str | Path | None) -> dict[str, Any]:
    """Begin with what a model or another recipe says."""
    if recipe is None:
        return fresh_recipe(folder) if start is None else started_recipe(folder, start)
    packed = str(folder / "packed")
    told = recipe_dict(read_recipe(recipe, [f"data.packed={json.dumps(packed)}"]))
    if told["energy"] is None:
        raise BadRecipe(f"{recipe} is of a property model; a student needs a table [energy].")
    return {**told, "name": folder.name or "student", "data": {"packed": packed}}


def _judged(
    folder: Path,
    name: str,
    start: str,
    student: CrystalModel,
    teacher: Any,
    failed: dict[str, str],
) -> Distilled:
    """Compare student and teacher on crystals held out, and write the card."""
    packed = PackedCrystals(folder / "packed")
    which = of_known_elements(student, packed, packed.where("val"))
    errors = judge(student, packed, which, HELD_OUT, folder / "parity.png")
    speed = time_both(teacher, student, _atoms(packed, which)) if len(which) else None
    known = len(packed.where("train"))
    student.card = replace(
        student.card,
        summary=f"A student of {name}, energies on its scale. {student.card.summary}".strip(),
        data=(f"{known} frames labelled by {name}; start: {start}",),
        errors={quantity: vars(one) for quantity, one in errors.items()},
    )
    student.save(folder / "model")
    told = {
        "teacher": name,
        "start": start,
        "frames": {"train": known, "held out": len(which)},
        "failed": failed,
        "errors": {quantity: vars(one) for quantity, one in errors.items()},
        "speed": None if speed is None else asdict(speed),
    }
    write_json(folder / RESULT, told)
    return Distilled(model=student, folder=folder, errors=errors, speed=speed, failed=failed)


def _atoms(packed: PackedCrystals, which: np.ndarray) -> "list[Atoms]":
    """Return up to a dozen crystals, evenly chosen, as ASE holds them."""
    from ase import Atoms

    chosen = which[np.unique(np.linspace(0, len(which) - 1, TIMED).astype(int))]
    found = []
    for number in chosen.tolist():
        graph, _ = packed.batch([number])
        found.append(
            Atoms(
                numbers=graph.species.numpy(),
                positions=graph.positions.numpy(),
                cell=graph.cell[0].numpy(),
                pbc=graph.periodic[0].numpy(),
            )
        )
    return found
