# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Remove holes and specks below a given area from soft masks."""

from __future__ import annotations

from typing import cast

import numpy as np
from skimage.morphology import area_closing, area_opening

from glas_wsol.errors import ConfigError

__all__ = ["clean_regions"]

_LEVELS = 65535  # the max-tree of whole numbers is the fast one; finer than a network's output means

_LEAST_SIDE = 3  # px; scikit-image's max-tree takes no thinner images, and they have no holes


def clean_regions(decidable: np.ndarray, hole_area: float = 0, speck_area: float = 0) -> np.ndarray:
    """Raise small dark regions of a soft mask to what surrounds them, then lower small bright ones.

    Area closing and area opening (Vincent, 1993): at *every* threshold, the holes of the mask that are smaller than
    ``hole_area`` are filled (a gland's lumen belongs to the gland), and then parts smaller than ``speck_area`` are
    removed. Nothing else changes; all other pixels stay in the same order.

    Args:
        decidable: ``[H, W]``, in [0, 1].
        hole_area: px; 0 (default) fills nothing.
        speck_area: px; 0 (default) removes nothing.

    Returns:
        ``[H, W]`` float32, in [0, 1]; the same array where nothing is to be done.

    Raises:
        ConfigError: if an area is negative.
    """
    if hole_area < 0 or speck_area < 0:
        raise ConfigError(f"areas of {hole_area:g} and {speck_area:g} px", "fill_holes, drop_specks", "give 0 or more")
    if (hole_area == 0 and speck_area == 0) or min(decidable.shape) < _LEAST_SIDE:
        return decidable
    before = np.rint(decidable * _LEVELS).astype(np.uint16)
    after = area_closing(before, cast("int", hole_area), connectivity=1) if hole_area else before
    after = area_opening(after, cast("int", speck_area), connectivity=1) if speck_area else after
    changed = after != before
    return np.where(changed, after.astype(np.float32) / _LEVELS, decidable).astype(np.float32)
