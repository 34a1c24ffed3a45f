# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Map features to class maps and class scores: the head of every network trained from image labels by class maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glas_wsol.errors import ConfigError
from glas_wsol.networks.hypercolumn import project, widen
from glas_wsol.networks.maps import at_least_float32
from glas_wsol.networks.pooling import build_pooling

__all__ = ["Head"]


class Head(nn.Module):
    """Features to class maps (1x1 convolution to several maps per class, averaged) and to class scores (pooling).

    Args:
        channels: feature channels: of the trunk's last stage, then of finer ones that are read too.
        modalities: maps per class, ``m``. Defaults to 5.
        pooling: name of the pooling, see :func:`~glas_wsol.networks.pooling.build_pooling`. Defaults to ``wildcat``.
    """

    def __init__(
        self,
        channels: int | Sequence[int],
        num_classes: int,
        modalities: int = 5,
        pooling: str = "wildcat",
        pooling_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if modalities < 1:
            raise ConfigError(f"modalities={modalities}", "network", "give at least one map per class")
        self.num_classes = num_classes
        self.modalities = modalities
        channels = [channels] if isinstance(channels, int) else list(channels)
        self.to_maps = nn.Conv2d(channels[0], num_classes * modalities, kernel_size=1)
        widen(self.to_maps, channels)
        self.pooling_name = pooling
        self.pooling = build_pooling(pooling, **(pooling_options or {}))

    def class_maps(self, features: list[Tensor]) -> Tensor:
        """Maps ``A``, ``[B, c, h, w]`` float32, of the stages' features, the finest last, or of one hypercolumn."""
        maps = at_least_float32(project(features, self.to_maps.weight, self.to_maps.bias))
        return maps.unflatten(1, (self.num_classes, self.modalities)).mean(dim=2)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Class scores ``[B, c]`` of the features of :meth:`class_maps`, with a fresh dropout pattern in training."""
        maps = self.class_maps(features)
        return self.pooling(maps, self.pooling.draw_dropout(maps))

    @torch.jit.unused
    def settings(self) -> dict[str, Any]:
        """What must be the same for weights to mean the same; the pooling's dropout, for training only, is left out."""
        return {
            "modalities": self.modalities,
            "pooling": self.pooling_name,
            "pooling_options": {k: getattr(self.pooling, k) for k in self.pooling.options},
        }
