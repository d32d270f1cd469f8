"""Features that turn with the crystal: linear maps, norms and gates of them.

Directed features are a tuple with one tensor per degree l = 0, 1, ..., of shape
``(rows, 2 l + 1, channels)``. Components stand before channels, so that maps among channels are
plain matrix products. Components are in the order of ``nn.harmonics``.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

Directed = tuple[Tensor, ...]
"""One tensor ``(rows, 2 l + 1, channels)`` per degree l."""


class DirectedLinear(nn.Module):
    r"""Mix channels of every degree on their own; scalars alone are shifted.

    .. math:: y_{lmd} = \tfrac{1}{\sqrt{C_l}} \sum_c W^l_{cd} x_{lmc} + \delta_{l0} b_d

    with C the number of channels that come in; weights start from a normal distribution. A degree
    may come with no channels and leave with none, never the one without the other.

    Args:
        inputs: Channels of each degree that come in.
        outputs: Channels of each degree that leave; as many degrees or fewer.
        bias: Shift the scalars.
    """

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], bias: bool = True
    ) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(size, width))
            for size, width in zip(inputs, outputs, strict=False)
        )
        self.bias = nn.Parameter(torch.zeros(outputs[0])) if bias else None

    def forward(self, x: Directed) -> Directed:
        parts = [
            part @ (weight * weight.shape[0] ** -0.5)
            for part, weight in zip(x, self.weights, strict=False)
        ]
        if self.bias is not None:
            parts[0] = parts[0] + self.bias
        return tuple(parts)


class DirectedNorm(nn.Module):
    r"""Scale every degree to a mean square of one; scalars are centred first, as in a layer norm.

    .. math::
        y_{lmc} = g^l_c \, x_{lmc} / \sqrt{\tfrac{1}{C (2l + 1)} \sum_{mc} x_{lmc}^2 + \epsilon}
            + \delta_{l0} b_c

    :math:`\epsilon` keeps features that symmetry makes vanish at zero, with finite derivatives, but
    large ones: where a vector nearly vanishes, a small step turns it around. ``merged`` scales all
    degrees by the root of their mean squares' mean instead, which scalars keep from vanishing.

    Args:
        channels: Of each degree.
        epsilon: Added to mean squares.
        merged: One scale for all degrees.

    Source: Liao & Smidt, ICLR 2023, arXiv:2206.11990, Eq. 4; merged as in EquiformerV3.
    """

    def __init__(
        self, channels: tuple[int, ...], epsilon: float = 1e-5, merged: bool = False
    ) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.merged = merged
        self.weights = nn.ParameterList(nn.Parameter(torch.ones(width)) for width in channels)
        self.bias = nn.Parameter(torch.zeros(channels[0]))

    def forward(self, x: Directed) -> Directed:
        centred = (x[0] - x[0].mean(-1, keepdim=True), *x[1:])
        squares = [part.square().mean((-2, -1), keepdim=True) for part in centred]
        if self.merged:
            squares = [torch.stack(squares).mean(0)] * len(squares)
        scalar, *rest = (
            part * torch.rsqrt(square + self.epsilon) * weight
            for part, square, weight in zip(centred, squares, self.weights, strict=True)
        )
        return (scalar + self.bias, *rest)


class Gate(nn.Module):
    r"""Bend scalars, and scale each channel of higher degree by a scalar of its own.

    .. math:: y_0 = \mathrm{SiLU}(x_0), \quad y_{lmc} = \sigma(g_{lc}) x_{lmc}

    Scalars come first, then the gates, in order of degree. Both functions are scaled to keep a mean
    square of one of normally distributed scalars, as in e3nn.

    Args:
        channels: Channels of each degree that leave; ``inputs`` is what must come in.
    """

    SILU = 1.6765325
    SIGMOID = 1.8462285

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels
        self.inputs = (sum(channels), *channels[1:])

    def forward(self, x: Directed) -> Directed:
        scalar, *gates = self.open(x[0])
        return (scalar, *(part * gate for part, gate in zip(x[1:], gates, strict=True)))

    def open(self, scalar: Float[Tensor, "rows 1 channels"]) -> list[Tensor]:
        """Return the scalars that leave, and what to multiply each higher degree by."""
        scalar, *gates = scalar.split(list(self.channels), dim=-1)
        bent = self.SILU * nn.functional.silu(scalar)
        return [bent, *(self.SIGMOID * torch.sigmoid(gate) for gate in gates)]


def smooth_leaky_relu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Bend a line from slope 0.2 to slope 1; scaled as the activations of ``Gate`` are."""
    return 1.5290871 * x * (0.2 + 0.8 * torch.sigmoid(x))


class FeedForward(nn.Module):
    """Mix channels of every atom, gate, and mix again.

    Args:
        inputs: Channels of each degree that come in.
        hidden: Channels of each degree behind the gate.
        outputs: Channels of each degree that leave.
    """

    def __init__(
        self, inputs: tuple[int, ...], hidden: tuple[int, ...], outputs: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.gate = Gate(hidden)
        self.expand = DirectedLinear(inputs, self.gate.inputs)
        self.shrink = DirectedLinear(hidden, outputs)

    def forward(self, x: Directed) -> Directed:
        return self.shrink(self.gate(self.expand(x)))


def components(x: Float[Tensor, "rows all channels"], degrees: int) -> Directed:
    """Cut one tensor of all components, from degree 0 to ``degrees``, into its degrees."""
    return x.split([2 * degree + 1 for degree in range(degrees + 1)], dim=1)
