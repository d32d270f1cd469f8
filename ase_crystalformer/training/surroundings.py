"""What a run changes in its process, and gives back: threads, precision, chatter."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.training.settings import Machine

#: Loggers of Lightning that advertise, and repeat what the recipe says.
CHATTER = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")

#: Warnings that do not apply: what they warn of is wanted, or taken care of here.
NEEDLESS = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*resuming from a checkpoint that ended before the epoch ended.*",
    ".*callbacks used to create the checkpoint.*",
    ".*exists and is not empty.*",
    ".*Total length of `.*` across ranks is zero.*",
    ".*Grad strides do not match bucket view strides.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
)


def accelerator_of(machine: Machine) -> str:
    """Lightning's name of what computes; ``auto`` is CUDA where it is, else the CPU."""
    if machine.accelerator != "auto":
        return machine.accelerator
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_machine(machine: Machine) -> None:
    """Refuse what Lightning cannot compute with, before anything is read.

    Raises:
        BadRecipe: saying which entry.
    """
    try:
        Trainer(
            accelerator=accelerator_of(machine),
            devices=machine.devices,
            num_nodes=machine.nodes,
            strategy=machine.strategy,
            precision=machine.precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        raise BadRecipe(
            f"machine: accelerator = {machine.accelerator!r}, devices = {machine.devices!r}, "
            f"strategy = {machine.strategy!r}, precision = {machine.precision!r} do not go "
            f"together here: {error}"
        ) from error


@contextmanager
def surroundings(machine: Machine) -> Iterator[None]:
    """Let a run have its threads and precision, quietly; all is as before afterwards."""
    with ExitStack() as stack:
        stack.enter_context(_threads(machine.threads))
        stack.enter_context(_matmul(machine.matmul))
        stack.enter_context(_quiet())
        yield


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Let torch use so many threads."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _matmul(precision: str) -> Iterator[None]:
    """Multiply float32 matrices in this precision."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's tips, and warnings of what is taken care of."""
    loggers = [logging.getLogger(name) for name in CHATTER]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in NEEDLESS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
