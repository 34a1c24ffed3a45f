# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A trained network and what whole-tile inference does around it as one module, to be exported to other programs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glas_wsol.utils.sizes import fraction_of, larger, opaque, smaller

__all__ = ["MaskAndClassNetwork", "WholeTileNetwork"]


class WholeTileNetwork(nn.Module):
    """:class:`~glas_wsol.inferers.WholeTileInferer` with a network, for images of any size; one view, no options.

    It compiles to TorchScript, and in ``torch.export`` and ONNX every size stays a function of the image's. Shrinking
    is by matrix products, which every format has; they give what antialiased interpolation gives but for rounding.

    Args:
        network: any of :mod:`glas_wsol.networks` whose ``forward`` compiles.
        factor: training resolution as a factor of the input's. Defaults to 1.
        short_side: training resolution as the length of the shorter side in px, instead of ``factor``.
        divisor: of both padded sides. Defaults to 32, the trunks' stride.
        white: value of full intensity: 1 (default), or 255 for images of bytes.
    """

    __constants__ = ("rescales",)  # TorchScript compiles only the branch that is taken

    def __init__(
        self, network: Any, factor: float = 1.0, short_side: int | None = None, divisor: int = 32, white: float = 1.0
    ) -> None:
        super().__init__()
        self.network = network
        self.fraction, self.short_side, self.divisor = fraction_of(factor), short_side or 0, divisor
        self.white = float(white)
        self.rescales = factor != 1.0 or short_side is not None

    def forward(self, image: Tensor) -> Tensor:
        """Which pixels decided, and for which class.

        Args:
            image: ``[B, 3, H, W]``, of floats or bytes, from 0 to ``white``.

        Returns:
            ``[B, 1 + c, H, W]``: channel 0 is ``R-``, channel k is ``R+ p(class k)``; the channels sum to 1.
        """
        height, width = self._size(image.shape[2], image.shape[3])
        padded = self.prepare(image)
        top, left = (padded.shape[2] - height) // 2, (padded.shape[3] - width) // 2
        # not as a slice: its size would be unknown to ONNX
        prediction = self.network(padded).index_select(2, torch.arange(height, device=image.device) + top)
        prediction = prediction.index_select(3, torch.arange(width, device=image.device) + left)
        if self.rescales:
            size = [image.shape[2], image.shape[3]]
            prediction = F.interpolate(prediction, size=size, mode="bilinear", align_corners=False)
        return prediction

    def prepare(self, image: Tensor) -> Tensor:
        """What the network is given: the image at the training resolution, padded.

        Args:
            image: ``[B, 3, H, W]``, of floats or bytes, from 0 to ``white``.

        Returns:
            ``[B, 3, H', W']``, both sides multiples of the divisor.
        """
        height, width = self._size(image.shape[2], image.shape[3])
        image = image.to(torch.float32) / self.white
        if self.rescales:
            rows = _antialiased(image.shape[2], height, image)
            columns = _antialiased(image.shape[3], width, image)
            image = rows @ image @ columns.transpose(0, 1)
        return self._pad(self._pad(image, 2, height), 3, width)

    def _pad(self, image: Tensor, dim: int, length: int) -> Tensor:
        total = opaque((length + self.divisor - 1) // self.divisor) * self.divisor
        return image.index_select(dim, _reflected(length, (total - length) // 2, total, image))

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """At the training resolution: rounded (half up), at least 1, as by :class:`~glas_wsol.transforms.Rescale`."""
        numerator, denominator = self.fraction
        if self.short_side > 0:
            numerator, denominator = self.short_side, smaller(height, width)
        rows = (2 * height * numerator + denominator) // (2 * denominator)
        return larger(rows, 1), larger((2 * width * numerator + denominator) // (2 * denominator), 1)


class MaskAndClassNetwork(nn.Module):
    """A :class:`WholeTileNetwork` that gives what a result holds: the soft mask, and how probable each class is.

    Args:
        tiles: predicts whole tiles.
    """

    __constants__ = ("multi_label",)

    def __init__(self, tiles: WholeTileNetwork) -> None:
        super().__init__()
        self.tiles = tiles
        self.multi_label = bool(getattr(tiles.network, "multi_label", False))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Localize.

        Args:
            image: ``[B, 3, H, W]``, in [0, 1].

        Returns:
            ``[B, 1, H, W]`` ``R+``, in [0, 1], and ``[B, c]`` class probabilities, in label order.
        """
        prediction = self.tiles(image)
        if self.multi_label:  # channels that share the decidable region do not hold them
            return 1 - prediction[:, :1], self.tiles.network.presence(self.tiles.prepare(image))
        mass = prediction[:, 1:].mean(dim=[2, 3]) + 1e-30  # all alike where nothing is decidable
        return 1 - prediction[:, :1], mass / mass.sum(dim=1, keepdim=True)


def _reflected(length: int, before: int, total: int, like: Tensor) -> Tensor:
    """As :func:`~glas_wsol.transforms.reflect_pad`: ``[total]``, a triangle wave of period ``2 * (length - 1)``."""
    position = torch.arange(total, device=like.device).to(torch.float32) - before
    period = larger(2 * (length - 1), 1)  # an axis of one sample repeats it
    position = position - (position / period).floor() * period
    return torch.minimum(position, period - position).to(torch.int64)


def _antialiased(source: int, target: int, like: Tensor) -> Tensor:
    """Linear interpolation with antialiasing, as ``torch.nn.functional.interpolate`` does it: ``[target, source]``."""
    samples = torch.arange(source, dtype=like.dtype, device=like.device)
    position = (torch.arange(target, dtype=like.dtype, device=like.device) + 0.5) * (source / target) - 0.5
    # A triangle that is wider than 1 where the image shrinks, cut off at the border, and of sum 1.
    steepness = smaller(source, target) / source
    weights = (1.0 - (position.unsqueeze(1) - samples.unsqueeze(0)).abs() * steepness).clamp(min=0.0)
    return weights / weights.sum(dim=1, keepdim=True)
