r"""An effective Hamiltonian for classical spins that attends: equivariant, any number of layers.

Source: Nagai & Tomiya, "Self-learning Monte Carlo with equivariant Transformer", J. Phys. Soc. Jpn.
93, 114007 (2024), arXiv:2306.11527. Every layer makes effective spins of the spins before, by
weights that are plain numbers, one per shell of neighbours: a turn of all spins turns them along,
and the energy, made of scalar products, does not change.

What we changed: nothing in the equations. Layers start as the identity (no value spins), so that
training starts from the linear model and cannot end below it for want of a good start.
"""

import math

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

CITATION = """\
@article{nagai2024selflearning,
  title   = {Self-learning {M}onte {C}arlo with equivariant Transformer},
  author  = {Nagai, Yuki and Tomiya, Akio},
  journal = {Journal of the Physical Society of Japan},
  volume  = {93},
  pages   = {114007},
  year    = {2024}
}"""

#: Square of a length that counts as none. Spins have length one.
NOTHING = 1e-12


class SpinTransformer(nn.Module):
    r"""Energy of classical spins: Heisenberg exchange between effective spins.

    Layer :math:`l` adds to each spin what the others tell it, and makes it a unit vector again:

    .. math::
        A_{ij} = \mathrm{ReLU}(S^Q_i \cdot S^K_j / \sqrt 3), \quad
        S_i \leftarrow N(S_i + \sum_j A_{ij} S^V_j), \quad
        S^\alpha_i = \sum_n W^\alpha_n \sum_{j \in n(i)} S_j

    where :math:`n(i)` are the neighbours of site :math:`i` in shell :math:`n`, and shell 0 is the
    site itself. Of the last spins,

    .. math:: E = E_0 - \sum_{n \ge 1} J_n \sum_{\langle ij \rangle_n} S_i \cdot S_j

    No layers leave the linear model of self-learning Monte Carlo.

    Args:
        bonds: How often site ``j`` is a neighbour of site ``i``, for every shell from 1 on: that
            of ``SpinLattice``.
        layers: Number of attention layers.

    Example:
        >>> from ase.build import bulk
        >>> from ase_crystalformer import SpinLattice, SpinTransformer
        >>> lattice = SpinLattice(bulk("Fe", cubic=True).repeat(2), shells=2)
        >>> model = SpinTransformer(lattice.bonds, layers=3)
        >>> energies = model.energy(lattice.states(chains=8, seed=0))  # eV
    """

    bonds: Tensor

    def __init__(self, bonds: Float[Tensor, "shells sites sites"], layers: int = 3) -> None:
        super().__init__()
        if layers < 0:
            raise ValueError(f"layers is {layers}; zero (the linear model) or more are allowed.")
        shells, sites, _ = bonds.shape
        own = torch.eye(sites, dtype=bonds.dtype, device=bonds.device)[None]
        self.register_buffer("bonds", torch.cat([own, bonds]))
        mixing = torch.zeros(layers, 3, shells + 1, dtype=bonds.dtype, device=bonds.device)
        nn.init.normal_(mixing[:, :2], std=0.1)
        mixing[:, :2, 0] += 1
        self.mixing = nn.Parameter(mixing)  # query, key and value
        self.exchange = nn.Parameter(bonds.new_zeros(shells))  # eV
        self.constant = nn.Parameter(bonds.new_zeros(()))  # eV

    def forward(self, spins: Float[Tensor, "chains sites 3"]) -> Float[Tensor, " chains"]:
        """Energy of each configuration, eV."""
        exchange = torch.tensordot(self.exchange, self.bonds[1:], dims=1)
        return self.constant + _bond_energy(self.effective_spins(spins).mT, exchange)

    def effective_spins(
        self, spins: Float[Tensor, "chains sites 3"]
    ) -> Float[Tensor, "chains sites 3"]:
        """Spins after all layers, each of length one."""
        # Sites last: then one product makes query, key and value spins of all configurations.
        rows = spins.mT.contiguous()
        layers, sites = len(self.mixing), len(self.bonds[0])
        mixing = self.mixing.flatten(0, 1) @ self.bonds.flatten(1)
        for matrices in mixing.view(layers, 3 * sites, sites):
            query, key, value = (rows @ matrices.mT).chunk(3, dim=2)
            # ReLU(x / √3) is ReLU(x) / √3, and there are fewer spins than pairs.
            told = torch.relu(key.mT @ query)
            rows = _unit(rows + value @ told / math.sqrt(3))
        return rows.mT

    def energy(self, states: Float[ndarray, "chains sites 3"]) -> Float[ndarray, " chains"]:
        """Energy of each configuration, eV, as Monte Carlo asks for it."""
        with torch.no_grad():
            return self(torch.from_numpy(states).to(self.bonds)).double().cpu().numpy()

    @torch.no_grad()
    def solve_exchange(
        self, spins: Float[Tensor, "chains sites 3"], energies: Float[Tensor, " chains"]
    ) -> None:
        """Set the exchange constants, and the constant, to the best there are for these layers."""
        effective = self.effective_spins(spins).mT
        terms = torch.stack([_bond_energy(effective, bonds) for bonds in self.bonds[1:]], dim=1)
        mean, middle = terms.mean(0), energies.mean()
        # Shells of a small lattice may repeat each other: the least of all solutions.
        inverse = torch.linalg.pinv(terms - mean, rtol=1e-8)
        self.exchange.copy_(inverse @ (energies - middle))
        self.constant.copy_(middle - mean @ self.exchange)


def _bond_energy(
    spins: Float[Tensor, "chains 3 sites"], exchange: Float[Tensor, "sites sites"]
) -> Float[Tensor, " chains"]:
    """Energy of bonds, each of which the matrix holds twice."""
    return (spins @ exchange * spins).sum((1, 2)) * -0.5


def _unit(vector: Float[Tensor, "chains 3 sites"]) -> Float[Tensor, "chains 3 sites"]:
    """Scale to length one; a vector that vanishes stays, and its derivatives are finite."""
    return vector * torch.rsqrt((vector * vector).sum(1, keepdim=True) + NOTHING)
