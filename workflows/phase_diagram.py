"""Which compounds of a few elements are stable: the convex hull of their formation energies.

    python workflows/phase_diagram.py
    python workflows/phase_diagram.py candidates/*.cif --known-phases --relax --out hull
    python workflows/phase_diagram.py cells.extxyz --references entries.json --calculator emt

Without files: 89 crystals of Li, Mn and O, as DFT left them. Energies take Materials Project's
corrections of 2020. Structures that say their DFT energy (``energy_per_atom``, uncorrected) are
held against it: the same hull from DFT beside, and how far formation energies are off. What cannot
be computed, or does not come to rest, is named and left out. Writes ``table.csv``,
``entries.json`` (of pymatgen) and, of two or three elements, ``hull.png``.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.optimize import FIRE
from monty.serialization import dumpfn, loadfn
from programs import whole
from pymatgen.analysis.phase_diagram import PDPlotter
from tqdm import tqdm

from ase_crystalformer import ConvexHull, CrystalformerError, corrected_entry, load_calculator

SAMPLE = Path(__file__).parent / "li_mn_o" / "crystals.extxyz.gz"
REFERENCE = "energy_per_atom"
STABLE = 1e-6  # eV/atom
LOWEST = 20
"""Rows that are printed where no structure is on the hull."""


@dataclass(frozen=True)
class Judged:
    """A crystal: its entry, the one that DFT would give it, and which part of a split it is in."""

    entry: Any
    reference: Any | None
    split: str | None


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    introduction, example, more = __doc__.split("\n\n", 2)
    parser = argparse.ArgumentParser(
        description=f"{introduction}\n\n{more}",
        epilog=f"examples:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("structures", type=Path, nargs="*", help="files that ASE reads")
    parser.add_argument("--references", type=Path, help="JSON of pymatgen entries: known phases")
    parser.add_argument("--known-phases", action="store_true", help="add those of the package")
    parser.add_argument("--calculator", default="default", help="a model, emt, module:factory")
    parser.add_argument("--uncorrected", action="store_true", help="apply no corrections")
    parser.add_argument("--relax", action="store_true", help="relax atoms and cells first")
    parser.add_argument("--fmax", type=float, default=0.05, help="of relaxation, eV/Å (0.05)")
    parser.add_argument("--steps", type=int, default=300, help="of relaxation, at most (300)")
    parser.add_argument("--out", type=Path, default=Path("hull_results"))
    given = parser.parse_args()
    if given.known_phases and given.uncorrected:
        parser.error("--known-phases stand on the corrected scale; leave --uncorrected out")
    return given


def read_crystals(paths: Sequence[Path]) -> tuple[list[Atoms], int]:
    """Read every structure of some files, and name it; tell what cannot be read, and count it."""
    crystals, failed = [], 0
    for path in paths:
        try:
            found = read(path, ":")
        except Exception as error:  # of whatever reader
            print(f"{path} cannot be read: {str(error) or type(error).__name__}", file=sys.stderr)
            failed += 1
            continue
        for number, atoms in enumerate(found):
            name = path.stem if len(found) == 1 else f"{path.name}:{number}"
            atoms.info.setdefault("name", atoms.info.get("material_id", name))
            crystals.append(atoms)
    return crystals, failed


def read_references(path: Path | None, *, corrected: bool) -> list[Any]:
    """Read known phases; without corrections their energies stay as they are."""
    if path is None or corrected:
        return list(ConvexHull(path or ()).entries)
    return list(loadfn(path))


def energy_of(atoms: Atoms, calculator: Any, given: argparse.Namespace) -> float:
    """Energy of a crystal, eV, where it is or where it comes to rest.

    Raises:
        CrystalformerError: It is still moving after all steps: its energy is of no phase.
    """
    atoms.calc = calculator
    if given.relax:
        optimiser = FIRE(FrechetCellFilter(atoms), logfile=None)
        if not optimiser.run(fmax=given.fmax, steps=given.steps):
            raise CrystalformerError(
                f"still moving after {given.steps} steps, and left out. Give more --steps, or a "
                "larger --fmax."
            )
    return float(atoms.get_potential_energy())


def judge(atoms: Atoms, calculator: Any, given: argparse.Namespace) -> Judged:
    """Make the entries of one crystal."""
    corrected, name = not given.uncorrected, str(atoms.info["name"])
    per_atom = atoms.info.get(REFERENCE)
    reference = per_atom and corrected_entry(
        atoms, per_atom * len(atoms), name=name, corrected=corrected
    )
    energy = energy_of(atoms, calculator, given)
    entry = corrected_entry(atoms, energy, name=name, corrected=corrected)
    return Judged(entry, reference, atoms.info.get("split"))


def judge_all(crystals: list[Atoms], calculator: Any, given: argparse.Namespace) -> list[Judged]:
    """Make the entries of all crystals; name those that fail."""
    judged = []
    for atoms in tqdm(crystals, unit="crystal", disable=not sys.stderr.isatty()):
        try:
            judged.append(judge(atoms, calculator, given))
        except Exception as error:  # of whatever calculator
            reason = str(error) or type(error).__name__
            print(f"{atoms.info['name']}: {reason}", file=sys.stderr)
    return judged


def make_hull(
    judged: list[Judged], known: list[Any], given: argparse.Namespace
) -> tuple[list[Judged], ConvexHull]:
    """Make the hull of what has a pure phase of each of its elements; name what is left out."""
    entries = [one.entry for one in judged]
    hull, placed = ConvexHull([*known, *entries], known_phases=given.known_phases), []
    for one in judged:
        try:
            hull.above(one.entry)
        except CrystalformerError as error:
            print(f"{one.entry.entry_id}: {error}", file=sys.stderr)
        else:
            placed.append(one)
    if not placed:
        raise SystemExit("Error: no structure has a pure phase of each of its elements.")
    entries = [one.entry for one in placed]
    return placed, ConvexHull([*known, *entries], known_phases=given.known_phases)


def tabulate(judged: list[Judged], hull: ConvexHull, reference: ConvexHull | None) -> pd.DataFrame:
    """Set formation energy, energy above the hull and decomposition beside those of DFT."""
    rows = []
    for one in judged:
        row = {
            "name": one.entry.entry_id,
            "formula": one.entry.reduced_formula,
            "run": one.entry.parameters["run_type"],
            "split": one.split,
            "formation energy (eV/atom)": hull.formation_energy(one.entry),
            "above hull (eV/atom)": hull.above(one.entry),
        }
        if reference:
            row["formation energy, DFT"] = reference.formation_energy(one.reference)
            row["above hull, DFT"] = reference.above(one.reference)
        shares = hull.decomposition(one.entry)
        row["decomposes to"] = " + ".join(f"{x:.2f} {name}" for name, x in sorted(shares.items()))
        rows.append(row)
    return pd.DataFrame(rows).sort_values("above hull (eV/atom)", kind="stable")


def summarize(table: pd.DataFrame, path: Path) -> str:
    """Show what is on a hull, or the lowest if nothing is; say how many are."""
    distances = table[[column for column in table if column.startswith("above hull")]]
    on = distances.min(axis=1) < STABLE
    rows = (table[on] if on.any() else table.head(LOWEST)).drop(columns=["decomposes to"])
    many = int((table["above hull (eV/atom)"] < STABLE).sum())
    told = f"{many} of {len(table)} structures are on the hull"
    if not on.any():
        told += f"; these {len(rows)} are the lowest above it"
    shown = rows.to_string(index=False, float_format="{:.3f}".format, na_rep="-")
    return f"{shown}\n\n{told}. The whole table is in {path}"


def compare(table: pd.DataFrame) -> str:
    """Say how far formation energies are off, and which stable phases agree."""
    energy, above = "formation energy (eV/atom)", "above hull (eV/atom)"
    compounds = table[table["formula"].str.contains("[A-Z].*[A-Z]")]
    off = (compounds[energy] - compounds["formation energy, DFT"]).abs()
    lines = [f"formation energies are {off.mean():.3f} eV/atom off ({len(off)} compounds)"]
    for split, rows in off.groupby(compounds["split"].fillna("in no split")):
        lines.append(f"  {split}: {rows.mean():.3f} ({len(rows)})")
    off = (table[above] - table["above hull, DFT"]).abs()
    lines.append(f"energies above the hull are {off.mean():.3f} eV/atom off ({len(off)} crystals)")
    ours, theirs = (
        set(table[table[column] < STABLE]["formula"]) for column in (above, "above hull, DFT")
    )
    for told, formulas in (
        ("stable by both", ours & theirs),
        ("by the calculator alone", ours - theirs),
        ("by DFT alone", theirs - ours),
    ):
        lines.append(f"{told}: {', '.join(sorted(formulas)) or 'none'}")
    return "\n".join(lines)


def draw(hulls: dict[str, ConvexHull], elements: list[str], path: Path) -> None:
    """Draw the hulls side by side; of more than three elements, leave no picture of another."""
    if len(elements) not in {2, 3}:
        path.unlink(missing_ok=True)
        return
    figure = plt.figure(figsize=(8 * len(hulls), 7))
    for number, (title, hull) in enumerate(hulls.items(), start=1):
        axes = figure.add_subplot(1, len(hulls), number)  # which pymatgen's plotter finds by itself
        style = {"markerfacecolor": "tab:green", "markersize": 7, "linewidth": 1}
        diagram = hull.diagram(elements)
        plotter = PDPlotter(diagram, show_unstable=0, backend="matplotlib", **style)
        plotter.get_plot(label_unstable=False, ax=axes)
        for text in axes.texts:
            text.set_fontsize(9)
        axes.set_aspect("equal" if len(elements) == 3 else "auto", adjustable="box")
        axes.set_title(f"{title}: {'-'.join(elements)}")
    figure.set_size_inches(8 * len(hulls), 7)
    figure.subplots_adjust(left=0.05, right=0.97, bottom=0.1, top=0.92)
    with whole(path) as partial:
        figure.savefig(partial, dpi=100)
    plt.close(figure)


def main() -> None:
    """Make the hull; say what is wrong in a sentence."""
    given = read_arguments()
    try:
        run(given)
    except (CrystalformerError, OSError) as error:
        raise SystemExit(f"Error: {error}") from error


def run(given: argparse.Namespace) -> None:
    """Make the hull, and write it down."""
    matplotlib.use("Agg")
    given.out.mkdir(parents=True, exist_ok=True)
    crystals, failed = read_crystals(given.structures or [SAMPLE])
    calculator = load_calculator(given.calculator)
    judged = judge_all(crystals, calculator, given)
    if not judged:
        raise SystemExit("Error: none of the structures could be computed.")
    with whole(given.out / "entries.json") as entries:
        dumpfn([one.entry for one in judged], entries)
    known = read_references(given.references, corrected=not given.uncorrected)
    judged, hull = make_hull(judged, known, given)
    reference = None
    if all(one.reference for one in judged):
        theirs = [one.reference for one in judged]
        reference = ConvexHull([*known, *theirs], known_phases=given.known_phases)
    table = tabulate(judged, hull, reference)
    with whole(given.out / "table.csv") as rows:
        table.to_csv(rows, index=False)
    elements = sorted({one.symbol for entry in hull.entries for one in entry.elements})
    titles = {given.calculator: hull} | ({"DFT": reference} if reference else {})
    draw(titles, elements, given.out / "hull.png")
    print(summarize(table, given.out / "table.csv"))
    if reference:
        print(f"\n{compare(table)}")
    print(f"\nAlso in {given.out}/")
    if failed or len(judged) < len(crystals):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
