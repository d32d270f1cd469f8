r"""Equations of state beside all-electron ones, element by element.

Reference and measures: E. Bosoni et al., Nature Reviews Physics 6, 45 (2024). Crystals are cubic,
and their atoms sit where symmetry holds them, so that a volume is all there is. Two equations of
state a and b are compared by

.. math::

    \nu = 100 \sqrt{\textstyle\sum_Y \left[ w_Y \frac{Y_a - Y_b}{(Y_a + Y_b)/2} \right]^2},
    \quad w_{V_0} = 1, \; w_{B_0} = 1/20, \; w_{B_1} = 1/400

    \varepsilon = \left( \frac{\langle (E_a - E_b)^2 \rangle}
    {\sqrt{\langle (E_a - \langle E_a \rangle)^2 \rangle
    \langle (E_b - \langle E_b \rangle)^2 \rangle}} \right)^{1/2}

where energies are counted from their minima and averages run over the volumes within 6 % of the
mean of both :math:`V_0`. Between DFT codes, ν below 0.1 and ε below 0.06 are excellent agreement,
0.33 and 0.2 good. The reference is non-magnetic PBE without U: a potential of magnetic or PBE+U
data differs from it even if it is perfect.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field

from ase_crystalformer.assessment.benchmark import Benchmark, Count, Statistic, atoms_of, label
from ase_crystalformer.assessment.plots import parity
from ase_crystalformer.assessment.statistics import (
    mean_absolute,
    median_absolute,
    share,
    statistic,
)
from ase_crystalformer.data.crystals import LabelledCrystal
from ase_crystalformer.data.readers import load
from ase_crystalformer.errors import BadStructure
from ase_crystalformer.units import GPA

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Weights of the relative differences of V0, B0 and B1 in ν.
WEIGHTS = np.array([1, 1 / 20, 1 / 400])

#: A volume is told as close within so much of the reference, per cent.
CLOSE = 3.0

#: Volumes over which ε is averaged, relative to the mean of both V0.
RANGE = 0.06

GOOD_NU, GOOD_EPSILON = 0.33, 0.2


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which volumes are computed.

    Attributes:
        width: How far they reach on both sides of the minimum.
        points: How many there are.
        moves: How often they may be shifted to find the minimum.
        oxides: Take oxides too, and not elemental crystals alone.
    """

    width: Annotated[float, Field(gt=0, lt=0.5)] = 0.06
    points: Annotated[int, Field(ge=5)] = 7
    moves: Count = 12
    oxides: bool = True


@dataclass(frozen=True, kw_only=True)
class Curve:
    """An equation of state after Birch and Murnaghan.

    Attributes:
        volume: Where the energy is lowest, Å³/atom.
        bulk: Bulk modulus there, GPa.
        derivative: Of the bulk modulus by pressure.
    """

    volume: float
    bulk: float
    derivative: float

    def energy(self, volume: Float[ndarray, " volumes"]) -> Float[ndarray, " volumes"]:
        """Energy above the minimum, eV/atom."""
        x = (self.volume / volume) ** (2 / 3) - 1
        scale = 9 / 16 * self.bulk * GPA * self.volume
        return scale * x**2 * ((self.derivative - 4) * x + 2)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Equations of state of one crystal.

    Attributes:
        element: The element, or the one that is oxidised.
        found: By the potential.
        reference: By all-electron DFT.
        nu: Distance of the parameters.
        epsilon: Distance of the curves.
    """

    element: str
    found: Curve
    reference: Curve
    nu: float
    epsilon: float


def nu(a: Curve, b: Curve) -> float:
    """Distance of two equations of state by their parameters."""
    one, other = (np.array([c.volume, c.bulk, c.derivative]) for c in (a, b))
    return float(100 * np.linalg.norm(WEIGHTS * 2 * (one - other) / (one + other)))


def epsilon(a: Curve, b: Curve) -> float:
    """Distance of two equations of state by their energies."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    volumes = (a.volume + b.volume) / 2 * (1 + RANGE * nodes)
    one, other = a.energy(volumes), b.energy(volumes)

    def mean(values: Float[ndarray, " volumes"]) -> float:
        return float((weights * values).sum() / 2)

    spread = mean((one - mean(one)) ** 2) * mean((other - mean(other)) ** 2)
    return float(np.sqrt(mean((one - other) ** 2) / np.sqrt(spread)))


def fit(volumes: Float[ndarray, " points"], energies: Float[ndarray, " points"]) -> Curve | None:
    """Fit an equation of state; ``None`` if the energies have no minimum.

    The energy after Birch and Murnaghan is a cubic polynomial of V^(-2/3), so least squares are
    linear.

    Args:
        volumes: Å³/atom.
        energies: eV/atom.
    """
    centre = volumes.mean()
    polynomial = np.polynomial.Polynomial.fit((volumes / centre) ** (-2 / 3), energies, 3)
    slope, curvature = polynomial.deriv(), polynomial.deriv(2)
    roots = np.asarray(slope.roots(), dtype=complex)
    real = [float(root.real) for root in roots if root.imag == 0 and root.real > 0]
    minima = [root for root in real if float(curvature(root)) > 0]
    if not minima:
        return None
    x = minima[0]  # A cubic has one minimum at most.
    volume = centre * x**-1.5
    second, third = float(curvature(x)), float(polynomial.deriv(3)(x))
    # B = -V dP/dV and dB/dP, where dE/dx is zero.
    bulk = 4 / 9 * x**2 * second / volume
    derivative = 4 + 2 / 3 * x * third / second
    return Curve(volume=float(volume), bulk=float(bulk / GPA), derivative=float(derivative))


