# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Turn a soft map into a mask without holes and specks below a given area."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from glas_wsol.errors import ConfigError

__all__ = ["clean_regions"]


def clean_regions(decidable: np.ndarray, threshold: float, hole_area: float = 0, speck_area: float = 0) -> np.ndarray:
    """The mask of a soft map: at or above the threshold, small holes filled, then small parts removed.

    A gland's lumen belongs to the gland. Pixels that touch by an edge (4-connectivity) are one hole, or one part; those
    at the image's border count with the area that is seen. It is the area closing and opening of the map (Vincent,
    1993) at this one threshold.

    Args:
        decidable: ``[H, W]``.
        threshold: the mask's values are at or above it.
        hole_area: px; holes below it are filled. 0 (default) fills nothing.
        speck_area: px; parts below it are removed. 0 (default) removes nothing.

    Returns:
        ``[H, W]`` bool.

    Raises:
        ConfigError: if an area is negative.
    """
    if hole_area < 0 or speck_area < 0:
        raise ConfigError(f"areas of {hole_area:g} and {speck_area:g} px", "fill_holes, drop_specks", "give 0 or more")
    mask = np.asarray(decidable) >= threshold
    mask |= _small_parts(~mask, hole_area)
    mask &= ~_small_parts(mask, speck_area)
    return mask


def _small_parts(mask: np.ndarray, area: float) -> np.ndarray:
    """``[H, W]`` bool: the pixels of the mask's parts below an area."""
    if area <= 1:
        return np.zeros_like(mask)
    parts, _ = ndimage.label(mask)
    small = np.bincount(parts.ravel()) < area
    small[0] = False  # all that is not in the mask
    return small[parts]
