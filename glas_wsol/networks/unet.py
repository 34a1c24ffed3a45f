# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Segment with full supervision, as an upper bound: a U-Net trained on true masks, on the same trunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets.flexible_unet import SegmentationHead, UNetDecoder
from torch import Tensor
from torch.nn import functional as F

from glas_wsol.errors import ConfigError
from glas_wsol.networks.base import TileNetwork, seeded
from glas_wsol.networks.maps import at_least_float32, distribution
from glas_wsol.networks.trunks import Trunk

__all__ = ["SegmentationNetwork"]


class SegmentationNetwork(TileNetwork):
    """MONAI's U-Net decoder (Ronneberger et al., MICCAI 2015) on the five stages of a trunk, trained from masks.

    Trained by :meth:`mask_logits`. It predicts which pixels are foreground and names no class: ``p`` is 1 / c.

    All other arguments are those of :class:`~glas_wsol.networks.base.TileNetwork`.

    Args:
        num_classes: ``c``, at least 2, for the shape of the output only.
        decoder_channels: feature channels at strides 16, 8, 4, 2 and 1. Defaults to MONAI's 256, 128, 64, 32, 16.
        batch_norm: of the trunk, see :class:`~glas_wsol.networks.base.TileNetwork`; the decoder's, which starts from
            nothing, always uses batch statistics in training. Defaults to ``"batch"``.
        seed: seed of the initial weights, so that they do not depend on what was drawn before; None draws on.
    """

    supervision = "pixel labels"
    names_class = False
    local = True

    def __init__(
        self,
        trunk: str | Trunk = "resnet18",
        num_classes: int = 2,
        weights: str = "auto",
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        batch_norm: str = "batch",
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        seed: int | None = None,
    ) -> None:
        if len(decoder_channels) != 5 or min(decoder_channels) < 1:
            raise ConfigError(f"decoder_channels={list(decoder_channels)}", "network", "give five positive numbers")
        with seeded(seed):
            super().__init__(trunk, num_classes, weights, batch_norm, pixel_mean, pixel_std)
            self.decoder = UNetDecoder(
                spatial_dims=2,
                encoder_channels=[3, *self.trunk.stage_channels()],
                decoder_channels=list(decoder_channels),
                act=("relu", {"inplace": True}),
                norm=("batch", {"eps": 1e-3, "momentum": 0.1}),
                dropout=0.0,
                bias=False,
                upsample="nontrainable",
                pre_conv="default",
                interp_mode="nearest",
                align_corners=None,
                is_pad=False,
            )
            self.segmentation_head = SegmentationHead(2, decoder_channels[-1], 1)
        self.decoder_channels = list(decoder_channels)
        self.local = self.trunk.local

    def mask_logits(self, x: Tensor) -> Tensor:
        """Foreground scores of every pixel.

        Args:
            x: ``[B, 3, H, W]``, normalised; sides not divisible by 32 are padded with their last pixels, and the
                scores cropped back.

        Returns:
            ``[B, 1, H, W]``, at least float32; above 0 is foreground.
        """
        height, width = x.shape[2], x.shape[3]
        stride = self.smallest_side
        below, right = -height % stride, -width % stride
        if below > 0 or right > 0:
            x = F.pad(x, [0, right, 0, below], mode="replicate")
        logits = self.segmentation_head(self.decoder(self.trunk.stages_of(x)))
        return at_least_float32(logits[:, :, :height, :width])

    def forward(self, image: Tensor) -> Tensor:
        """Which pixels are foreground, see :class:`~glas_wsol.networks.base.TileNetwork`; no class is named."""
        mask = torch.sigmoid(self.mask_logits(self.normalise(image)))
        uniform = torch.full((mask.shape[0], self.num_classes), 1.0 / self.num_classes, device=mask.device)
        return distribution(mask, uniform.to(mask.dtype))

    @torch.jit.unused
    def settings(self) -> dict[str, Any]:
        """What must be the same for weights to mean the same."""
        return {**super().settings(), "decoder_channels": self.decoder_channels}
