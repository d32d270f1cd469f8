"""How far do relaxed volumes end from DFT? Crystals of WBM, shaken and relaxed by a potential.

    python benchmarks/relaxed_volumes.py --data data --count 60 --seed 0

Every atom is moved by about 0.05 Å (normal, per coordinate); the DFT cell is the reference.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms

from ase_crystalformer import relax
from ase_crystalformer.data.readers import load

SHAKE, FMAX, STEPS = 0.05, 0.05, 300


def main() -> None:
    """Relax, and print the errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="default")
    told = parser.parse_args()
    known = list(load("wbm_equilibrium", told.data))
    drawn = np.random.default_rng(told.seed).permutation(len(known))[: told.count]
    crystals = [
        Atoms(known[i].species, known[i].positions, cell=known[i].cell, pbc=True) for i in drawn
    ]
    shaken = [atoms.copy() for atoms in crystals]
    for number, atoms in enumerate(shaken):
        atoms.rattle(SHAKE, seed=number)
    results = relax(shaken, model=told.model, fmax=FMAX, steps=STEPS)
    pairs = zip(results, crystals, strict=True)
    error = [
        abs(result.atoms.get_volume() / atoms.get_volume() - 1)
        for result, atoms in pairs
        if result.atoms is not None
    ]
    print(
        f"{len(error)} of {len(crystals)} relaxed; {np.mean([r.converged for r in results]):.1%} "
        f"converged within {STEPS} steps; median {np.median([r.steps for r in results]):.0f} steps"
    )
    print(
        f"volume error: median {np.median(error):.2%}, mean {np.mean(error):.2%}, "
        f"worst {np.max(error):.1%}"
    )


if __name__ == "__main__":
    main()
