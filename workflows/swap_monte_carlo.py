"""Which atom sits where: an alloy ordered by exchanging atoms, at several temperatures.

    python workflows/swap_monte_carlo.py --temperatures 300 600 1200 --steps 600
    python workflows/swap_monte_carlo.py my.cif --calculator default --guide emt --moves 20

Without a file: CuAu on 32 sites, as random as they come. Temperatures (K) run side by side. With
``--guide`` a cheap calculator makes the moves and the other one corrects them, which samples the
same distribution with fewer of its energies. The share of unlike neighbours is 0.67 in ordered
CuAu (L1_0) and 0.52 where chance decides. Writes ``table.csv``, ``swaps.traj`` (last looks) and
``chain.npz``, from which ``--resume`` goes on.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

from ase_crystalformer import (
    CrystalformerError,
    MonteCarlo,
    Occupations,
    SpinLattice,
    load_calculator,
)

CALCULATOR = "default, a model, a calculator of ASE's, module:factory"


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    introduction, example, more = __doc__.split("\n\n", 2)
    parser = argparse.ArgumentParser(
        description=f"{introduction}\n\n{more}",
        epilog=f"examples:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("structure", type=Path, nargs="?", help="any file ASE reads")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[300, 600, 1200])
    parser.add_argument("--calculator", default="emt", help=f"{CALCULATOR} (emt)")
    parser.add_argument("--guide", help="a cheaper calculator, named likewise")
    parser.add_argument("--moves", type=int, default=10, help="of the guide per proposal (10)")
    parser.add_argument("--steps", type=int, default=400, help="proposals (400)")
    parser.add_argument("--every", type=int, default=20, help="steps from look to look (20)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/chain.npz")
    parser.add_argument("--out", type=Path, default=Path("swap_results"))
    given = parser.parse_args()
    if not 1 <= given.every <= given.steps:
        parser.error(
            f"--steps is {given.steps} and --every is {given.every}; one step or more lie between "
            "two looks, and there is one look at least"
        )
    return given


def random_alloy(seed: int) -> Atoms:
    """CuAu on the sites of a face-centred crystal, in no order."""
    atoms = bulk("Cu", a=3.87, cubic=True).repeat(2)
    atoms.symbols[np.random.default_rng(seed).permutation(len(atoms))[::2]] = "Au"
    return atoms


def chain_of(atoms: Atoms, alloy: Occupations, given: argparse.Namespace) -> MonteCarlo:
    """Make one chain per temperature."""
    guided: dict[str, Any] = {}
    if given.guide:
        cheap = Occupations(atoms, load_calculator(given.guide))
        guided = {"effective": cheap.energy, "inner": given.moves}
    temperatures = np.array(given.temperatures, dtype=float)
    states = alloy.states(chains=len(temperatures))
    return MonteCarlo(states, alloy.energy, alloy.move, temperatures, seed=given.seed, **guided)


def main() -> None:
    """Sample; say what is wrong in a sentence."""
    given = read_arguments()
    try:
        sample(given)
    except (CrystalformerError, NotImplementedError, OSError) as error:
        raise SystemExit(f"Error: {error}") from error


def sample(given: argparse.Namespace) -> None:
    """Sample, and say how ordered the alloy is."""
    given.out.mkdir(parents=True, exist_ok=True)
    atoms = read(given.structure) if given.structure else random_alloy(given.seed)
    alloy = Occupations(atoms, load_calculator(given.calculator))
    bonds = SpinLattice(atoms).bonds[0].numpy()
    chain = chain_of(atoms, alloy, given)
    if given.resume:
        chain.load(given.out / "chain.npz")

    def look(chain: MonteCarlo) -> tuple[Any, Any]:
        unlike = chain.states[:, :, None] != chain.states[:, None, :]
        return chain.energies / len(atoms), (unlike * bonds).sum((1, 2)) / bonds.sum()

    saved = given.out / "chain.npz"
    seen = np.array(chain.run(given.steps, every=given.every, observe=look, checkpoint=saved))
    settled = seen[len(seen) // 2 :].mean(axis=0)
    table = pd.DataFrame({"temperature (K)": given.temperatures})
    table["accepted (%)"] = 100 * chain.accepted / chain.steps
    table["energy (eV/atom)"], table["unlike neighbours"] = settled
    table.to_csv(given.out / "table.csv", index=False)
    last = zip(chain.states, chain.energies, strict=True)
    write(given.out / "swaps.traj", [alloy.atoms(state, energy) for state, energy in last])
    print(table.to_string(index=False, float_format="{:.4g}".format))


if __name__ == "__main__":
    main()
