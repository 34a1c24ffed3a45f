# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Predict untrained baseline masks: all ones, a centre Gaussian, and the stain alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2hed
from skimage.filters import threshold_otsu
from torch import Tensor, nn

from glas_wsol.networks.base import choose, require_classes
from glas_wsol.networks.maps import distribution

__all__ = ["FixedMaskNetwork", "centre_gaussian", "stain_map"]

# An image whose smoothed haematoxylin varies by less than this (optical density) has no stain to separate.
_LEAST_STAIN = 1e-6


def centre_gaussian(height: int, width: int) -> Tensor:
    """``exp(-x^2 / 2 sx^2 - y^2 / 2 sy^2)`` about the centre, as wide and high at half its maximum as the image.

    Returns:
        ``[height, width]`` float32, in (0, 1); at least 0.5 in the inscribed ellipse.
    """
    # Full width at half maximum W means exp(-x^2 / 2 s^2) = 2^-((2 x / W)^2), x from the centre to a pixel's own.
    y = (2 * torch.arange(height, dtype=torch.float64) + 1) / height - 1
    x = (2 * torch.arange(width, dtype=torch.float64) + 1) / width - 1
    return torch.exp2(-(y.square().unsqueeze(1) + x.square().unsqueeze(0))).float()


def stain_map(image: np.ndarray) -> np.ndarray:
    """Haematoxylin, smoothed, on a scale where Otsu's threshold is 0.5.

    Colour deconvolution (Ruifrok and Johnston, 2001, as in scikit-image), a Gaussian of a 64th of the shorter side,
    Otsu's threshold (1979), then piecewise linear: 0 at the least, 0.5 at the threshold, 1 at the greatest.

    Args:
        image: ``[H, W, 3]`` RGB in [0, 1].

    Returns:
        ``[H, W]`` float32, in [0, 1]; 0 everywhere if the image's stain is constant.
    """
    haematoxylin = rgb2hed(np.asarray(image, dtype=np.float64))[..., 0]
    smooth = gaussian_filter(haematoxylin, sigma=min(haematoxylin.shape) / 64)
    low, high = float(smooth.min()), float(smooth.max())
    if high - low < _LEAST_STAIN:
        return np.zeros(smooth.shape, dtype=np.float32)
    return np.interp(smooth, [low, float(threshold_otsu(smooth)), high], [0.0, 0.5, 1.0]).astype(np.float32)


class FixedMaskNetwork(nn.Module):
    """A mask that is not trained, in the format of the other networks' output; it names no class: ``p`` is 1 / c.

    It has no parameter and no buffer: its state dict is empty. It gets the same input as any network: where images are
    padded to a multiple of 32 by reflection first, the Gaussian spans the padded image, and the stain's threshold and
    range are those of the padded image.

    Args:
        kind: ``"all_ones"``, ``"centre_gaussian"`` (:func:`centre_gaussian`) or ``"stain"`` (:func:`stain_map`).
        num_classes: ``c``, at least 2, for the shape of the output only. Defaults to 2.
    """

    supervision = "none"
    names_class = False

    def __init__(self, kind: str, num_classes: int = 2) -> None:
        super().__init__()
        choose("kind", kind, ("all_ones", "centre_gaussian", "stain"))
        require_classes(num_classes)
        self.kind = kind
        self.num_classes = num_classes
        self.smallest_side = 1

    def forward(self, image: Tensor) -> Tensor:
        """The mask of every image, as of a :class:`~glas_wsol.networks.base.TileNetwork` that names no class."""
        batch, _, height, width = image.shape
        if self.kind == "all_ones":
            mask = torch.ones(batch, 1, height, width)
        elif self.kind == "centre_gaussian":
            mask = centre_gaussian(height, width).expand(batch, 1, -1, -1)
        else:
            pixels = image.detach().float().cpu().permute(0, 2, 3, 1).numpy()
            mask = torch.from_numpy(np.stack([stain_map(one) for one in pixels])).unsqueeze(1)
        uniform = torch.full((batch, self.num_classes), 1.0 / self.num_classes)
        return distribution(mask, uniform).to(image.device)

    def settings(self) -> dict[str, Any]:
        """What decides the mask, as JSON values."""
        return {"class": type(self).__name__, "kind": self.kind}
