"""Weights to start training from where no batch norm sets the scale."""

from torch import nn


def keep_scale(network: nn.Module) -> None:
    """Draw every linear map so that it keeps the scale of what goes in (Glorot), without shift."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
