"""The repulsion of nuclei at short range, so that atoms never fuse."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ase_crystalformer.nn.radial import envelope, norm

#: e²/4πε0 in eV Å.
COULOMB = 14.399645
#: Screening length of hydrogen-like pairs, 0.8854 Bohr radii, Å.
SCREENING = 0.46850
#: Weights and exponents of the universal screening function.
TERMS = ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.028171, 0.20162))

#: Covalent radii by atomic number from 0, Å; 2.0 beyond curium.
#: Cordero et al., Dalton Trans. 2008, 2832.
_RADII = """
    0.20
    0.31 0.28 1.28 0.96 0.84 0.76 0.71 0.66 0.57 0.58 1.66 1.41 1.21 1.11 1.07 1.05 1.02 1.06
    2.03 1.76 1.70 1.60 1.53 1.39 1.39 1.32 1.26 1.24 1.32 1.22 1.22 1.20 1.19 1.20 1.20 1.16
    2.20 1.95 1.90 1.75 1.64 1.54 1.47 1.46 1.42 1.39 1.45 1.44 1.42 1.39 1.39 1.38 1.39 1.40
    2.44 2.15 2.07 2.04 2.03 2.01 1.99 1.98 1.98 1.96 1.94 1.92 1.92 1.89 1.90 1.87 1.87 1.75
    1.70 1.62 1.51 1.44 1.41 1.36 1.36 1.32 1.45 1.46 1.48 1.40 1.50 1.50 2.60 2.21 2.15 2.06
    2.00 1.96 1.90 1.87 1.80 1.69
"""
COVALENT_RADII = torch.tensor(
    [float(radius) for radius in _RADII.split()] + [2.0] * 22, dtype=torch.float64
)


def repulsion(
    vector: Float[Tensor, "edges 3"],
    species: Int[Tensor, " atoms"],
    receiver: Int[Tensor, " edges"],
    sender: Int[Tensor, " edges"],
) -> Float[Tensor, " atoms"]:
    r"""Give every atom half the screened Coulomb energy of its closest pairs, eV.

    .. math::
        V_{ij}(r) = \frac{e^2}{4\pi\varepsilon_0} \frac{Z_i Z_j}{r}\,
                    \phi(r / a_{ij})\, f(r / R_{ij}), \quad
        a_{ij} = \frac{0.8854\, a_0}{Z_i^{0.23} + Z_j^{0.23}}

    The envelope :math:`f` ends it at the sum of the covalent radii, so that bonds feel it little.

    Source: Ziegler, Biersack, Littmark, "The Stopping and Range of Ions in Solids", 1985.
    """
    radii = COVALENT_RADII.to(vector)
    pair_i, pair_j = species[receiver], species[sender]
    reach = radii[pair_i] + radii[pair_j]
    squared = (vector * vector).sum(-1)
    near = torch.nonzero(squared < reach * reach)[:, 0]
    if near.shape[0] == 0:  # As in most crystals at rest.
        return vector.new_zeros(species.shape[0])
    pair_i, pair_j, reach = pair_i[near], pair_j[near], reach[near]
    distance = norm(vector[near])
    charge_i, charge_j = pair_i.to(vector), pair_j.to(vector)
    scaled = distance * (charge_i**0.23 + charge_j**0.23) / SCREENING
    screening = torch.stack([weight * torch.exp(-rate * scaled) for weight, rate in TERMS]).sum(0)
    energy = COULOMB * charge_i * charge_j / distance * screening * envelope(distance / reach, 1.0)
    return vector.new_zeros(species.shape[0]).index_add(0, receiver[near], energy / 2)
