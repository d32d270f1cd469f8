"""Does equivariance matter at scale? Errors against model size, amount of data and compute.

    python workflows/scaling_study.py                                  alloys labelled by ASE's EMT
    python workflows/scaling_study.py --data mlearn.extxyz.gz          energies and forces of yours
    python workflows/scaling_study.py --plan workflows/scaling/large.toml --data frames.extxyz

Transformers that know rotations and a plain one that sees crystals turned at random are trained
side by side, and power laws are fitted to their errors. What is varied, and who takes part, says a
plan: ``scaling/quick.toml`` (six minutes of one core), ``scaling/large.toml`` (for a GPU). Every
run is written to ``points.json`` as it ends; started again, the study goes on where it was, also
with more seeds or epochs in its plan.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from programs import whole
from scaling.frames import emt_frames, frames_of, split
from scaling.picture import draw, laws_of, plain_laws, table
from scaling.plan import Plan, Run, all_runs, read_plan
from scaling.runs import Point, perform, write_crystals
from tqdm.auto import tqdm

FOLDER = Path(__file__).parent / "scaling"
LABELS = {"forces": "error of force components (eV/Å)", "energy": "error of energy (eV/atom)"}


def begin(plan: Plan, data: Path | None, only: Sequence[str], out: Path) -> None:
    """Write crystals and settings, once; refuse to go on with a study under other settings.

    Only seeds and epochs may be added.
    """
    told = {**asdict(plan), "data": str(data), "only": list(only)}
    told = {key: value for key, value in told.items() if key not in ("seeds", "epochs")}
    file = out / "settings.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != told:
        raise SystemExit(f"{out} holds a study under other settings. Name another folder by --out.")
    crystals_for(plan, data, only, out / "crystals")
    # Settings are kept once there are crystals: a plan that asks for too many may be mended.
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def crystals_for(plan: Plan, data: Path | None, only: Sequence[str], folder: Path) -> None:
    """Write the crystals of a study, once, all or none."""
    if folder.exists():
        return
    largest = max([*plan.crystals, plan.base["crystals"]])
    needed = round(1.3 * (largest + 5 * plan.validation))
    frames = emt_frames(needed) if data is None else frames_of(data, only)
    with whole(folder) as partial:
        write_crystals(split(frames, largest, plan.validation), plan, partial)


def study(plan: Plan, out: Path) -> list[Point]:
    """Perform the runs that are not done yet; return all points."""
    file = out / "points.json"
    points: list[Point] = json.loads(file.read_text()) if file.exists() else []
    keys = Run.__dataclass_fields__
    done = {Run(**{key: point[key] for key in keys}) for point in points}
    wanted = all_runs(plan)
    bar = tqdm(wanted, initial=0, unit="run")
    for run in bar:
        if run in done:
            continue
        bar.set_postfix_str(f"{run.contender}, {run.crystals} crystals, {run.epochs} epochs")
        points.append(perform(run, plan, out))
        with whole(file) as partial:
            partial.write_text(json.dumps(points, indent=1) + "\n", encoding="utf-8")
    return [point for point in points if Run(**{key: point[key] for key in keys}) in set(wanted)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a study; leave points.json, laws.json, table.md and a picture."""
    introduction, examples, more = __doc__.split("\n\n", 2)
    parser = argparse.ArgumentParser(
        description=f"{introduction}\n\n{more}",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="frames with energies and forces (EMT if none)")
    parser.add_argument("--only", nargs="+", default=[], metavar="Si", help="elements to keep")
    parser.add_argument(
        "--plan", type=Path, default=FOLDER / "quick.toml", help="what is varied (quick.toml)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/scaling"), help="for all results (runs/scaling)"
    )
    parser.add_argument(
        "--quantity", choices=LABELS, default="forces", help="whose errors are drawn (forces)"
    )
    parser.add_argument("--floor", action="store_true", help="fit a floor to each law, too")
    asked = parser.parse_args(arguments)
    for name, file in (("--plan", asked.plan), ("--data", asked.data)):
        if file is not None and not file.is_file():
            parser.error(f"{name}: there is no file {file}")
    plan = read_plan(asked.plan)
    asked.out.mkdir(parents=True, exist_ok=True)
    begin(plan, asked.data, asked.only, asked.out)
    points = study(plan, asked.out)
    laws = laws_of(plan, points, asked.quantity, floor=asked.floor)
    draw(plan, points, laws, asked.out / "study.png", LABELS[asked.quantity], asked.quantity)
    text = table(plan, points, laws, list(LABELS))
    (asked.out / "table.md").write_text(text, encoding="utf-8")
    facts = {"date": datetime.now(UTC).date().isoformat(), "data": str(asked.data or "EMT")}
    told = {**facts, "quantity": asked.quantity, "laws": plain_laws(laws), "points": points}
    (asked.out / "study.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(text)
    print(f"{asked.out / 'study.png'}, study.json, table.md")


if __name__ == "__main__":
    main()
