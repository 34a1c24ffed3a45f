# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Draw boxes around the parts of a mask, each with the score a detection is ranked by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from skimage.measure import label, regionprops

from glas_wsol.errors import ConfigError

__all__ = ["MIN_BOX_AREA", "Box", "check_min_area", "find_boxes"]

MIN_BOX_AREA = 0.001
"""Share of the image below which a part of a mask gets no box: 405 px of a GlaS tile, 20 x 20 px."""


@dataclass(frozen=True)
class Box:
    """The smallest upright rectangle around one connected part of a mask; all lengths in pixels of the image.

    Attributes:
        x: column of the left edge, from 0.
        y: row of the top edge, from 0.
        width: the box covers the columns ``x`` to ``x + width - 1``.
        height: the box covers the rows ``y`` to ``y + height - 1``.
        area: pixels of the part itself, its holes not counted; at most ``width * height``.
        score: mean soft decidable value of the part's pixels, from the mask's threshold to 1.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    score: float


def check_min_area(min_area: float) -> None:
    """Refuse, by a ConfigError, a least area that is not a share of an image, in [0, 1]."""
    if not 0 <= min_area <= 1:
        fix = "give a share of the image's area from 0 to 1"
        raise ConfigError(f"min_box_area={min_area!r} is out of range", "boxes", fix)


def find_boxes(decidable: np.ndarray, mask: np.ndarray, min_area: float = MIN_BOX_AREA) -> tuple[Box, ...]:
    """One box per connected part of a mask: pixels that touch by an edge or a corner (8-connectivity) belong together.

    Args:
        decidable: ``[H, W]``, soft decidable region in [0, 1].
        mask: ``[H, W]`` bool.
        min_area: a part below this share of the image's area is left out; 0 keeps every pixel. Defaults to 0.001.

    Returns:
        The largest area first; of equal areas the higher score, then the higher and the more leftward one.

    Raises:
        ConfigError: if ``min_area`` is not in [0, 1].
        ValueError: if the shapes differ, or the mask is not bool.
    """
    check_min_area(min_area)
    if mask.dtype != bool or mask.ndim != 2 or decidable.shape != mask.shape:
        raise ValueError(
            f"a bool mask [H, W] and a map of its shape are needed, got {mask.shape} {mask.dtype}, {decidable.shape}"
        )
    boxes = []
    for part in regionprops(label(mask, connectivity=2)):
        area = int(part.area)
        if area < min_area * mask.size:
            continue
        top, left, bottom, right = map(int, part.bbox)  # half-open
        score = float(decidable[part.slice][part.image].mean(dtype=np.float64))
        boxes.append(Box(left, top, right - left, bottom - top, area, score))
    return tuple(sorted(boxes, key=lambda box: (-box.area, -box.score, box.y, box.x)))
