# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Group normalisation whose statistics can be frozen, so that a pixel's score does not depend on the whole tile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.networks.base import undecidable_part

__all__ = ["FrozenGroupNorm", "freeze", "frozen_norms", "measure_statistics"]


class FrozenGroupNorm(nn.GroupNorm):
    """Group normalisation by the statistics of each tile, until :meth:`freeze` gives it constants.

    From then on it normalises by the constants, in training too: the layer is then local and costs less.

    Attributes:
        group_statistics: ``[2, groups]``, mean and mean square of each group; 0 as long as nothing was measured.
        frozen: whether something was.
    """

    if TYPE_CHECKING:  # a buffer; not for TorchScript
        group_statistics: Tensor

    def __init__(self, num_groups: int, num_channels: int) -> None:
        super().__init__(num_groups, num_channels)
        self.register_buffer("group_statistics", torch.zeros(2, num_groups))
        self.frozen = False

    def forward(self, input: Tensor) -> Tensor:
        """Normalise.

        Args:
            input: ``[B, n, h, w]``.

        Returns:
            Of the same shape.
        """
        if not self.frozen:
            return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        statistics = self.group_statistics.repeat_interleave(self.num_channels // self.num_groups, dim=1)
        variance = (statistics[1] - statistics[0].square()).clamp(min=0.0)  # below 0 by rounding
        return F.batch_norm(input, statistics[0], variance, self.weight, self.bias, False, 0.0, self.eps)

    @torch.jit.unused
    def freeze(self, statistics: Tensor) -> None:
        """Normalise by constants from now on.

        Args:
            statistics: ``[2, groups]``, mean and mean square; all 0 for the statistics of each tile.
        """
        self.group_statistics.copy_(statistics)
        self.frozen = bool(self.group_statistics[1].any())

    @torch.jit.unused
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Models from before statistics were frozen have none: theirs are those of the tile."""
        state_dict.setdefault(f"{prefix}group_statistics", torch.zeros_like(self.group_statistics))
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.frozen = bool(self.group_statistics[1].any())


def frozen_norms(network: nn.Module) -> dict[str, FrozenGroupNorm]:
    """The layers of a network whose statistics can be frozen, by their names.

    Args:
        network: any.
    """
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, FrozenGroupNorm)}


def measure_statistics(
    network: nn.Module, images: Iterable[Any], run: Callable[[Any], Any] | None = None
) -> dict[str, Tensor]:
    """Mean and mean square of each group over images, each image normalised by its own; nothing is frozen by it.

    Args:
        network: a :class:`~glas_wsol.networks.base.TileNetwork`.
        images: each counts the same, whatever its size.
        run: gives the network one of them. Defaults to the network's own mask of ``[1, 3, H, W]`` in [0, 1].

    Returns:
        ``[2, groups]`` for each of :func:`frozen_norms`, float64, on the CPU.

    Raises:
        ConfigError: if there is no image.
    """
    layers = frozen_norms(network)
    before = {name: layer.frozen for name, layer in layers.items()}
    sums = {name: torch.zeros(2, layer.num_groups, dtype=torch.float64) for name, layer in layers.items()}
    count, run = 0, run or undecidable_part(network)

    def measure(name: str, layer: FrozenGroupNorm, inputs: tuple[Tensor]) -> None:
        groups = inputs[0].double().reshape(layer.num_groups, -1)
        sums[name] += torch.stack([groups.mean(dim=1), groups.square().mean(dim=1)]).cpu()

    with ExitStack() as stack, eval_mode(network):
        for name, layer in layers.items():
            layer.frozen = False
            stack.callback(setattr, layer, "frozen", before[name])
            stack.callback(layer.register_forward_pre_hook(partial(measure, name)).remove)
        for image in images:
            run(image)
            count += 1
    if not count:
        raise ConfigError("no image to measure statistics of", "decoder_norm=frozen", "give the training images")
    return {name: total / count for name, total in sums.items()}


def freeze(network: nn.Module, statistics: Mapping[str, Tensor]) -> None:
    """Freeze the statistics of group normalisations.

    Args:
        network: of which :func:`measure_statistics` measured them.
        statistics: what it returned.
    """
    for name, layer in frozen_norms(network).items():
        layer.freeze(statistics[name])
