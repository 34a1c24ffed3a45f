# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Decode features of several strides to one score per pixel of the finest, with few weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from glas_wsol.errors import ConfigError
from glas_wsol.networks.frozen_norm import FrozenGroupNorm
from glas_wsol.networks.maps import bilinear

__all__ = ["PyramidDecoder"]


class PyramidDecoder(nn.Module):
    """Features of strides 32, 16, 8 and 4, summed from coarse to fine (Lin et al., CVPR 2017), to one mask score.

    Args:
        channels: of the trunk's stages at strides 4, 8, 16 and 32.
        width: feature channels throughout, a multiple of 8. Defaults to 64.
        stem: whether what is given at stride 4 are pixels and no features: two convolutions then make features of
            them. Defaults to False.
    """

    def __init__(self, channels: Sequence[int], width: int = 64, stem: bool = False) -> None:
        super().__init__()
        if width < 8 or width % 8:
            raise ConfigError(f"decoder_width={width}", "network", "give a positive multiple of 8")
        self.lateral = nn.ModuleList([nn.Conv2d(n, width, kernel_size=1) for n in channels])
        if stem:
            first = nn.Conv2d(channels[0], width, kernel_size=3, padding=1, bias=False)
            self.lateral[0] = nn.Sequential(first, FrozenGroupNorm(8, width), nn.ReLU(), nn.Conv2d(width, width, 1))
        # Group normalisation: the score of a pixel does not depend on other images of the mini-batch.
        self.fuse = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), FrozenGroupNorm(8, width), nn.ReLU())
                for _ in channels[1:]
            ]
        )
        self.score = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Mask scores ``[B, 1, h, w]`` at stride 4, above 0 foreground, of features at strides 4, 8, 16 and 32."""
        laterals: list[Tensor] = []
        for index, lateral in enumerate(self.lateral):
            laterals.append(lateral(features[index]))
        y = laterals[-1]
        step = len(laterals) - 2
        for fuse in self.fuse:
            finer = laterals[step]
            y = fuse(finer + bilinear(y, finer.shape[2], finer.shape[3]))
            step -= 1
        return self.score(y)
