"""Active learning: a potential that asks for the labels it needs.

    python workflows/active_learning.py CuAu.cif --labels emt --rounds 4
    python workflows/active_learning.py mine.cif --labels my_dft:calculator --test 0 -o mine

A committee of small potentials learns a few shaken crystals that the labelling calculator has
labelled. In every round the first member moves atoms at the given temperature; frames on whose
forces the members disagree most are labelled and learned (H. S. Seung et al., Query by committee,
COLT 1992; L. Zhang et al., Phys. Rev. Mater. 3, 023804 (2019)). ``--pick random`` takes any frames,
to see what asking is worth. Errors are of frames of the labelling calculator's own dynamics
(``--test``; 0 for none, where labels are dear) and of the frames of each round before they were
learned. Writes ``round-N.extxyz``, ``models/``, ``active_learning.json`` and a picture. Cut off and
started again, it goes on with the round it was in.
"""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from committee import RECIPE, Plan, explore, trained, walk
from matplotlib.figure import Figure
from programs import Crystal, Out, read_crystal, run, write_frames, write_results

from ase_crystalformer import CrystalformerError, load_calculator


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one training has brought.

    Attributes:
        frames: That were learned.
        test_error: Mean absolute error of force components on the test frames, eV/Å.
        picked_error: On the frames picked after the training, before they are learned, eV/Å.
        disagreement: Mean of the frames picked, eV/Å.
    """

    frames: int
    test_error: float | None
    picked_error: float
    disagreement: float


@dataclass(frozen=True, kw_only=True)
class Study:
    """All rounds.

    Attributes:
        plan: Of the study.
        crystal: Its formula, and a digest of its cell and positions.
        rounds: In order.
    """

    plan: Plan
    crystal: str
    rounds: list[Round]


def labelled(atoms: Atoms, labeller: Any) -> Atoms:
    """Return a copy with energy, forces and stress of the labelling calculator."""
    asked = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    asked.calc = labeller
    results = {"energy": asked.get_potential_energy(), "forces": asked.get_forces()}
    if "stress" in labeller.implemented_properties:
        results["stress"] = asked.get_stress()
    asked.calc = SinglePointCalculator(asked, **results)
    return asked


def shaken(crystal: Atoms, count: int, random: np.random.Generator) -> list[Atoms]:
    """Strain a crystal by about 2 % and move its atoms by about 0.05 Å, many times."""
    frames = []
    for _ in range(count):
        atoms = crystal.copy()
        strain = np.eye(3) + random.normal(scale=0.02, size=(3, 3))
        atoms.set_cell(atoms.cell @ (strain + strain.T) / 2, scale_atoms=True)
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        frames.append(atoms)
    return frames


def force_error(frames: list[Atoms], calculator: Any) -> float:
    """Mean absolute error of force components, eV/Å."""
    errors = [np.abs(calculator.get_forces(atoms) - atoms.get_forces()) for atoms in frames]
    return float(np.concatenate(errors).mean())


def learn(crystal: Atoms, plan: Plan, rounds: int, out: Path) -> Study:
    """Go through the rounds that are not done yet.

    Args:
        crystal: Large enough for dynamics.
        plan: Of the study.
        rounds: How many there shall be.
        out: For frames and models.

    Raises:
        CrystalformerError: The folder holds a study under another plan, or of another crystal.
    """
    known = described(crystal)
    done = _begun(plan, known, out)
    labeller = load_calculator(plan.labels)
    random = np.random.default_rng(plan.seed)
    if not (out / "round-0.extxyz").exists():
        steps = walk(crystal, labeller, plan, random)
        tests = [labelled(next(steps), labeller) for _ in range(plan.test)]
        write_frames(out / "test.extxyz", tests)
        start = shaken(crystal, plan.start, random)
        write_frames(out / "round-0.extxyz", [labelled(atoms, labeller) for atoms in start])
    tests = read(out / "test.extxyz", ":") if plan.test else []
    while len(done) < rounds:
        number = len(done)
        random = np.random.default_rng([plan.seed, number])
        frames = [a for n in range(number + 1) for a in read(out / f"round-{n}.extxyz", ":")]
        committee = trained(frames, f"round-{number}", plan, out)
        found, scores = explore(crystal, committee, plan, random)
        order = np.argsort(-scores) if plan.pick == "uncertain" else random.permutation(len(scores))
        best = order[: plan.picked]
        picked = [labelled(found[index], labeller) for index in best]
        write_frames(out / f"round-{number + 1}.extxyz", picked)
        done.append(
            Round(
                frames=len(frames),
                test_error=force_error(tests, committee[0]) if tests else None,
                picked_error=force_error(picked, committee[0]),
                disagreement=float(scores[best].mean()),
            )
        )
        study = Study(plan=plan, crystal=known, rounds=done)
        write_results(out, "active_learning", study, draw(study))
    return Study(plan=plan, crystal=known, rounds=done)


def described(crystal: Atoms) -> str:
    """Tell a crystal from others by its formula and a digest."""
    digest = sha256(crystal.numbers.tobytes())
    for lengths in (crystal.cell.array, crystal.positions):
        digest.update((lengths.round(5) + 0.0).tobytes())
    return f"{crystal.get_chemical_formula()} ({digest.hexdigest()[:12]})"


def _begun(plan: Plan, crystal: str, out: Path) -> list[Round]:
    """Read the rounds that are done; write the plan down before the first."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "active_learning.json"
    if not file.exists():
        if (out / "round-0.extxyz").exists():
            raise CrystalformerError(
                f"{out} holds frames of a study whose plan is not there. Give another --out."
            )
        write_results(out, "active_learning", Study(plan=plan, crystal=crystal, rounds=[]))
        return []
    told = json.loads(file.read_text(encoding="utf-8"))
    changed = [key for key, value in asdict(plan).items() if told["plan"][key] != value]
    if told.get("crystal", crystal) != crystal:
        changed.append("crystal")
    if changed:
        raise CrystalformerError(
            f"{out} holds a study with another {', '.join(changed)}. Give another --out."
        )
    return [Round(**one) for one in told["rounds"]]


