"""The optimisers a recipe may name: AdamW, or Muon for the matrices and AdamW for the rest."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from ase_crystalformer.errors import BadRecipe
from ase_crystalformer.training.settings import Optim

#: References of foreign energy scales move this much faster than weights: they are of order eV.
SHIFT_RATE = 10.0

#: Share of the weights below which it is told how few Muon moves.
LEAST = 0.5

LOGGER = logging.getLogger(__name__)

#: Decay of the running means of AdamW.
BETAS = (0.9, 0.98)


def make_optimizer(module: nn.Module, optim: Optim) -> Optimizer:
    """Make the optimiser of everything ``module`` learns.

    Biases and norms are not decayed. Muon (K. Jordan et al., 2024) makes all singular values of the
    step of a matrix about equal, and scales it to be as large as a step of AdamW (J. Liu et al.,
    arXiv:2502.16982), so that rate and decay mean the same for both.

    Args:
        module: Weights ``*.shift`` of an ``objective`` are energy references.
        optim: What the recipe asks for.

    Raises:
        BadRecipe: It asks for Muon, which this torch does not have.
    """
    hidden = _for_muon(module) if optim.optimizer == "muon" else {}
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    shifts: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if name.startswith("objective.") and name.endswith("shift"):
            shifts.append(parameter)
        elif id(parameter) not in hidden:
            (matrices if parameter.dim() > 1 else rest).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": optim.weight_decay},
        {"params": rest, "weight_decay": 0.0},
        {"params": shifts, "weight_decay": 0.0, "lr": SHIFT_RATE * optim.peak_lr},
    ]
    groups = [group for group in groups if group["params"]]
    adamw = AdamW(groups, lr=optim.peak_lr, betas=BETAS)
    return Joined(_muon(hidden.values(), optim), adamw) if hidden else adamw


def _for_muon(module: nn.Module) -> dict[int, Tensor]:
    """Find what Muon moves, and tell where that is little."""
    hidden = _hidden_matrices(module)
    share = sum(one.numel() for one in hidden.values()) / sum(
        one.numel() for one in module.parameters()
    )
    if share < LEAST:
        LOGGER.warning(
            "Muon moves %.0f %% of these weights: the others are no matrices of plain layers, and "
            "are left to AdamW.",
            100 * share,
        )
    return hidden


def _hidden_matrices(module: nn.Module) -> dict[int, Tensor]:
    """Weights that turn channels into channels; neither tables nor what ends in single numbers."""
    layers = (part for part in module.modules() if isinstance(part, nn.Linear))
    return {id(one.weight): one.weight for one in layers if min(one.weight.shape) > 2}


def _muon(matrices: Iterable[Tensor], optim: Optim) -> Optimizer:
    if not hasattr(torch.optim, "Muon"):
        raise BadRecipe(
            f"optim.optimizer = 'muon' needs torch 2.9 or newer; here is {torch.__version__}. "
            "Leave it out for AdamW."
        )
    return torch.optim.Muon(
        matrices,
        lr=optim.peak_lr,
        weight_decay=optim.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )


class Joined(Optimizer):
    """Several optimisers of different weights, as one: one state, one schedule.

    Args:
        parts: The optimisers; their groups and states are shared from now on.
    """

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Let each part step once, after one evaluation of the closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        """Copy the parts along."""
        return {**super().__getstate__(), "parts": self.parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Hand what was loaded on to the parts."""
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        begin = 0
        for part in self.parts:
            end = begin + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[begin:end], self.state
            begin = end
