# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Move a network to its device, lay out its weights, and compile its trunk."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from glas_wsol.errors import ConfigError
from glas_wsol.networks.trunks import Trunk

__all__ = ["to_device"]

Network = TypeVar("Network", bound=nn.Module)


def to_device(
    network: Network, device: str | torch.device, channels_last: bool = False, compiler: str | None = None
) -> Network:
    """Make a network ready to compute, in place: the same function but for rounding, and the same names of weights.

    Args:
        network: any of :mod:`glas_wsol.networks`.
        channels_last: whether convolutions are laid out with their channels last, which tensor cores need, and CPUs
            are faster with at inference and with depthwise convolutions. Defaults to False.
        compiler: a backend of ``torch.compile`` for the trunk, which compiles when it first runs, and again for other
            sizes: ``"inductor"`` needs a C++ compiler on a CPU. None (default) for none.
    """
    layout = torch.channels_last if channels_last else torch.preserve_format
    network = network.to(device=torch.device(device), memory_format=layout)  # pyright: ignore[reportCallIssue]
    if compiler is None:
        return network
    known = torch.compiler.list_backends(exclude_tags=None)
    if compiler not in known:
        raise ConfigError(f"there is no compiler {compiler!r}", "compiler", f"choose of {', '.join(sorted(known))}")
    for module in network.modules():
        if isinstance(module, Trunk):
            module.stages.compile(backend=compiler)
    return network
