r"""Multivectors of the Euclidean algebra G(3,0,0) and the projective G(3,0,1), and maps of them.

A multivector of the Euclidean algebra has eight components: a scalar, a vector, a bivector and a
pseudoscalar, in the order 1, e1, e2, e3, e23, e31, e12, e123. The projective algebra adds e0, with
:math:`e_0^2 = 0`; its sixteen components are two Euclidean multivectors, :math:`x = a + e_0 b`. So

.. math::
    (a + e_0 b)(c + e_0 d) = a c + e_0 (b c + \hat a d), \quad
    (a + e_0 b) \vee (c + e_0 d) = b \vee c - a \vee \hat d + e_0 (b \vee d),

where the hat changes the sign of odd grades, and all that is projective is written in Euclidean
terms. Tensors of multivectors have the shape ``(8, rows, parts, channels)``, with one part in the
Euclidean algebra and two, a and b, in the projective one.

Source: Brehmer et al., NeurIPS 2023, arXiv:2305.18415; de Haan et al., AISTATS 2024,
arXiv:2311.04744. Splitting off e0 is our own way to write it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

GRADES = (0, 1, 1, 1, 2, 2, 2, 3)
"""Grade of every component."""

SMALLEST = 0.01
"""Least mean square a multivector is divided by, where it is clamped."""

Multivector = Float[Tensor, "8 rows parts channels"]


def _euclidean_product() -> Float[Tensor, "8 8 8"]:
    """Multiply basis elements as the Pauli matrices they are; the result comes first."""
    one = torch.eye(2, dtype=torch.complex64)
    x, y = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0, -1j], [1j, 0]])
    pauli = torch.stack([x.to(one), y.to(one), torch.diag(torch.tensor([1, -1])).to(one)])
    basis = torch.cat([one[None], pauli, 1j * pauli, 1j * one[None]])
    return torch.einsum("cji,ajk,bki->cab", basis.conj(), basis, basis).real / 2


def _wedge(product: Float[Tensor, "8 8 8"]) -> Float[Tensor, "8 8 8"]:
    """Keep of a product what has the grade of both factors together."""
    grade = torch.tensor(GRADES)
    return product * (grade[:, None, None] == grade[:, None] + grade)


def _join(product: Float[Tensor, "8 8 8"]) -> Float[Tensor, "8 8 8"]:
    """Wedge complements, and take the complement of the result."""
    complement = [7, 4, 5, 6, 1, 2, 3, 0]
    return _wedge(product)[complement][:, complement][:, :, complement]


def _contraction(product: Float[Tensor, "8 8 8"]) -> Float[Tensor, "8 3 8"]:
    """Keep of the product of a vector from the left what has a lower grade."""
    grade = torch.tensor(GRADES)
    return (product * (grade[:, None, None] == grade - 1))[:, 1:4]


PRODUCT = _euclidean_product()
JOIN = _join(PRODUCT)
CONTRACTION = _contraction(PRODUCT)
SIGNS = torch.tensor([(-1.0) ** grade for grade in GRADES])
"""What the grade involution, written as a hat, multiplies every component by."""


def _bilinear(
    table: Float[Tensor, "8 8 8"],
    x: Float[Tensor, "8 rows channels"],
    y: Float[Tensor, "8 rows channels"],
) -> Float[Tensor, "8 rows channels"]:
    """Contract all products of two components with a table, as one matrix product."""
    pairs = (x[:, None] * y).flatten(0, 1).flatten(1)
    return (table.to(x).flatten(1) @ pairs).view_as(x)


def involution(x: Float[Tensor, "8 *rest"]) -> Float[Tensor, "8 *rest"]:
    """Change the sign of the odd Euclidean grades."""
    return x * SIGNS.to(x).view(-1, *[1] * (x.dim() - 1))


def geometric_product(x: Multivector, y: Multivector) -> Multivector:
    """Multiply channel by channel."""
    if x.shape[2] == 1:
        return _bilinear(PRODUCT, x[:, :, 0], y[:, :, 0])[:, :, None]
    (a, b), (c, d) = x.unbind(2), y.unbind(2)
    left = torch.cat([a, b, involution(a)], dim=-1)
    first, second, third = _bilinear(PRODUCT, left, torch.cat([c, c, d], -1)).chunk(3, dim=-1)
    return torch.stack([first, second + third], dim=2)


def join(x: Multivector, y: Multivector) -> Multivector:
    """Join channel by channel: two points to their line, a line and a point to their plane."""
    if x.shape[2] == 1:
        return _bilinear(JOIN, x[:, :, 0], y[:, :, 0])[:, :, None]
    (a, b), (c, d) = x.unbind(2), y.unbind(2)
    right = torch.cat([c, -involution(d), d], dim=-1)
    first, second, third = _bilinear(JOIN, torch.cat([b, a, b], -1), right).chunk(3, dim=-1)
    return torch.stack([first + second, third], dim=2)


def square(x: Multivector) -> Float[Tensor, "rows channels"]:
    """Return the invariant square of every channel, which does not see e0."""
    return x[:, :, 0].square().sum(0)


def edge_actions(parts: int) -> Float[Tensor, "8 parts 4 8 parts"]:
    """Tabulate what an edge does to a multivector: by its mere being, and by its x, y and z.

    In the Euclidean algebra its direction multiplies from the right, in the projective one it
    translates.
    """
    table = torch.zeros(8, parts, 4, 8, parts)
    for part in range(parts):
        table[:, part, 0, :, part] = torch.eye(8)
    table[:, -1, 1:, :, 0] = PRODUCT[:, :, 1:4].transpose(1, 2) if parts == 1 else CONTRACTION
    return table


def points(x: Multivector, normaliser: float) -> Float[Tensor, "rows coordinates channels"]:
    r"""Read every channel as a point; in the projective algebra, its weight comes last.

    The Euclidean point is the vector. The projective one is the trivector, of coordinates p and
    weight w, both times :math:`w / (w^2 + \epsilon)`: the weight is then near one, but where it
    vanishes.
    """
    if x.shape[2] == 1:
        return x[1:4, :, 0].transpose(0, 1)
    point = torch.cat([x[4:7, :, 1], x[7:, :, 0]]).transpose(0, 1)
    weight = point[:, 3:]
    return point * (weight / (weight * weight + normaliser))


def shifted(
    point: Float[Tensor, "rows coordinates channels *slots"], by: Float[Tensor, "rows 3 *slots"]
) -> Float[Tensor, "rows coordinates channels *slots"]:
    """Translate points."""
    if point.shape[1] == 3:
        return point + by[:, :, None]
    weight = point[:, 3:]
    return torch.cat([torch.addcmul(point[:, :3], by[:, :, None], weight), weight], dim=1)


def distance_key(
    point: Float[Tensor, "rows coordinates channels *slots"],
) -> Float[Tensor, "rows features *slots"]:
    """Write points such that the square of their distance to others is a dot product."""
    crossed = point if point.shape[1] == 3 else point * point[:, 3:]
    return torch.cat([point[:, :3].square().sum(1), crossed.flatten(1, 2)], dim=1)


def distance_query(
    point: Float[Tensor, "rows coordinates heads channels"], scale: Float[Tensor, "heads channels"]
) -> Float[Tensor, "rows heads features"]:
    r"""Ask for :math:`-\lambda |w' p - w p'|^2`, summed over channels; see ``distance_key``."""
    if point.shape[1] == 3:
        parts = [-torch.ones_like(point[:, :1]), 2 * point]
    else:
        place, weight = point[:, :3], point[:, 3:]
        square = place.square().sum(1, keepdim=True)
        parts = [-weight * weight, 2 * weight * place, -square]
    return (torch.cat(parts, dim=1) * scale).transpose(1, 2).flatten(2)


class MultivectorLinear(nn.Module):
    r"""The most general equivariant linear map of multivectors and scalars side by side.

    Every grade has weights of its own, :math:`\sum_k W^k \langle x \rangle_k`, and in the
    projective algebra also :math:`\sum_k E^k e_0 \langle x \rangle_k`. Scalars and the scalar
    components of multivectors feed each other.

    Args:
        parts: 1 in the Euclidean algebra, 2 in the projective one.
        inputs: Channels of multivectors and scalars that come in.
        outputs: Channels of multivectors and scalars that leave.
    """

    grade: Tensor

    def __init__(self, parts: int, inputs: tuple[int, int], outputs: tuple[int, int]) -> None:
        super().__init__()
        (many, scalars), (width, self.scalars) = inputs, outputs
        self.parts = parts
        self.weight = nn.Parameter(torch.randn(3 + parts, many, width) * many**-0.5)
        if parts == 2:
            self.ideal = nn.Parameter(torch.randn(4, many, width) * many**-0.5)
        self.mixed = nn.Linear(scalars, self.scalars + width)
        if self.scalars:
            self.lower = nn.Parameter(torch.randn(many, self.scalars) * (2 * many) ** -0.5)
        nn.init.normal_(self.mixed.weight, std=(2 * scalars) ** -0.5)
        nn.init.zeros_(self.mixed.bias)
        self.register_buffer("grade", torch.tensor(GRADES), persistent=False)

    def matrices(self) -> Float[Tensor, "8 inputs outputs"]:
        """Return what acts on each component; parts are side by side."""
        if self.parts == 1:
            return self.weight.index_select(0, self.grade)
        above = torch.cat([self.weight[:4], self.ideal], dim=-1)
        below = torch.cat([torch.zeros_like(self.ideal), self.weight[1:]], dim=-1)
        return torch.cat([above, below], dim=-2).index_select(0, self.grade)

    def forward(
        self, x: Float[Tensor, "8 rows parts many"], s: Float[Tensor, "rows scalars"]
    ) -> tuple[Float[Tensor, "8 rows parts width"], Float[Tensor, "rows outputs"]]:
        y = torch.bmm(x.flatten(2), self.matrices()).unflatten(2, (self.parts, -1))
        scalar, shift = self.mixed(s).split([self.scalars, y.shape[3]], dim=-1)
        y[0, :, 0] += shift
        return y, torch.addmm(scalar, x[0, :, 0], self.lower) if self.scalars else scalar


class MultivectorNorm(nn.Module):
    r"""Make large multivectors of size one; scalars get a layer norm.

    .. math:: \langle y \rangle_k = \langle x \rangle_k /
        \sqrt{1 + \tfrac{1}{C} \sum_c |\langle x_c \rangle_k|^2}

    for every grade k, so that vectors are seen beside large scalars, and small ones, which symmetry
    may make vanish, stay as they are. The square includes what a grade has of e0: to be used where
    every row has a frame of its own.

    ``joint``, all grades are divided by the root of their mean square together, but for e0, or 0.1
    if that is larger. This is published, serves any frame, and has a kink.
    """

    grade: Tensor

    def __init__(self, parts: int, joint: bool) -> None:
        super().__init__()
        self.joint = joint
        grades = torch.tensor(GRADES)[:, None] + torch.arange(parts)
        members = torch.arange(3 + parts)[:, None] == grades.flatten()
        self.register_buffer("grade", members.float(), persistent=False)

    def forward(
        self, x: Multivector, s: Float[Tensor, "rows scalars"]
    ) -> tuple[Multivector, Float[Tensor, "rows scalars"]]:
        s = nn.functional.layer_norm(s, s.shape[1:])
        if self.joint:
            return x * square(x).mean(-1).clamp(min=SMALLEST).rsqrt()[:, None, None], s
        squares = self.grade @ x.square().mean(-1).transpose(1, 2).flatten(0, 1)
        scale = self.grade.T @ torch.rsqrt(squares + 1)
        return x * scale.view(8, x.shape[2], -1, 1).transpose(1, 2), s


class MultivectorProducts(nn.Module):
    r"""Bend multivectors by products of one another, and by a gate.

    Geometric products of pairs of channels, with ``joins`` half of them joins, are mixed and
    multiplied by the GELU of their own scalar component. Scalars go through a GELU alongside.
    A join is multiplied by the weight of a reference point, here the one of the row, which is one.

    Args:
        parts: 1 in the Euclidean algebra, 2 in the projective one.
        channels: Multivectors and scalars that come in and leave; in between are twice as many.
        joins: Join half of the channels of Euclidean multivectors, too; joins turn their sign under
            reflection.
    """

    def __init__(self, parts: int, channels: tuple[int, int], joins: bool) -> None:
        super().__init__()
        self.joins = joins or parts == 2
        many, scalars = channels
        self.factors = MultivectorLinear(parts, channels, (4 * many, 0))
        self.mix = MultivectorLinear(parts, (2 * many, scalars), (2 * many, 2 * scalars))
        self.last = MultivectorLinear(parts, (2 * many, 2 * scalars), channels)

    def forward(
        self, x: Multivector, s: Float[Tensor, "rows scalars"]
    ) -> tuple[Multivector, Float[Tensor, "rows scalars"]]:
        left, right = self.factors(x, s)[0].chunk(2, dim=3)
        if not self.joins:
            y = geometric_product(left, right)
        else:
            (a, b), (c, d) = left.chunk(2, dim=3), right.chunk(2, dim=3)
            y = torch.cat([geometric_product(a, c), join(b, d)], dim=3)
        y, t = self.mix(y, s)
        return self.last(nn.functional.gelu(y[:1, :, :1]) * y, nn.functional.gelu(t))
