"""Where the errors of a run are written."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from ase_crystalformer.errors import MissingExtra

#: What each needs, and the extra that installs it.
NEEDED = {"tensorboard": "train", "wandb": "wandb"}

#: What runs are called together at Weights & Biases.
PROJECT = "crystalformer"


def loggers_of(names: Sequence[str] | None, folder: Path, run: str) -> list[Logger]:
    """Make the loggers of a run.

    Weights & Biases follows its own settings: ``WANDB_MODE=offline`` keeps what it writes here, to
    be sent by ``wandb sync``.

    Args:
        names: ``csv``, ``tensorboard``, ``wandb``; None is the first, and the second where it is
            installed.
        folder: Of the run.
        run: Its name.

    Raises:
        MissingExtra: One of them is not installed.
    """
    if names is None:
        names = ["csv", *(["tensorboard"] if find_spec("tensorboard") else [])]
    for name in names:
        if name in NEEDED and find_spec(name) is None:
            raise MissingExtra(
                f"machine.loggers asks for {name}, which is not installed: "
                f"pip install 'ase-crystalformer[{NEEDED[name]}]'."
            )
    return [_logger(name, folder, run) for name in names]


def _logger(name: str, folder: Path, run: str) -> Logger:
    if name == "csv":
        return CSVLogger(folder, name="", version="")
    if name == "tensorboard":
        return TensorBoardLogger(folder, name="logs", version="")
    return WandbLogger(name=run, project=PROJECT, save_dir=folder)
