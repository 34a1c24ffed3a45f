# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Compare boxes around the mask's parts with boxes around the true objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import ndimage, sparse

from glas_wsol.metrics.items import score_levels, soft_map, true_objects
from glas_wsol.metrics.metric_base import MeasureMetric

__all__ = [
    "OVERLAPS",
    "BoxAccuracy",
    "MaxBoxAccuracy",
    "best_overlap",
    "hits_at_thresholds",
    "mask_boxes",
    "object_boxes",
    "written_boxes",
]

_Hits = Callable[[Mapping[str, Any], np.ndarray], np.ndarray]
OVERLAPS = np.array([0.3, 0.5, 0.7])
"""The IoUs of BoxAccV2."""

_STEPS = 100  # thresholds 0, .01 .. 1


def object_boxes(objects: np.ndarray) -> np.ndarray:
    """Boxes ``[n, 4]`` around the numbers of ``[H, W]`` but 0: first row and column, and one past the last, in px."""
    slices = [s for s in ndimage.find_objects(objects) if s is not None]
    return np.array([(y.start, x.start, y.stop, x.stop) for y, x in slices], dtype=np.int64).reshape(-1, 4)


def written_boxes(item: Mapping[str, Any]) -> np.ndarray:
    """Boxes ``[n, 4]`` of a localization, around the largest part of its mask first."""
    found = [(box.y, box.x, box.y + box.height, box.x + box.width) for box in item["localization"].boxes]
    return np.array(found).reshape(-1, 4)


def best_overlap(boxes: np.ndarray, others: np.ndarray) -> float:
    """The best intersection over union, in [0, 1], of ``[n, 4]`` boxes with ``[m, 4]`` others; 0 without any."""
    if not len(boxes) or not len(others):
        return 0.0
    a, b = boxes[:, None], others[None]
    shared = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(axis=-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(axis=-1) for box in (a, b)]
    return float((shared / (areas[0] + areas[1] - shared)).max())


def mask_boxes(mask: np.ndarray) -> np.ndarray:
    """Boxes ``[n, 4]`` around the 8-connected parts of ``[H, W]`` bool, in px, as of :func:`object_boxes`.

    Made of the runs of the rows instead of the pixels: about three times as quick as numbering the parts.
    """
    height, width = mask.shape
    row = width + 2  # no run touches the next row's
    padded = np.zeros((height, row), dtype=bool)
    padded[:, 1:-1] = mask
    start, stop = np.flatnonzero(np.diff(padded.ravel())).reshape(-1, 2).T + 1
    first = np.searchsorted(stop, start + row)  # of the runs below that touch, also by a corner
    counts = np.maximum(np.searchsorted(start, stop + row, side="right") - first, 0)
    above = np.repeat(np.arange(len(start)), counts)
    below = np.arange(len(above)) + np.repeat(first - np.cumsum(counts) + counts, counts)
    links = sparse.coo_matrix((np.ones(len(above), dtype=bool), (above, below)), shape=(len(start), len(start)))
    number, part = sparse.csgraph.connected_components(links, directed=False)
    boxes = np.tile((height, width, 0, 0), (number, 1))
    for edge, found in enumerate((start // row, start % row - 1)):
        np.minimum.at(boxes[:, edge], part, found)
    for edge, found in enumerate((start // row + 1, stop - start + start % row - 1), start=2):
        np.maximum.at(boxes[:, edge], part, found)
    return boxes


def _hits_of_mask(mask: np.ndarray, true_boxes: np.ndarray) -> np.ndarray:
    """Whether the mask's boxes reach each of the overlaps, ``[3]`` bool."""
    boxes = mask_boxes(mask)
    # A box that reaches an overlap has at least that share of a true box's area: specks are left out.
    sizes = [(found[:, 2:] - found[:, :2]).prod(axis=1) for found in (boxes, true_boxes)]
    return best_overlap(boxes[sizes[0] >= OVERLAPS[0] * sizes[1].min()], true_boxes) >= OVERLAPS


def _against_truth(item: Mapping[str, Any], hits: _Hits, width: int) -> np.ndarray | None:
    """The hits against the boxes of the true objects; None without a truth, NaN where it has no object."""
    objects = true_objects(item)
    if objects is None:
        return None
    if not objects.any():
        return np.full(width, np.nan)  # it has a truth: there is a row for every image with one
    return hits(item, object_boxes(objects))


def hits_at_thresholds(item: Mapping[str, Any], true_boxes: np.ndarray) -> np.ndarray:
    """Whether boxes around the parts of the soft map reach each overlap with any true box, ``[101 * 3]``.

    Thresholds are 0, .01 .. 1.
    """
    levels = score_levels(soft_map(item), _STEPS)
    present = np.bincount(levels.ravel(), minlength=_STEPS + 1)
    hits = np.zeros((_STEPS + 1, len(OVERLAPS)))
    for step in range(_STEPS + 1):
        # Without a pixel at the level before, the mask is that of the step before.
        hits[step] = hits[step - 1] if step and not present[step - 1] else _hits_of_mask(levels >= step, true_boxes)
    return hits.ravel()


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
        return _against_truth(item, BoxAccuracy._hits, len(OVERLAPS))

    @staticmethod
    def _hits(item: Mapping[str, Any], true_boxes: np.ndarray) -> np.ndarray:
        return best_overlap(written_boxes(item), true_boxes) >= OVERLAPS


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
        return _against_truth(item, hits_at_thresholds, (_STEPS + 1) * len(OVERLAPS))
