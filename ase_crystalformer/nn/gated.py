"""Attention by gates instead of a softmax, as in ComFormer, on atoms and on edges.

Every neighbour sends a message through its own gate, so the sum over neighbours needs no common
denominator. Networks of several inputs side by side are split: each part of the first matrix acts
where its input lives (on atoms, on crystals, on edges), and the parts are added on the edges. These
are the same numbers with less than half the products.

Source: Yan et al., ICLR 2024, arXiv:2403.11857.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

REFERENCES = 3
"""Directions every edge is compared with."""


class RowNorm(nn.BatchNorm1d):
    """Batch norm over all axes but the last; a single row, without spread, takes the running."""

    def forward(self, input: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        rows = input.flatten(0, -2)
        if self.training and rows.shape[0] > 1:
            return super().forward(rows).view_as(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return torch.addcmul(self.bias - self.running_mean * scale, input, scale)


class Scale(nn.Module):
    """A factor and a shift per channel: what remains of a batch norm where atoms must not mix."""

    def __init__(self, width: int, start: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), start))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        return torch.addcmul(self.bias, x, self.weight)


class PartedNetwork(nn.Module):
    r"""A network of three inputs side by side.

    .. math:: W_2 \, \mathrm{SiLU}(W_1 [a | b | c] + b_1) + b_2

    The caller adds up ``W_1 [a | b | c] + b_1`` from ``part`` 0, 1, 2 and ``first.bias``.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(3 * width, width)
        self.second = nn.Linear(width, width)

    def part(self, which: int) -> Float[Tensor, "width width"]:
        """Return the columns of the first matrix that act on one input."""
        return self.first.weight.chunk(3, dim=1)[which]

    def forward(self, hidden: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        return self.second(functional.silu(hidden))


def chained(
    x: Float[Tensor, "*rows channels"], inner: nn.Linear, outer: Float[Tensor, "width between"]
) -> Float[Tensor, "*rows width"]:
    """Apply two linear maps; where there are many rows, their matrices are multiplied first."""
    if x[..., 0].numel() < outer.shape[1]:
        return functional.linear(inner(x), outer)
    bias = None if inner.bias is None else outer @ inner.bias
    return functional.linear(x, outer @ inner.weight, bias)


def asked(query: nn.Linear, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
    r"""Queries, divided by :math:`\sqrt C` where their matrix is: there are more rows than that."""
    scale = query.out_features**-0.5
    return functional.linear(x, scale * query.weight, scale * query.bias)


class Gate(nn.Module):
    r"""How much of a message passes, :math:`\sigma(\mathrm{norm}(q \odot k))`."""

    def __init__(self, width: int, batch_norm: bool) -> None:
        super().__init__()
        self.norm = RowNorm(width) if batch_norm else Scale(width, width**0.5)

    def forward(
        self, query: Float[Tensor, "*rows width"], key: Float[Tensor, "*other width"]
    ) -> Float[Tensor, "*other width"]:
        return torch.sigmoid(self.norm(query * key))


class GatedNodes(nn.Module):
    r"""Update atoms by gated messages from their neighbours.

    .. math::
        m_{ij} = \mathrm{MLP}_v[v_i | v_j | e_{ij}] \odot
            \sigma(\mathrm{norm}(q_i \odot \mathrm{MLP}_k[k_i | k_j | e_{ij}] / \sqrt C)), \quad
        x_i \leftarrow \mathrm{softplus}(x_i + \mathrm{norm}(W \textstyle\sum_j w_{ij} m_{ij}))

    Args:
        width: Channels :math:`C` of atoms and edges.
        batch_norm: Both norms are batch norms, as published. Without it, a layer norm of the atoms
            comes before queries, keys and values, and the gate is only scaled: each atom then
            depends on nothing but its surroundings.
    """

    def __init__(self, width: int, batch_norm: bool) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.edge = nn.Linear(width, width)
        self.key_network = PartedNetwork(width)
        self.message_network = PartedNetwork(width)
        self.gate = Gate(width, batch_norm)
        self.out = nn.Linear(width, width)
        self.first_norm = nn.Identity() if batch_norm else nn.LayerNorm(width)
        self.last_norm = RowNorm(width) if batch_norm else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "atoms width"],
        edge: Float[Tensor, "bonds width"],
        receiver: Int[Tensor, " edges"],
        sender: Int[Tensor, " edges"],
        weight: Float[Tensor, " edges"] | None = None,
        bond: Int[Tensor, " edges"] | None = None,
    ) -> Float[Tensor, "atoms width"]:
        """Update the atoms; ``bond`` says which row of ``edge`` is that of each edge."""
        y = self.first_norm(x)
        query = asked(self.query, y).index_select(0, receiver)
        ends = (receiver, sender)
        key = self.key_network(self._hidden(self.key_network, self.key(y), (edge, bond), ends))
        message = self.message_network(
            self._hidden(self.message_network, self.value(y), (edge, bond), ends)
        )
        message = message * self.gate(query, key)
        if weight is not None:
            message = message * weight[:, None]
        total = message.new_zeros(x.shape).index_add(0, receiver, message)
        return functional.softplus(x + self.last_norm(self.out(total)))

    def _hidden(
        self,
        network: PartedNetwork,
        nodes: Float[Tensor, "atoms width"],
        edges: tuple[Float[Tensor, "bonds width"], Int[Tensor, " edges"] | None],
        ends: tuple[Int[Tensor, " edges"], Int[Tensor, " edges"]],
    ) -> Float[Tensor, "edges width"]:
        """First layer of a network of receiver, sender and edge."""
        edge, bond = edges
        own = functional.linear(nodes, network.part(0), network.first.bias)
        other = functional.linear(nodes, network.part(1))
        hidden = chained(edge, self.edge, network.part(2))
        if bond is not None:
            hidden = hidden.index_select(0, bond)
        hidden += own.index_select(0, ends[0])
        hidden += other.index_select(0, ends[1])
        return hidden


