# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Fold batch normalisation into the convolutions before it: the same function with less work, for inference only."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from glas_wsol.networks.trunks import Stages, Trunk

__all__ = ["fold_batch_norm"]

Network = TypeVar("Network", bound=nn.Module)


class _ChannelsLast(nn.Module):
    """Converts an image to the memory layout of the convolutions: the first one is much slower at doing so itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)


def fold_batch_norm(network: Network) -> Network:
    """Make a trained network faster at inference, in place.

    Running statistics are constants, so that a convolution and the batch normalisation after it are one convolution
    with other weights: exact but for the order in which numbers are rounded. Convolutions are laid out channels last,
    in which CPUs do them faster. The network can no longer be trained, and its weights' names are
    different: load weights first.

    Args:
        network: any of :mod:`glas_wsol.networks`, its weights loaded; one without a trunk stays as it is.

    Returns:
        The same object, in evaluation mode.
    """
    network.eval()
    for module in list(network.modules()):
        if isinstance(module, Trunk) and isinstance(module.stages, Stages):  # a transformer has nothing to fold
            first, *others = (fuse(stage) for stage in module.stages)
            module.stages = Stages(nn.Sequential(_ChannelsLast(), first), *others)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stub lacks it
