"""FIRE for many systems at once: each moves, slows down and speeds up on its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

FIRST_STEP = 0.1
LONGEST_STEP = 1.0
FARTHEST = 0.2
"""Å. How far, over all of its coordinates, a system may go in one step."""
PATIENCE = 5
FIRST_MIXING = 0.1


@dataclass(eq=False, kw_only=True)
class Fire:
    """The inertia of systems on their way downhill; a batch is the same type.

    The coordinates of a system are ``rows`` of three, all alike in stiffness.

    Attributes:
        owner: Which system each row belongs to, ascending.
        velocity: Of every row.
        time_step: Of every system.
        mixing: How far the velocity is turned into the direction of the force.
        downhill: Steps since the system last went uphill.

    Source: Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), with the settings of ASE.
    """

    owner: Int[Tensor, " rows"]
    velocity: Float[Tensor, "rows 3"]
    time_step: Float[Tensor, " systems"]
    mixing: Float[Tensor, " systems"]
    downhill: Int[Tensor, " systems"]

    @classmethod
    def at_rest(cls, rows: int) -> "Fire":
        """One system that has not moved yet."""
        return cls(
            owner=torch.zeros(rows, dtype=torch.int64),
            velocity=torch.zeros(rows, 3, dtype=torch.float64),
            time_step=torch.full((1,), FIRST_STEP, dtype=torch.float64),
            mixing=torch.full((1,), FIRST_MIXING, dtype=torch.float64),
            downhill=torch.zeros(1, dtype=torch.int64),
        )

    @classmethod
    def join(cls, systems: Sequence["Fire"], device: torch.device) -> "Fire":
        """Put systems of one each side by side."""
        owner = torch.cat([one.owner + number for number, one in enumerate(systems)])
        return cls(
            owner=owner.to(device),
            velocity=torch.cat([one.velocity for one in systems]).to(device),
            time_step=torch.cat([one.time_step for one in systems]).to(device),
            mixing=torch.cat([one.mixing for one in systems]).to(device),
            downhill=torch.cat([one.downhill for one in systems]).to(device),
        )

    def split(self) -> list["Fire"]:
        """Take systems apart, onto the CPU."""
        rows = self.owner.bincount(minlength=self.time_step.shape[0]).tolist()
        parts = zip(
            self.velocity.cpu().split(rows),
            self.time_step.cpu().split(1),
            self.mixing.cpu().split(1),
            self.downhill.cpu().split(1),
            strict=True,
        )
        return [
            Fire(
                owner=torch.zeros(velocity.shape[0], dtype=torch.int64),
                velocity=velocity,
                time_step=time_step,
                mixing=mixing,
                downhill=downhill,
            )
            for velocity, time_step, mixing, downhill in parts
        ]

    def step(self, force: Float[Tensor, "rows 3"]) -> Float[Tensor, "rows 3"]:
        """Answer forces with a displacement of every row."""
        power, speed, strength = (
            self._sum(product)
            for product in (force * self.velocity, self.velocity**2, force * force)
        )
        onward = power > 0
        turn = self.mixing * (speed / strength.clamp(min=1e-300)).sqrt()
        turned = (1 - self.mixing)[self.owner, None] * self.velocity
        turned = turned + turn[self.owner, None] * force
        self.velocity = torch.where(onward[self.owner, None], turned, 0.0)
        self._adapt(onward, started=speed > 0)
        self.velocity = self.velocity + self.time_step[self.owner, None] * force
        move = self.time_step[self.owner, None] * self.velocity
        length = self._sum(move * move).sqrt()
        return move * (FARTHEST / length.clamp(min=FARTHEST))[self.owner, None]

    def _adapt(self, onward: Tensor, started: Tensor) -> None:
        """Lengthen the step of systems that have gone downhill for long, shorten the others'."""
        patient = onward & (self.downhill > PATIENCE)
        longer = (self.time_step * 1.1).clamp(max=LONGEST_STEP)
        shorter = torch.where(started, self.time_step * 0.5, self.time_step)
        kept = torch.where(patient, longer, self.time_step)
        self.time_step = torch.where(onward, kept, shorter)
        self.mixing = torch.where(patient, self.mixing * 0.99, self.mixing)
        self.mixing = torch.where(onward, self.mixing, torch.full_like(self.mixing, FIRST_MIXING))
        self.downhill = torch.where(onward, self.downhill + 1, 0)

    def _sum(self, values: Float[Tensor, "rows 3"]) -> Float[Tensor, " systems"]:
        total = values.new_zeros(self.time_step.shape[0])
        return total.index_add(0, self.owner, values.sum(-1))
