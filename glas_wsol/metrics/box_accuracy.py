# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Compare boxes around the mask's parts with boxes around the true objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from glas_wsol.metrics.items import components, score_levels, soft_map, true_objects
from glas_wsol.metrics.metric_base import MeasureMetric

__all__ = ["BoxAccuracy", "MaxBoxAccuracy", "best_overlap", "object_boxes"]

_Hits = Callable[[Mapping[str, Any], np.ndarray], np.ndarray]
_OVERLAPS = np.array([0.3, 0.5, 0.7])
_STEPS = 100  # thresholds 0, .01 .. 1
_MANY = 100  # parts of a mask: from here on it pays to leave out the specks first


def object_boxes(objects: np.ndarray) -> np.ndarray:
    """Boxes ``[n, 4]`` around the numbers of ``[H, W]`` but 0: first row and column, and one past the last, in px."""
    slices = [s for s in ndimage.find_objects(objects) if s is not None]
    return np.array([(y.start, x.start, y.stop, x.stop) for y, x in slices], dtype=np.int64).reshape(-1, 4)


def best_overlap(boxes: np.ndarray, others: np.ndarray) -> float:
    """The best intersection over union, in [0, 1], of ``[n, 4]`` boxes with ``[m, 4]`` others; 0 without any."""
    if not len(boxes) or not len(others):
        return 0.0
    a, b = boxes[:, None], others[None]
    shared = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(axis=-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(axis=-1) for box in (a, b)]
    return float((shared / (areas[0] + areas[1] - shared)).max())


def _hits_of_mask(mask: np.ndarray, true_boxes: np.ndarray) -> np.ndarray:
    """Whether the mask's boxes reach each of the overlaps, ``[3]`` bool."""
    parts = components(mask)
    if parts.max() > _MANY:
        # A box that reaches an overlap has at least that share of a true box's height and width, and an 8-connected
        # part has a pixel in each row and column of its box: specks are left out before their boxes are made.
        least = _OVERLAPS[0] * (true_boxes[:, 2:] - true_boxes[:, :2]).max(axis=1).min()
        large = np.bincount(parts.ravel()) >= least
        large[0] = False  # the background
        parts = (np.cumsum(large) * large)[parts]
    return best_overlap(object_boxes(parts), true_boxes) >= _OVERLAPS


def _against_truth(item: Mapping[str, Any], hits: _Hits, width: int) -> np.ndarray | None:
    """The hits against the boxes of the true objects; None without a truth, NaN where it has no object."""
    objects = true_objects(item)
    if objects is None:
        return None
    if not objects.any():
        return np.full(width, np.nan)  # it has a truth: there is a row for every image with one
    return hits(item, object_boxes(objects))


class BoxAccuracy(MeasureMetric):
    """Share of images with a right box at the method's own threshold, mean over IoU 0.3, 0.5 and 0.7, in [0, 1].

    Predicted boxes are those of the localization, as they are written: around the 8-connected parts of its mask, from
    its smallest area on. True boxes are those of the true objects. An image is hit if any predicted box overlaps any
    true one enough: one best match per image, however many glands it shows, as in MaxBoxAccV2. Images without a truth
    mask, or whose truth has no object, are left out; without any other, the value is not a number.

    Source: Choe et al., CVPR 2020 (and its journal version, MaxBoxAccV2), without their choice of the threshold.
    """

    def __init__(self) -> None:
        super().__init__("box_accuracy", self._row)

    @staticmethod
    def _row(item: Mapping[str, Any]) -> np.ndarray | None:
        return _against_truth(item, BoxAccuracy._hits, len(_OVERLAPS))

    @staticmethod
    def _hits(item: Mapping[str, Any], true_boxes: np.ndarray) -> np.ndarray:
        found = [(box.y, box.x, box.y + box.height, box.x + box.width) for box in item["localization"].boxes]
        return best_overlap(np.array(found).reshape(-1, 4), true_boxes) >= _OVERLAPS


class MaxBoxAccuracy(MeasureMetric):
    """MaxBoxAccV2: :class:`BoxAccuracy` with the threshold of each IoU that is best for the evaluated images.

    As its authors define it, boxes of parts of any size count here. An oracle, not a result. Thresholds are
    0, .01 .. 1; an image that shows nothing to decide on scores 0.

    Source: Choe et al., CVPR 2020, and its journal version (MaxBoxAccV2).
    """

    def __init__(self) -> None:
        super().__init__("max_box_accuracy", self._row)

    @staticmethod
    def _row(item: Mapping[str, Any]) -> np.ndarray | None:
        return _against_truth(item, MaxBoxAccuracy._hits, (_STEPS + 1) * len(_OVERLAPS))

    @staticmethod
    def _hits(item: Mapping[str, Any], true_boxes: np.ndarray) -> np.ndarray:
        levels = score_levels(soft_map(item), _STEPS)
        present = np.bincount(levels.ravel(), minlength=_STEPS + 1)
        hits = np.zeros((_STEPS + 1, len(_OVERLAPS)))
        for step in range(_STEPS + 1):
            # Without a pixel at the level before, the mask is that of the step before.
            hits[step] = hits[step - 1] if step and not present[step - 1] else _hits_of_mask(levels >= step, true_boxes)
        return hits.ravel()
