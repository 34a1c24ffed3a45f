# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Check that an image shows anything to decide on: contrast, focus and, where the stain is known, tissue."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "BLANK",
    "BLURRED",
    "FLAT_MAP",
    "NO_TISSUE",
    "STAINS",
    "edge_width",
    "is_pale",
    "missing_evidence",
    "stained",
]

BLANK, BLURRED, NO_TISSUE, FLAT_MAP = "blank", "blurred", "no H&E tissue", "flat map"
STAINS = ("H&E",)
"""The stains whose tissue is known by its colour."""

# The bounds were set on synthetic tissue and EBHI-Seg; benchmarks/evidence.py measures what they accept and reject.
# A tile whose 8 x 8 px means differ by less than this (in [0, 1]) shows nothing: glass, or a blank scan with its noise.
# Stained tissue lies well above: 0.093 to 0.305 in the 85 training images of GlaS, 0.071 to 0.342 in 272 of EBHI-Seg.
_BLOCK, _LEAST_CONTRAST = 8, 0.02
# The sigmoid's range over a map of no range at all is 0; over any map with a maximum and a minimum it is 0.96.
_LEAST_RANGE = 1e-3
# Gradients are taken over 2 px, so that neither the camera's noise nor JPEG's blocks look like edges.
_SCALE, _NEAR, _SHARPEST, _STRONGEST = 2.0, 5, 0.95, 0.95
# px. Nothing sharp lies above, nor anything sharp enlarged twice; blurred by 4 px, 1 of 437 tiles lies below.
_WIDEST_EDGE = 1.2
_PHOTOGRAPH = 500  # px
# Shares of a colour's optical density in red, green and blue. Both stains take most from green and little from blue
# (Ruifrok and Johnston, 2001: haematoxylin .39 .42 .18, eosin .06 .84 .09); grey takes a third from each, blue and
# black ink most or as much from red, red and orange ink as much or more from blue.
_GREEN_OVER_BLUE, _GREEN_OVER_RED = 0.1, 0.0
_LEAST_DENSITY = 0.18  # the three together; glass has up to 0.1
_LEAST_TISSUE = 0.05  # of the tile: one that is mostly glass is still accepted


def missing_evidence(image: Tensor, decidable: Tensor, stain: str | None = None) -> str:
    """Why an image shows nothing to decide on; empty if it does.

    A blank image still gets a confident map from any network with padding: its border differs from its middle, and
    the per-image normalisation blows that up. A blurred one, or ink on glass, gets one too. So the image itself is
    checked: it must have contrast, an edge in focus somewhere and, where the stain is known, some tissue. An image that
    is bad in part only is accepted.

    Args:
        image: ``[3, H, W]`` RGB, in [0, 1], at the size it was taken in.
        decidable: ``[H, W]``, in [0, 1].
        stain: one of :data:`STAINS`: the focus is judged in the microscope's pixels. None (default) or empty for images
            of any kind, whose size of a pixel is unknown: larger ones are first reduced by a whole factor
            to a shorter side of 500 px or a little more.

    Returns:
        ``"flat map"`` (the network prefers no pixel), ``"blank"``, ``"no H&E tissue"`` or ``"blurred"``, in this
        order, or ``""``.
    """
    if float(decidable.max() - decidable.min()) < _LEAST_RANGE:
        return FLAT_MAP
    means = _block_means(image)
    contrast = means.flatten(1).std(dim=1, unbiased=False)
    if float(contrast.max()) < _LEAST_CONTRAST:
        return BLANK
    if stain and stained(means).float().mean() < _LEAST_TISSUE:
        return NO_TISSUE
    channel = image[int(contrast.argmax())].float()
    if not stain:
        channel = F.avg_pool2d(channel[None], max(1, min(channel.shape) // _PHOTOGRAPH))[0]
    return BLURRED if edge_width(channel) > _WIDEST_EDGE else ""


def edge_width(channel: Tensor | np.ndarray) -> float:
    """How blurred the sharpest of an image's strong edges are: the standard deviation of the blur, px.

    A step edge blurred by ``s`` has a gradient proportional to ``1 / sqrt(s^2 + t^2)`` when it is taken with a Gaussian
    of ``t``; the ratio of the gradients at two ``t`` gives ``s``, whatever the contrast. Strong edges are those of the
    coarse gradient, so that noise is excluded; of their pixels the 5 % with the largest ratio count, so that a bird in
    focus before a blurred background, or tissue beside glass, is in focus.

    Source: Zhuo and Sim, Defocus map estimation from a single image, Pattern Recognition 44 (2011), 1852-1858.

    Args:
        channel: ``[H, W]``, in [0, 1], with some contrast.

    Returns:
        0 for edges sharper than the measure can resolve, infinity where nothing but noise is left.
    """
    values = torch.as_tensor(channel).detach().cpu().float().numpy()
    gradients = (ndimage.gaussian_gradient_magnitude(values, t, mode="nearest") for t in (_SCALE, 2 * _SCALE))
    # Of a thin line, the two gradients are largest at different places.
    fine, coarse = (ndimage.maximum_filter(gradient, _NEAR) for gradient in gradients)
    strong = coarse >= max(np.quantile(coarse, _STRONGEST), 0.1 * coarse.max(), np.finfo(np.float32).tiny)
    if not strong.any():
        return float("inf")
    ratio = float(np.quantile((fine[strong] / coarse[strong]) ** 2, _SHARPEST))  # (s^2 + 4 t^2) / (s^2 + t^2)
    if ratio <= 1:
        return float("inf")
    return _SCALE * float(np.sqrt(max(4 - ratio, 0) / (ratio - 1)))


def is_pale(image: np.ndarray) -> np.ndarray:
    """Which pixels are as pale as glass: lumen, fat and gaps of tissue, not mucin.

    Args:
        image: ``[H, W, 3]`` uint8 RGB.

    Returns:
        ``[H, W]`` bool.
    """
    table = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)
    return table[image].sum(axis=2) <= _LEAST_DENSITY


def _block_means(image: Tensor) -> Tensor:
    """``[3, h, w]``, means over blocks against noise."""
    side = max(1, min(_BLOCK, min(image.shape[-2:]) // 4))
    return F.avg_pool2d(image.float(), kernel_size=side, stride=side, ceil_mode=True)


def stained(means: Tensor) -> Tensor:
    """Which pixels have the colours of H&E: ``[h, w]`` bool.

    Args:
        means: ``[3, h, w]`` RGB, in [0, 1], of a few micrometres each at least: noise has colours too.
    """
    density = -means.clamp(1 / 255, 1).log10()
    total = density.sum(dim=0)
    red, green, blue = density / total.clamp(min=1e-6)
    return (total > _LEAST_DENSITY) & (green - blue > _GREEN_OVER_BLUE) & (green - red > _GREEN_OVER_RED)
