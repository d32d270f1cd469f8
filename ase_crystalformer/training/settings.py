"""How weights move, where a run is computed, what is denoised: tables of a recipe."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from ase_crystalformer.errors import unknown_name
from ase_crystalformer.training.schedules import SCHEDULES

STRICT = ConfigDict(extra="forbid")
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Optim:
    """How weights move.

    Attributes:
        optimizer: ``adamw``, or ``muon``: Muon for the matrices of layers, AdamW for the rest
            (``training.optimizers``; torch 2.9 or newer).
        peak_lr: Largest learning rate.
        schedule: How the rate goes on after its rise, a name in ``schedules.SCHEDULES``:
            ``cosine``, ``onecycle``, ``inverse-sqrt``, ``constant``.
        epochs: Passes over the training crystals.
        budget: Work in one batch: edges + 20 atoms.
        accumulate: Batches per step of the optimiser and process; the step is that of one batch of
            all their crystals.
        warmup: Share of the run in which the rate rises.
        weight_decay: Of matrices; biases and norms are not decayed.
        clip: Largest norm of the gradient.
        ema: Decay of the running average of the weights, which is what is saved, less at
            first; 0 for none.
        swa_last: Share of the run, at its end, over which the weights saved are a plain mean.
        swa_frozen: The rate stays what it is when that share begins, as Crystalformer has it.
    """

    optimizer: Literal["adamw", "muon"] = "adamw"
    peak_lr: Positive = 1e-3
    schedule: str = "cosine"
    epochs: Count = 10
    budget: Count = 40_000
    accumulate: Count = 1
    warmup: Fraction = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    clip: Positive = 1.0
    ema: Fraction | None = 0.999
    swa_last: Fraction = 0.0
    swa_frozen: bool = False

    @model_validator(mode="after")
    def _possible(self) -> "Optim":
        """The schedule is one there is, and a rate is frozen only where weights are averaged."""
        if self.schedule not in SCHEDULES:
            raise ValueError(str(unknown_name("schedule", self.schedule, SCHEDULES)))
        if self.swa_frozen and not self.swa_last:
            raise ValueError("swa_frozen needs swa_last, the share in which the rate stays")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Denoise:
    """Telling by how much atoms of crystals at rest were moved (``training.denoising``).

    Attributes:
        noise: Spread of the displacements along each direction, Å.
        weight: Of their error, squared and in units of the spread, beside what else is learned.
        rest: Largest force of a crystal at rest, eV/Å.
    """

    noise: Positive = 0.1
    weight: Positive = 1.0
    rest: Positive = 0.05


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Machine:
    """Where and how the run is computed.

    What is learned depends on ``devices``, ``nodes`` and ``strategy``, since the batches of all
    processes make up one step, and on ``precision`` and ``matmul``; on nothing else here.

    Attributes:
        accelerator: Lightning's name: ``auto``, ``cpu``, ``gpu``.
        devices: How many per node, or ``auto``.
        nodes: How many machines; torchrun or SLURM starts the processes on each.
        strategy: Lightning's name of how devices share the work: ``auto``, ``ddp``.
        precision: Lightning's name; mixed precision helps on GPUs that have units for it.
        matmul: Precision of products of float32 matrices, torch's name: ``high`` lets GPUs use
            TF32. Only while the run lasts.
        threads: CPU threads of torch; None leaves it alone.
        workers: Processes that load data, and pack it before; 0 for none but the run itself.
        loggers: Where errors are written: ``csv``, ``tensorboard``, ``wandb``. None is ``csv``, and
            ``tensorboard`` where it is installed.
        checkpoint_minutes: How often the state is written.
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    nodes: Count = 1
    strategy: str = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    matmul: Literal["highest", "high", "medium"] = "highest"
    threads: Count | None = None
    workers: Annotated[int, Field(ge=0)] = 0
    loggers: tuple[Literal["csv", "tensorboard", "wandb"], ...] | None = None
    checkpoint_minutes: Positive = 5.0
