"""How weights move, what errors cost, where a run is computed: tables of a recipe."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from ase_crystalformer.errors import unknown_name
from ase_crystalformer.training.schedules import SCHEDULES

STRICT = ConfigDict(extra="forbid")
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
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
class EnergyLoss:
    r"""Weights of the errors of a potential.

    Each term is a mean absolute error: energy in eV/atom, force as the length of the error vector
    in eV/Å, stress in eV/Å³. Where energies have no weight, the energy of each element is fitted
    afterwards, by least squares on the training energies.

    Errors of large labels count less: a force error is divided by 1 + \|F\| / ``force_knee``, a
    stress error likewise. Else a few violent frames drown the many near equilibrium.

    Attributes:
        preset: ``forces-only`` is the objective of PolyGET (R. Feng et al., arXiv:2309.00585):
            energy and stress have no weight.
        energy: Weight of the energy.
        force: Weight of the forces.
        stress: Weight of the stress.
        force_knee: From about which force on, eV/Å, errors count in proportion to it.
        stress_knee: The same of the stress, eV/Å³.
        scale: The group of data on whose energy scale the model shall stand. ``None`` is that of
            Materials Project (``mp``) where the data hold it, else the only one there is.
    """

    preset: Literal["forces-only"] | None = None
    energy: Annotated[float, Field(ge=0)] = 1.0
    force: Annotated[float, Field(ge=0)] = 1.0
    stress: Annotated[float, Field(ge=0)] = 10.0
    force_knee: Positive = 1.0
    stress_knee: Positive = 0.05
    scale: str | None = None

    @model_validator(mode="after")
    def _something(self) -> "EnergyLoss":
        """One of the errors counts."""
        if not (self.energy or self.force or self.stress):
            raise ValueError("energy, force and stress are all 0: nothing would be learned")
        return self

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, told: Any) -> Any:
        """Set what the preset decides, and refuse what contradicts it."""
        told = told.kwargs or {} if isinstance(told, ArgsKwargs) else told
        if not isinstance(told, dict) or told.get("preset") != "forces-only":
            return told
        unused = {"energy": 0.0, "stress": 0.0}
        for name in unused:
            if told.get(name):
                raise ValueError(
                    f"{name} = {told[name]} contradicts preset = 'forces-only'; drop one of them"
                )
        return told | unused


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
        accelerator: Lightning's name: ``cpu``, ``gpu``; ``auto`` is ``gpu`` where CUDA is. Apple's
            (``mps``) lacks double precision, in which energies are kept.
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

    @model_validator(mode="after")
    def _double(self) -> "Machine":
        """The accelerator computes in double precision."""
        if self.accelerator == "mps":
            raise ValueError("accelerator 'mps' has no double precision; use cpu, gpu or auto")
        return self