def equation_of_state(calculator: Any, crystal: LabelledCrystal, options: Options) -> Curve:
    """Compute energies around the volume where they are lowest, and fit them.

    Raises:
        BadStructure: There is no such volume near the reference.
    """
    atoms = atoms_of(crystal)
    atoms.calc = calculator
    cell, size = crystal.cell, crystal.atoms
    steps = np.linspace(1 - options.width, 1 + options.width, options.points)
    centre = crystal.volume / size
    for _ in range(options.moves):
        volumes = centre * steps
        energies = np.empty(len(volumes))
        for number, volume in enumerate(volumes):
            atoms.set_cell(cell * (volume * size / crystal.volume) ** (1 / 3), scale_atoms=True)
            energies[number] = atoms.get_potential_energy() / size
        curve = fit(volumes, energies)
        lowest = int(energies.argmin())
        if lowest in (0, options.points - 1) or curve is None:
            centre = float(volumes[lowest])
        elif abs(curve.volume / centre - 1) < 0.01:
            return curve
        else:
            centre = curve.volume
    raise BadStructure(
        f"No minimum of the energy after {options.moves} moves from the reference's "
        f"{crystal.volume / size:.2f} Å³/atom to {centre:.2f}."
    )


def measure(calculator: Any, crystal: LabelledCrystal, options: Options) -> Row:
    """Fit an equation of state and compare it with the reference."""
    found = equation_of_state(calculator, crystal, options)
    reference = Curve(
        volume=label(crystal, "volume") / crystal.atoms,
        bulk=label(crystal, "bulk_modulus"),
        derivative=label(crystal, "bulk_modulus_derivative"),
    )
    return Row(
        element=_element(crystal),
        found=found,
        reference=reference,
        nu=nu(found, reference),
        epsilon=epsilon(found, reference),
    )


def _element(crystal: LabelledCrystal) -> str:
    """Read ``Ac`` from ``Ac-X/BCC``."""
    return crystal.id.partition("-")[0]


def summarise(rows: Sequence[Row]) -> list[Statistic]:
    """Average over all crystals, then over those of each element."""
    found = [
        share(f"ν ≤ {GOOD_NU} (good)", (row.nu <= GOOD_NU for row in rows)),
        share(f"ε ≤ {GOOD_EPSILON} (good)", (row.epsilon <= GOOD_EPSILON for row in rows)),
        share(f"V0 within {CLOSE:g} %", (abs(e) <= CLOSE for e in _errors(rows, "volume"))),
        statistic("V0 error, median absolute", "%", _errors(rows, "volume"), median_absolute),
        statistic("B0 error, median absolute", "%", _errors(rows, "bulk"), median_absolute),
        *_of(rows, "all"),
    ]
    for element in sorted({row.element for row in rows}):
        found += _of([row for row in rows if row.element == element], element)
    return found


def _of(rows: Sequence[Row], group: str) -> list[Statistic]:
    return [
        statistic("ν, median", "1", (row.nu for row in rows), np.median, group),
        statistic("ε, median", "1", (row.epsilon for row in rows), np.median, group),
        statistic("V0 error, mean absolute", "%", _errors(rows, "volume"), mean_absolute, group),
        statistic("B0 error, mean absolute", "%", _errors(rows, "bulk"), mean_absolute, group),
        statistic(
            "B1 error, mean absolute", "%", _errors(rows, "derivative"), mean_absolute, group
        ),
    ]


def _errors(rows: Sequence[Row], name: str) -> list[float]:
    """Relative errors, per cent."""
    return [100 * (getattr(row.found, name) / getattr(row.reference, name) - 1) for row in rows]


def draw(figure: "Figure", rows: Sequence[Row]) -> None:
    """Volumes and bulk moduli beside the reference, and ν by element."""
    from ase.data import atomic_numbers

    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 2])
    for axes, name, what in ((left, "volume", "V0 (Å³/atom)"), (middle, "bulk", "B0 (GPa)")):
        reference = [getattr(row.reference, name) for row in rows]
        parity(axes, [getattr(row.found, name) for row in rows], reference, what)
    right.scatter([atomic_numbers[row.element] for row in rows], [row.nu for row in rows], s=8)
    right.axhline(GOOD_NU, color="black", linewidth=0.8)
    right.set(xlabel="atomic number", ylabel="ν (below the line: good)", yscale="log")


def _crystals(data: Path, options: Options) -> Iterable[LabelledCrystal]:
    crystals = load("eos_all_electron", data)
    return crystals if options.oxides else (c for c in crystals if len(set(c.species)) == 1)


EQUATION_OF_STATE = Benchmark(
    name="equation-of-state",
    about="V0, B0, B1 of elements and oxides beside all-electron DFT, with ν and ε",
    row=Row,
    options=Options,
    crystals=_crystals,
    measure=measure,
    summarise=summarise,
    draw=draw,
    stratum=_element,
    precision="float64",
)
