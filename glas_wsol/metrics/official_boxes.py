# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Compare a mask with the official box of its image, as CUB-200-2011 has them: no outline is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from glas_wsol.errors import ConfigError
from glas_wsol.metrics.box_accuracy import OVERLAPS, best_overlap, hits_at_thresholds, written_boxes
from glas_wsol.metrics.items import true_box
from glas_wsol.metrics.metric_base import MeasureMetric

__all__ = ["OfficialBox"]


def _boxes(item: Mapping[str, Any], floor: bool) -> np.ndarray:
    """The method's boxes ``[n, 4]``, around the largest part of its mask first; of a mask of ones the whole image's."""
    return np.array([[0, 0, *item["localization"].size]]) if floor else written_boxes(item)


def _mask_and_box(item: Mapping[str, Any], box: np.ndarray, floor: bool) -> tuple[np.ndarray, tuple[slice, slice]]:
    """The mask, and the pixels whose centres lie in the box; at least one."""
    mask = np.ones(item["localization"].size, dtype=bool) if floor else item["localization"].mask
    starts = [min(math.ceil(box[0, k] - 0.5), mask.shape[k] - 1) for k in (0, 1)]
    rows, columns = (slice(start, max(start + 1, math.ceil(box[0, k + 2] - 0.5))) for k, start in enumerate(starts))
    return mask, (rows, columns)


def _any(item: Mapping[str, Any], box: np.ndarray, floor: bool) -> np.ndarray:
    return best_overlap(_boxes(item, floor), box) >= OVERLAPS


def _largest(item: Mapping[str, Any], box: np.ndarray, floor: bool) -> np.ndarray:
    return np.array([best_overlap(_boxes(item, floor)[:1], box) >= 0.5])


def _inside(item: Mapping[str, Any], box: np.ndarray, floor: bool) -> np.ndarray:
    mask, place = _mask_and_box(item, box, floor)
    return np.array([mask[place].sum() / max(1, mask.sum())])


def _covered(item: Mapping[str, Any], box: np.ndarray, floor: bool) -> np.ndarray:
    mask, place = _mask_and_box(item, box, floor)
    return np.array([mask[place].mean()])


_ROWS: Mapping[str, Callable[[Mapping[str, Any], np.ndarray, bool], np.ndarray]] = {
    "official_box_accuracy": _any,
    "largest_box_accuracy": _largest,
    "inside_box": _inside,
    "box_covered": _covered,
    "max_official_box_accuracy": lambda item, box, floor: hits_at_thresholds(item, box),
}


class OfficialBox(MeasureMetric):
    """A measure against the official boxes; images without one are left out, without any it is not a number.

    Args:
        key: ``"official_box_accuracy"``: as :class:`~glas_wsol.metrics.BoxAccuracy`, against the official box;
            ``"largest_box_accuracy"``: whether the box of the mask's largest part overlaps it by an IoU of 0.5;
            ``"inside_box"``: share of the mask that lies in it, 0 of an empty mask; ``"box_covered"``: share of it that
            the mask covers; ``"max_official_box_accuracy"``: MaxBoxAccV2 against it, an oracle.
        floor: ``"all_ones"`` measures a mask of ones instead of the localization's; no oracle has one.

    Raises:
        ConfigError: on another key or floor.
    """

    def __init__(self, key: str, floor: str | None = None) -> None:
        if key not in _ROWS or floor not in (None, "all_ones") or (floor and key.startswith("max_")):
            fix = f"choose a key of {', '.join(_ROWS)}, and the floor all_ones or none"
            raise ConfigError(f"key={key!r}, floor={floor!r}", "OfficialBox", fix)
        self._hits, self._floor = _ROWS[key], floor is not None
        super().__init__(key, self._row)

    def _row(self, item: Mapping[str, Any]) -> np.ndarray | None:
        box = true_box(item)
        return None if box is None else self._hits(item, box, self._floor).astype(np.float64)
