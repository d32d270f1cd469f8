"""Six real crystals: predict their properties, shake them, relax them, compare with DFT.

    python workflows/demo.py [--out demo_results]

Reads the CIF files beside this program, prints one table with units, and writes ``table.csv``,
``relaxed.extxyz`` and ``demo.png``. The references are Materials Project's (PBE); all five are
crystals the property model has not been trained on. The slab has no reference.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.io import read, write
from ase.visualize.plot import plot_atoms
from matplotlib.figure import Figure
from programs import whole

from ase_crystalformer import predict, relax

FOLDER = Path(__file__).parent / "demo_structures"
PROPERTIES = {
    "formation_energy_per_atom": "E_form (eV/atom)",
    "band_gap": "gap (eV)",
    "bulk_modulus": "K (GPa)",
    "shear_modulus": "G (GPa)",
}
VOLUME = "V relaxed (Å³/atom)"


def read_crystals() -> tuple[list[dict[str, Any]], list[Atoms]]:
    """Read the crystals and what DFT says of them; a missing reference is NaN."""
    told = json.loads((FOLDER / "references.json").read_text(encoding="utf-8"))["crystals"]
    return told, [read(FOLDER / row["file"]) for row in told]


def shaken(atoms: Atoms, seed: int) -> Atoms:
    """Move every atom by about 0.05 Å and, if it is a bulk crystal, stretch the cell by 2 %."""
    shaken = atoms.copy()
    if atoms.pbc.all():
        shaken.set_cell(atoms.cell * 1.02, scale_atoms=True)
    shaken.rattle(0.05, seed=seed)
    return shaken


def tabulate(
    told: list[dict[str, Any]], predicted: pd.DataFrame, relaxed: list[Any]
) -> pd.DataFrame:
    """Put prediction and reference of every quantity side by side."""
    table = pd.DataFrame({"crystal": [Path(row["file"]).stem for row in told]})
    for name, label in PROPERTIES.items():
        table[label] = predicted[name].to_numpy()
        table[f"{label} DFT"] = [row.get(name) for row in told]
    bulk = [row.get("volume_per_atom") is not None for row in told]
    volumes = [result.atoms.get_volume() / len(result.atoms) for result in relaxed]
    table[VOLUME] = np.where(bulk, volumes, np.nan)
    table[f"{VOLUME} DFT"] = [row.get("volume_per_atom") for row in told]
    table["steps"] = [result.steps for result in relaxed]
    table["converged"] = [result.converged for result in relaxed]
    return table


def draw(table: pd.DataFrame, relaxed: list[Any], path: Path) -> None:
    """Draw the relaxed crystals above, predictions against references below."""
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    panels = figure.subplots(2, 6, height_ratios=[1.1, 1])
    for axes, name, result in zip(panels[0], table["crystal"], relaxed, strict=True):
        repeat = (2, 2, 2) if len(result.atoms) < 3 else (1, 1, 1)
        plot_atoms(result.atoms.repeat(repeat), axes, rotation="80x,15y,0z", radii=0.5)
        axes.set_title(f"{name}\n{result.steps} steps to {result.fmax:.3f} eV/Å", fontsize=9)
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        half = max(right - left, high - low) / 2
        axes.set_xlim((left + right) / 2 - half, (left + right) / 2 + half)
        axes.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)
        axes.axis("off")
    for axes, label in zip(panels[1], [*PROPERTIES.values(), VOLUME], strict=False):
        reference, ours = table[f"{label} DFT"].astype(float), table[label].astype(float)
        low, high = np.nanmin([reference, ours]), np.nanmax([reference, ours])
        margin = 0.08 * (high - low) or 1.0
        box = (low - margin, high + margin)
        axes.plot(box, box, color="0.6", linewidth=0.8)
        axes.scatter(reference, ours, c=[f"C{i}" for i in range(len(table))], s=45, zorder=2)
        axes.set(xlim=box, ylim=box, aspect="equal", xlabel="DFT", ylabel="predicted")
        axes.set_title(label, fontsize=9)
    for number, name in enumerate(table["crystal"]):
        panels[1][-1].scatter([], [], color=f"C{number}", s=45, label=name)
    panels[1][-1].legend(loc="center", frameon=False)
    panels[1][-1].axis("off")
    with whole(path) as partial:
        figure.savefig(partial, dpi=120)


def main() -> None:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo_results"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    told, crystals = read_crystals()
    predicted = predict(crystals)
    relaxed = relax([shaken(atoms, seed) for seed, atoms in enumerate(crystals)], fmax=0.02)
    table = tabulate(told, predicted, relaxed)
    table.to_csv(out / "table.csv", index=False)
    write(out / "relaxed.extxyz", [result.atoms for result in relaxed])
    draw(table, relaxed, out / "demo.png")
    print(table.set_index("crystal").T.to_string(na_rep="-", float_format="{:.3f}".format))
    print(f"\nRelaxed structures, table and picture: {out}/")


if __name__ == "__main__":
    main()
