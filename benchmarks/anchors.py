"""Numbers many readers know: lattice constants, distances of layers, compounds on the hull.

Lattice constants stand beside PBE's, distances of layers, with and without D3, beside measured
ones, and energies above the hull of the known phases beside the zero of compounds that are stable.

    python -m benchmarks.anchors              writes benchmarks/anchors.md
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from ase_crystalformer import ConvexHull, corrected_entry, relax
from ase_crystalformer.errors import CrystalformerError

FMAX = 0.02
"""eV/Å."""

TOO_LARGE = 1.02
"""Cubic crystals begin with lattice constants larger than the known ones by this."""

#: Structure and lattice constant of PBE, Å.
CUBIC = {
    "NaCl": ("rocksalt", 5.69),
    "MgO": ("rocksalt", 4.25),
    "Si": ("diamond", 5.47),
    "C": ("diamond", 3.57),
    "Cu": ("fcc", 3.63),
    "Fe": ("bcc", 2.83),
    "W": ("bcc", 3.18),
}

#: Stable compounds: structure and measured lattice constant, Å.
STABLE = {
    "LiF": ("rocksalt", 4.03),
    "NaCl": ("rocksalt", 5.64),
    "KCl": ("rocksalt", 6.29),
    "MgO": ("rocksalt", 4.21),
    "CaO": ("rocksalt", 4.81),
    "BaO": ("rocksalt", 5.54),
    "GaAs": ("zincblende", 5.65),
    "CsCl": ("cesiumchloride", 4.12),
}

#: Atoms and their places in P6_3/mmc; a and c as measured, Å. Two layers each.
LAYERED: Mapping[str, tuple[list[str], list[tuple[float, float, float]], float, float]] = {
    "graphite": (["C", "C"], [(0, 0, 1 / 4), (1 / 3, 2 / 3, 1 / 4)], 2.46, 6.71),
    "h-BN": (["B", "N"], [(1 / 3, 2 / 3, 1 / 4), (1 / 3, 2 / 3, 3 / 4)], 2.50, 6.66),
    "2H-MoS2": (["Mo", "S"], [(1 / 3, 2 / 3, 1 / 4), (1 / 3, 2 / 3, 0.621)], 3.16, 12.29),
}


def relaxed(crystals: Mapping[str, Atoms], dispersion: str | None = None) -> dict[str, Atoms]:
    """Relax with the bundled potential; what does not come to rest is an error that names it."""
    results = relax(list(crystals.values()), fmax=FMAX, dispersion=dispersion, progress=False)
    found = {}
    for name, result in zip(crystals, results, strict=True):
        if result.atoms is None or not result.converged:
            raise CrystalformerError(f"{name} did not come to rest: {result.error}")
        found[name] = result.atoms
    return found


def cubic() -> list[str]:
    """Lattice constants beside PBE's."""
    crystals = {name: bulk(name, kind, a=TOO_LARGE * a) for name, (kind, a) in CUBIC.items()}
    rows = []
    for name, atoms in relaxed(crystals).items():
        kind, known = CUBIC[name]
        ours = known * (atoms.get_volume() / bulk(name, kind, a=known).get_volume()) ** (1 / 3)
        rows.append(
            f"| {name} | {kind} | {ours:.2f} | {known:.2f} | {100 * (ours / known - 1):+.1f} |"
        )
    head = ["| crystal | structure | a, Å | PBE | error, % |", "| --- | --- | --: | --: | --: |"]
    return [*head, *rows]


def layers() -> list[str]:
    """Distances of layers, twice each, beside measured ones."""
    crystals = {
        name: crystal(symbols, places, spacegroup=194, cellpar=[a, a, c, 90, 90, 120])
        for name, (symbols, places, a, c) in LAYERED.items()
    }
    bare, held = relaxed(crystals), relaxed(crystals, dispersion="d3bj")
    rows = []
    for name, (_, _, _, measured) in LAYERED.items():
        without, with_d3 = bare[name].cell.lengths()[2], held[name].cell.lengths()[2]
        rows.append(f"| {name} | {without:.1f} | {with_d3:.1f} | {measured:.1f} |")
    head = ["| crystal | c, Å | with D3 | measured |", "| --- | --: | --: | --: |"]
    return [*head, *rows]


def hull() -> list[str]:
    """Energies of stable compounds above the hull of the known phases, eV/atom."""
    crystals = {name: bulk(name, kind, a=a) for name, (kind, a) in STABLE.items()}
    known, rows = ConvexHull(known_phases=True), []
    for name, atoms in relaxed(crystals).items():
        entry = corrected_entry(atoms, atoms.get_potential_energy())
        beside = "+".join(sorted(known.decomposition(entry)))
        rows.append(f"| {name} | {known.above(entry):+.3f} | {beside} |")
    head = ["| compound | eV/atom above the hull | of known phases |", "| --- | --: | --- |"]
    return [*head, *rows]


def main() -> None:
    """Relax them all and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.anchors", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    out = parser.parse_args().out
    lines = [
        *["# Known numbers", ""],
        *[f"`python -m benchmarks.anchors`: the bundled potential, relaxed to {FMAX} eV/Å.", ""],
        f"Cubic crystals, from {100 * (TOO_LARGE - 1):.0f} % too large:",
        *["", *cubic(), "", "Layers, from their measured cells:", "", *layers(), ""],
        *["Stable compounds, corrected as Materials Project corrects:", "", *hull()],
    ]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