def draw(study: Study) -> Figure:
    """Draw the errors by the number of frames learned."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    learned = [one.frames for one in study.rounds]
    tested = [one.test_error for one in study.rounds if one.test_error is not None]
    if tested:
        axes.plot(learned, tested, "o-", label="test frames")
    axes.plot(learned, [one.picked_error for one in study.rounds], "s--", label="frames picked")
    axes.set(xlabel="frames learned", ylabel="error of forces (eV/Å)", yscale="log")
    axes.set_title(f"labels of {study.plan.labels}, {study.plan.pick} frames", fontsize=9)
    axes.legend(frameon=False)
    return figure


def main(  # noqa: PLR0913  all of them are settings of a study
    crystal: Crystal,
    *,
    labels: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What labels: a calculator of ASE's such as emt, package.module:factory, or a "
            "model.",
        ),
    ] = "emt",
    rounds: Annotated[int, typer.Option(min=1, help="Trainings.")] = 4,
    recipe: Annotated[Path, typer.Option(help="Of the trainings.")] = RECIPE,
    start: Annotated[int, typer.Option(min=2, help="Shaken crystals to begin with.")] = 10,
    picked: Annotated[int, typer.Option(min=1, help="Frames labelled in each round.")] = 10,
    members: Annotated[int, typer.Option(min=2, help="Of the committee.")] = 2,
    epochs: Annotated[int, typer.Option(min=1, help="Of each training.")] = 60,
    temperature: Annotated[float, typer.Option(min=1, help="Of the dynamics, K.")] = 800.0,
    steps: Annotated[int, typer.Option(min=10, help="Of the dynamics in a round, 2 fs.")] = 500,
    pick: Annotated[str, typer.Option(metavar="HOW", help="uncertain or random.")] = "uncertain",
    test: Annotated[int, typer.Option(min=0, help="Frames to test on.")] = 20,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    out: Out = Path("active_learning"),
) -> None:
    """Learn, and say how the error falls."""
    if pick not in ("uncertain", "random"):
        raise CrystalformerError(f"--pick is {pick!r}; it is uncertain or random.")
    plan = Plan(
        labels=labels,
        recipe=str(recipe),
        start=start,
        picked=picked,
        members=members,
        epochs=epochs,
        temperature=temperature,
        steps=steps,
        pick=pick,
        test=test,
        seed=seed,
    )
    for one in learn(read_crystal(crystal), plan, rounds, out).rounds:
        tested = "" if one.test_error is None else f"test frames {one.test_error:.4f} eV/Å, "
        print(
            f"{one.frames} frames learned: {tested}frames picked {one.picked_error:.4f} eV/Å, "
            f"where members differ by {one.disagreement:.4f}"
        )


if __name__ == "__main__":
    run(main, __doc__)
