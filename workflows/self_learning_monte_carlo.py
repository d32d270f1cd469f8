"""Spins coupled to electrons, sampled with models that learn: how often is a proposal accepted?

    python workflows/self_learning_monte_carlo.py --size 6 --layers 0 1 2 3

The double-exchange model on a square lattice: every exact energy diagonalises the Hamiltonian of
the electrons, so proposals come from a model that is cheap. Without layers it is the Heisenberg
model with distant neighbours; with layers, the spin transformer of Nagai and Tomiya
(arXiv:2306.11527). Chains sample the exact distribution with either, only faster with the better
one, which the energies in the table show. Writes ``table.csv``, and ``energies.csv`` with the
energy of every chain after every step.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.units import kB

from ase_crystalformer import DoubleExchange, MonteCarlo, SpinLattice, SpinTransformer, self_learn


def read_arguments() -> argparse.Namespace:
    """Read the command line; energies are in units of the hopping, 1 eV."""
    introduction, example, more = __doc__.split("\n\n", 2)
    parser = argparse.ArgumentParser(
        description=f"{introduction}\n\n{more}",
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", type=int, default=6, help="sites along an edge (6)")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 1], help="of models (0 1)")
    parser.add_argument("--kT", type=float, default=0.05, help="temperature in eV (0.05)")
    parser.add_argument(
        "--coupling", type=float, default=1.0, help="of spin and electron in eV (1)"
    )
    parser.add_argument("--shells", type=int, default=6, help="of neighbours that interact (6)")
    parser.add_argument("--sweeps", type=int, default=4, help="moves per site in a proposal (4)")
    parser.add_argument("--chains", type=int, default=16, help="side by side (16)")
    parser.add_argument("--rounds", type=int, default=3, help="of learning (3)")
    parser.add_argument("--steps", type=int, default=40, help="proposals afterwards (40)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
    parser.add_argument("--out", type=Path, default=Path("self_learning_results"))
    return parser.parse_args()


def square(size: int) -> Atoms:
    """A square lattice, periodic in its plane."""
    return Atoms("Fe", cell=[3, 3, 20], pbc=(True, True, False)).repeat((size, size, 1))


def summary(name: str, chain: MonteCarlo, energies: Any, moves: int) -> dict[str, Any]:
    """One row: means over the second half, errors from the scatter of independent chains."""
    per_chain = np.array(energies)[len(energies) // 2 :].mean(axis=0) / chain.states.shape[1]
    several = len(per_chain) > 1
    return {
        "model": name,
        "accepted (%)": 100 * chain.acceptance,
        "moves per exact energy": moves,
        "energy (eV/site)": per_chain.mean(),
        "error (eV/site)": per_chain.std(ddof=1) / np.sqrt(len(per_chain)) if several else np.nan,
    }


def main() -> None:
    """Run single moves, then learn and run with every model."""
    given = read_arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(given.seed)
    lattice = SpinLattice(square(given.size), given.shells, turn=0.5)
    temperature, moves = given.kT / kB, given.sweeps * lattice.sites
    electrons = DoubleExchange(lattice, temperature, coupling=given.coupling)
    states = lattice.states(given.chains, given.seed)
    chain = MonteCarlo(states, electrons.energy, lattice.move, temperature, seed=given.seed)
    energies = {"single moves": chain.run(30 * lattice.sites, every=lattice.sites)}
    rows = [summary("single moves", chain, energies["single moves"], 1)]
    for layers in given.layers:
        model = SpinTransformer(lattice.bonds, layers)
        learned = self_learn(chain, model, inner=moves, rounds=given.rounds)
        name = f"{layers} layers" if layers else "linear"
        energies[name] = learned.run(given.steps)
        rows.append(summary(name, learned, energies[name], moves))
    table = pd.DataFrame(rows)
    table.to_csv(given.out / "table.csv", index=False)
    columns = {name: np.concatenate(seen) / lattice.sites for name, seen in energies.items()}
    pd.DataFrame({name: pd.Series(column) for name, column in columns.items()}).to_csv(
        given.out / "energies.csv", index=False
    )
    print(table.to_string(index=False, float_format="{:.4g}".format))


if __name__ == "__main__":
    main()
