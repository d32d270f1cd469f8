"""L-BFGS for many systems at once: each remembers the curvature along its own last steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

MEMORY = 20
"""Steps that are remembered."""

SOFTNESS = 1 / 70
"""Å²/eV. Of a system that has learned nothing yet, as in ASE."""

SOFTEST = 0.1
"""Å²/eV. Of directions in which a system has not gone; less where its last step met more."""

FARTHEST = 0.2
"""Å. How far a row may go in one step."""

FLATTEST = 1e-2
"""Cosine between a step and the change of slope along it below which nothing is learned from it."""


@dataclass(eq=False, kw_only=True)
class Lbfgs:
    """What systems remember on their way downhill; a batch is the same type.

    The coordinates of a system are ``rows`` of three, all alike in stiffness. A step along which
    the energy curves down, or hardly at all, teaches nothing, so that every move goes downhill.

    Attributes:
        owner: Which system each row belongs to, ascending.
        force: At the last step.
        move: The last step.
        moves: Those before, oldest first; zero where there was none.
        slopes: How the gradient changed along them.
        weight: One over the product of both, zero where nothing was learned.
        softness: Inverse curvature along the last of them, Å²/eV.

    Source: J. Nocedal, Math. Comput. 35, 773 (1980).
    """

    owner: Int[Tensor, " rows"]
    force: Float[Tensor, "rows 3"]
    move: Float[Tensor, "rows 3"]
    moves: Float[Tensor, "memory rows 3"]
    slopes: Float[Tensor, "memory rows 3"]
    weight: Float[Tensor, "memory systems"]
    softness: Float[Tensor, " systems"]

    @classmethod
    def at_rest(cls, rows: int) -> "Lbfgs":
        """One system that has not moved yet."""
        still = torch.zeros(rows, 3, dtype=torch.float64)
        before = torch.zeros(MEMORY, rows, 3, dtype=torch.float64)
        return cls(
            owner=torch.zeros(rows, dtype=torch.int64),
            force=still,
            move=still,
            moves=before,
            slopes=before,
            weight=torch.zeros(MEMORY, 1, dtype=torch.float64),
            softness=torch.full((1,), SOFTNESS, dtype=torch.float64),
        )

    @classmethod
    def join(cls, systems: Sequence["Lbfgs"], device: torch.device) -> "Lbfgs":
        """Put systems of one each side by side."""
        owner = torch.cat([one.owner + number for number, one in enumerate(systems)])
        return cls(
            owner=owner.to(device),
            force=torch.cat([one.force for one in systems]).to(device),
            move=torch.cat([one.move for one in systems]).to(device),
            moves=torch.cat([one.moves for one in systems], dim=1).to(device),
            slopes=torch.cat([one.slopes for one in systems], dim=1).to(device),
            weight=torch.cat([one.weight for one in systems], dim=1).to(device),
            softness=torch.cat([one.softness for one in systems]).to(device),
        )

    def split(self) -> list["Lbfgs"]:
        """Take systems apart, onto the CPU."""
        rows = self.owner.bincount(minlength=self.weight.shape[1]).tolist()
        parts = zip(
            self.force.cpu().split(rows),
            self.move.cpu().split(rows),
            self.moves.cpu().split(rows, dim=1),
            self.slopes.cpu().split(rows, dim=1),
            self.weight.cpu().split(1, dim=1),
            self.softness.cpu().split(1),
            strict=True,
        )
        return [
            Lbfgs(
                owner=torch.zeros(force.shape[0], dtype=torch.int64),
                force=force,
                move=move,
                moves=moves,
                slopes=slopes,
                weight=weight,
                softness=softness,
            )
            for force, move, moves, slopes, weight, softness in parts
        ]

    def step(self, force: Float[Tensor, "rows 3"]) -> Float[Tensor, "rows 3"]:
        """Answer forces with a displacement of every row."""
        self._learn(force)
        move = self._newton(force)
        longest = move.new_zeros(self.weight.shape[1])
        longest = longest.scatter_reduce(0, self.owner, move.norm(dim=-1), "amax")
        self.move = move * (FARTHEST / longest.clamp(min=FARTHEST))[self.owner, None]
        self.force = force
        return self.move

    def _learn(self, force: Float[Tensor, "rows 3"]) -> None:
        """Remember the last step and what it did to the force."""
        slope = self.force - force
        product, steepness = self._sum(self.move * slope), self._sum(slope**2)
        learned = product > FLATTEST * (self._sum(self.move**2) * steepness).sqrt()
        weight = torch.where(learned, 1 / product, 0.0)
        self.moves = torch.cat([self.moves[1:], self.move[None]])
        self.slopes = torch.cat([self.slopes[1:], slope[None]])
        self.weight = torch.cat([self.weight[1:], weight[None]])
        met = (product / steepness).clamp(max=SOFTEST)
        self.softness = torch.where(learned, met, self.softness)

    def _newton(self, force: Float[Tensor, "rows 3"]) -> Float[Tensor, "rows 3"]:
        """Multiply forces by the inverse Hessian that is remembered."""
        shares: list[Tensor] = []
        memory = [entry for entry in range(MEMORY) if bool(self.weight[entry].any())]
        for entry in reversed(memory):
            share = self.weight[entry] * self._sum(self.moves[entry] * force)
            force = force - share[self.owner, None] * self.slopes[entry]
            shares.append(share)
        move = self.softness[self.owner, None] * force
        for entry in memory:
            share = shares.pop() - self.weight[entry] * self._sum(self.slopes[entry] * move)
            move = move + share[self.owner, None] * self.moves[entry]
        return move

    def _sum(self, values: Float[Tensor, "rows 3"]) -> Float[Tensor, " systems"]:
        total = values.new_zeros(self.weight.shape[1])
        return total.index_add(0, self.owner, values.sum(-1))
