# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Inference on whole tiles of any width and height."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor
from torch.nn import functional as F

from glas_wsol.transforms import Rescale, Window, crop_back, pad_to_multiple

__all__ = ["TrainingInferer", "WholeTileInferer"]


class WholeTileInferer(Inferer):
    """Shrink to the training resolution, reflect-pad to a multiple of the stride, predict, crop and enlarge back.

    The prediction has the input's own height and width; interpolation keeps its channels' sum at 1.

    Args:
        factor: training resolution as a factor of the input's. Defaults to 1.
        short_side: training resolution as the length of the shorter side in px, instead of ``factor``.
        divisor: of both padded sides. Defaults to 32, the trunks' stride.
    """

    def __init__(self, factor: float = 1.0, short_side: int | None = None, divisor: int = 32) -> None:
        super().__init__()
        self.rescale = Rescale(factor, short_side)
        self.divisor = divisor

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Predict.

        Args:
            inputs: ``[B, 3, H, W]``, in [0, 1].
            network: maps ``[B, 3, H', W']`` to ``[B, n, H', W']``, ``H'`` and ``W'`` multiples of the divisor.
            args: passed on to the network.
            kwargs: passed on to the network.

        Returns:
            ``[B, n, H, W]``.
        """
        height, width = inputs.shape[-2:]
        padded, window = self.prepare(inputs)
        prediction = crop_back(network(padded, *args, **kwargs), window)
        if prediction.shape[-2:] != (height, width):
            prediction = F.interpolate(prediction, size=(height, width), mode="bilinear", align_corners=False)
        return prediction

    def prepare(self, inputs: Tensor) -> tuple[Tensor, Window]:
        """What the network is given.

        Args:
            inputs: ``[B, 3, H, W]``, in [0, 1].

        Returns:
            ``[B, 3, H', W']`` at the training resolution, padded, and where the image lies in it.
        """
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        return pad_to_multiple(torch.stack([self.rescale(one) for one in image]), self.divisor)


class TrainingInferer(Inferer):
    """What a network says before its answer is made a picture: the values a loss is computed of.

    Args:
        method: the network's method to call on normalised images: ``"logits"`` (class scores ``[B, c]``, default) or
            ``"mask_logits"`` (``[B, 1, H, W]``).
    """

    def __init__(self, method: str = "logits") -> None:
        super().__init__()
        self.method = method

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Call the method.

        Args:
            inputs: ``[B, 3, H, W]``, in [0, 1].
            network: has ``normalise`` and the method.
            args: passed on to the method.
            kwargs: passed on to the method.
        """
        return getattr(network, self.method)(network.normalise(inputs), *args, **kwargs)