class GatedEdges(nn.Module):
    r"""Update edges by gated messages from three references, to each of which they have an angle.

    .. math::
        m_{ek} = \mathrm{MLP}_v[v_e | v'_k | a_{ek}] \odot
            \sigma(\mathrm{norm}(q_e \odot \mathrm{MLP}_k[k_e | k'_k | a_{ek}] / \sqrt C)), \quad
        e \leftarrow \mathrm{softplus}(e + \mathrm{norm}(\textstyle\sum_k (W m_{ek} + b)))

    Args:
        width: Channels of edges and references.
        angles: Channels that describe an angle.
        batch_norm: Both norms are batch norms, as published; without it, the gate is only scaled.
    """

    def __init__(self, width: int, angles: int, batch_norm: bool) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.reference_keys = nn.ModuleList(nn.Linear(width, width) for _ in range(REFERENCES))
        self.reference_values = nn.ModuleList(nn.Linear(width, width) for _ in range(REFERENCES))
        self.angle = nn.Linear(angles, width, bias=False)
        self.key_network = PartedNetwork(width)
        self.message_network = PartedNetwork(width)
        self.gate = Gate(width, batch_norm)
        self.out = nn.Linear(width, width)
        self.last_norm = RowNorm(width) if batch_norm else nn.Identity()

    def forward(
        self,
        edge: Float[Tensor, "bonds width"],
        reference: Float[Tensor, "owners 3 width"],
        owner: Int[Tensor, " edges"],
        angle: Float[Tensor, "edges 3 angles"],
        bond: Int[Tensor, " edges"],
    ) -> Float[Tensor, "edges width"]:
        """Update the edges; ``bond`` says which row of ``edge`` is that of each of them."""
        keys = torch.stack([f(reference[:, k]) for k, f in enumerate(self.reference_keys)], dim=1)
        values = torch.stack(
            [f(reference[:, k]) for k, f in enumerate(self.reference_values)], dim=1
        )
        key_part = chained(edge, self.key, self.key_network.part(0)).index_select(0, bond)
        value_part = chained(edge, self.value, self.message_network.part(0)).index_select(0, bond)
        key = self._answer(self.key_network, key_part, keys, owner, angle)
        message = self._answer(self.message_network, value_part, values, owner, angle)
        query = asked(self.query, edge).index_select(0, bond)
        total = (message * self.gate(query[:, None], key)).sum(1)
        total = functional.linear(total, self.out.weight, REFERENCES * self.out.bias)
        return functional.softplus(edge.index_select(0, bond) + self.last_norm(total))

    def _answer(
        self,
        network: PartedNetwork,
        own: Float[Tensor, "edges width"],
        reference: Float[Tensor, "owners 3 width"],
        owner: Int[Tensor, " edges"],
        angle: Float[Tensor, "edges 3 angles"],
    ) -> Float[Tensor, "edges 3 width"]:
        """Output of a network of edge, reference and angle."""
        other = functional.linear(reference, network.part(1), network.first.bias)
        hidden = chained(angle, self.angle, network.part(2))
        hidden += own[:, None]
        hidden += other.index_select(0, owner)
        return network(hidden)
