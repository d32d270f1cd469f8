"""Weights that hide nothing."""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def randomised(network: Network, seed: int = 0) -> Network:
    """Copy a network and make what usually starts at zero or one random: biases, affine weights.

    A bias of zero hides a missing envelope, a gain of one hides which axis is normalised, and fresh
    running statistics do nothing. A trained network needs no such help.
    """
    network = deepcopy(network)
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() < 2:
                weight.add_(0.3 * noise(weight))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                mean, variance = module.running_mean, module.running_var
                assert mean is not None
                assert variance is not None
                mean.add_(0.3 * noise(mean))
                variance.mul_(torch.exp(0.3 * noise(variance)))
    return network
