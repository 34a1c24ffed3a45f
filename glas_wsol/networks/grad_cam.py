# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Compute Grad-CAM and Grad-CAM++ from features and the gradient of a class score with respect to them.

``monai.visualize`` has both, as wrappers that run the network backwards: they take one image at a time, clear and
then fill the parameters' gradients, and leave their hooks behind; hence the formulas alone. Grad-CAM here equals
MONAI's. Grad-CAM++ does not: MONAI's adds 1e-7 to a denominator that is itself of the order of 1e-8 where a score is
the average of hundreds of positions, and takes the cube of equation 19 inside its sum.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["grad_cam", "grad_cam_pp"]


def grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM: features weighted by their mean gradient (Selvaraju et al., ICCV 2017, equations 1 and 2).

    Args:
        features: ``[B, channels, h, w]``.
        gradient: of one class score per image with respect to ``features``, same shape.

    Returns:
        ``[B, 1, h, w]``, at least 0; with average pooling the class map without its bias, cut at 0, up to a factor.
    """
    return (gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1, keepdim=True).relu()


def grad_cam_pp(features: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM++ of the score's exponential (Chattopadhay et al., WACV 2018, equations 5, 6 and 19).

    ``alpha = g^2 / (2 g^2 + g^3 sum A)`` matters only where ``g > 0``, where it is ``1 / (2 + g sum A)``: nothing
    underflows. The factor ``exp(score)`` that all weights of an image share is left out.

    Args:
        features: ``[B, channels, h, w]``, ``A``, at least 0.
        gradient: of one class score per image with respect to ``features``, same shape, ``g``.

    Returns:
        ``[B, 1, h, w]``, at least 0; right up to one factor per image.
    """
    positive = gradient.relu()
    alpha = 1 / (2 + positive * features.sum(dim=(2, 3), keepdim=True))
    weights = (alpha * positive).sum(dim=(2, 3), keepdim=True)
    return (weights * features).sum(dim=1, keepdim=True).relu()
