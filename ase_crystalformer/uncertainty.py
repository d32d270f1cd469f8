"""What a potential expects to be wrong by, and whether it knows surroundings like these."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ase_crystalformer.graph import CrystalGraph
from ase_crystalformer.heads import Uncertainty, sum_over_atoms


@dataclass(frozen=True, kw_only=True)
class UncertaintyConfig:
    """Sizes of an uncertainty head.

    Attributes:
        hidden: Width of its two networks.
        directions: In which the energies of unlike atoms may err independently.
        elements: Largest atomic number.
    """

    hidden: int = 32
    directions: int = 8
    elements: int = 98


class UncertaintyHead(nn.Module):
    r"""Expected errors of energy and forces, read off the atom features the energy is read off.

    With standardised features :math:`\hat x_i`, forces :math:`F_i` and two small networks,

    .. math::
        \sigma_i = c_F \, (1 + \nu_i^2) \, (f + e^{a(\hat x_i, |F_i|)}), \qquad
        \sigma_E = c_E \sqrt{(f_E n)^2 + \Big| \sum_i (1 + \nu_i^2) \, u(\hat x_i) \Big|^2}.

    An energy error is taken as a random direction of the :math:`u` space: errors of like
    surroundings add up, as they must in a supercell, those of unlike ones add in quadrature. So
    :math:`\sigma_E` grows with the crystal of n atoms as the energy does, and :math:`\sigma_i` does
    not. Both have floors, f and :math:`f_E`, are smooth in the positions, and grow with the novelty

    .. math:: \nu_i^2 = (x_i - m_Z)^T (C + \lambda)^{-1} (x_i - m_Z) / \nu_{\max}^2,

    the Mahalanobis distance from the mean features of the element in training, with one covariance
    of all elements.

    Shapes:
        ``(atoms, width), (atoms, 3) -> (crystals,), (atoms,), (atoms,)``

    Sources: Lee et al., NeurIPS 2018, arXiv:1807.03888, Eqs. 1 and 2 (the distance; theirs has no
    shrinkage). That energy errors add up as a linear function of features is the assumption of
    Bigi et al., Mach. Learn.: Sci. Technol. 5 (2024) 045018; the directions are fitted here.
    """

    centre: Tensor
    spread: Tensor
    usual: Tensor
    whiten: Tensor
    limit: Tensor
    force_scale: Tensor
    energy_scale: Tensor

    #: Forces are told from each other above this, eV/Å.
    FORCE = 0.1

    #: Least expected errors: of a force, eV/Å, and of the energy of an atom, eV.
    FORCE_FLOOR = 1e-3
    ENERGY_FLOOR = 1e-3

    #: Logarithms of expected errors end here, that they stay finite however strange the features.
    LARGEST_LOG = 20.0

    def __init__(self, width: int, config: UncertaintyConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UncertaintyConfig()
        self.force = nn.Sequential(
            nn.Linear(width + 1, config.hidden), nn.SiLU(), nn.Linear(config.hidden, 1)
        )
        self.energy = nn.Sequential(
            nn.Linear(width, config.hidden), nn.SiLU(), nn.Linear(config.hidden, config.directions)
        )
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.register_buffer("usual", torch.zeros(config.elements + 1, width))
        self.register_buffer("whiten", torch.eye(width))
        self.register_buffer("limit", torch.ones(()))
        self.register_buffer("force_scale", torch.ones(()))
        self.register_buffer("energy_scale", torch.ones(()))

    def forward(
        self,
        features: Float[Tensor, "atoms width"],
        graph: CrystalGraph,
        forces: Float[Tensor, "atoms 3"] | None = None,
    ) -> Uncertainty:
        """Expect errors of a batch; of forces only where those are known."""
        novelty = self.novelty(features, graph.species)
        standard = self.standard(features)
        energy = self.energy_scale * self.expected_energy(
            standard, novelty, partial(sum_over_atoms, graph=graph)
        )
        of_forces = None
        if forces is not None:
            of_forces = self.force_scale * self.expected_force(standard, novelty, forces)
        return Uncertainty(energy=energy.double(), novelty=novelty, forces=of_forces)

    def novelty(
        self, features: Float[Tensor, "atoms width"], species: Int[Tensor, " atoms"]
    ) -> Float[Tensor, " atoms"]:
        """Distance from the training distribution of the same element, in units of the limit."""
        return ((features - self.usual[species]) @ self.whiten).norm(dim=-1) / self.limit

    def standard(self, features: Float[Tensor, "atoms width"]) -> Float[Tensor, "atoms width"]:
        """Features of mean 0 and variance 1 over training."""
        return (features - self.centre) / self.spread

    def expected_force(
        self,
        standard: Float[Tensor, "atoms width"],
        novelty: Float[Tensor, " atoms"],
        forces: Float[Tensor, "atoms 3"],
    ) -> Float[Tensor, " atoms"]:
        """Expected length of the force error before calibration, eV/Å."""
        size = (forces.detach() / self.FORCE).square().sum(-1, keepdim=True).log1p()
        log = self.force(torch.cat([standard, size], dim=-1))[:, 0].clamp(max=self.LARGEST_LOG)
        return (1 + novelty.square()) * (self.FORCE_FLOOR + log.exp())

    def expected_energy(
        self,
        standard: Float[Tensor, "atoms width"],
        novelty: Float[Tensor, " atoms"],
        total: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, " crystals"]:
        """Expected absolute error of the energy of every crystal before calibration, eV.

        Args:
            standard: Standardised features.
            novelty: Of every atom.
            total: Sums over the atoms of every crystal.
        """
        atoms = total(torch.ones_like(novelty))
        directions = total((1 + novelty.square())[:, None] * self.energy(standard))
        return ((self.ENERGY_FLOOR * atoms).square() + directions.square().sum(-1)).sqrt()
