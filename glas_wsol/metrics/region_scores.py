# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Measure the overlap of the mask with the truth, per image, then averaged over images (F1+ and F1- of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice

from glas_wsol.errors import ConfigError
from glas_wsol.metrics.items import score_levels, soft_map, true_mask
from glas_wsol.metrics.metric_base import MeasureMetric

__all__ = ["OracleRegionF1", "PixelAveragePrecision", "RegionF1"]

_BINS = 1000  # PxAP: thresholds 0, .001 .. 1
_STEPS = 100  # oracle: thresholds 0, .01 .. 1


def _check_region(region: str, where: str) -> str:
    if region not in ("foreground", "background"):
        raise ConfigError(f"region={region!r}", where, "choose foreground or background")
    return region


class RegionF1(MeasureMetric):
    """F1 (Dice) of the foreground (F1+) or of the background (F1-), per image, then the mean over images.

    0/0 is 1: where the region is absent from both the truth and the mask, the mask is right; where it is absent from
    one of them only, the value is 0. Images without a truth mask are left out; without any, the value is not a number.

    Args:
        region: ``"foreground"`` (default) or ``"background"``.
        floor: ``"all_ones"`` measures a mask of ones instead of the localization's: the score of an uninformed mask.
    """

    def __init__(self, region: str = "foreground", floor: str | None = None) -> None:
        self.region = _check_region(region, "RegionF1")
        if floor not in (None, "all_ones"):
            raise ConfigError(f"floor={floor!r}", "RegionF1", "choose all_ones or leave it out")
        self.floor = floor
        super().__init__(f"f1_{region}", self._row)

    def _row(self, item: Mapping[str, Any]) -> np.ndarray | None:
        truth = true_mask(item)
        if truth is None:
            return None
        mask = np.ones_like(truth) if self.floor else item["localization"].mask
        found, true = (
            torch.from_numpy(m if self.region == "foreground" else ~m)[None, None].double() for m in (mask, truth)
        )
        return compute_dice(found, true, ignore_empty=False)[0].numpy()


class PixelAveragePrecision(MeasureMetric):
    """Area under the precision-recall curve of the soft map, the pixels of all images pooled (PxAP), in [0, 1].

    Thresholds are 0, .001 .. 1; an image with nothing to decide on scores 0. No threshold is chosen. Images without
    a truth mask are left out; without any, or without any true foreground, the value is not a number.

    Source: Choe et al., Evaluating weakly supervised object localization methods right, CVPR 2020.
    """

    def __init__(self) -> None:
        super().__init__("pixel_average_precision", self._row)

    @staticmethod
    def _row(item: Mapping[str, Any]) -> np.ndarray | None:
        truth = true_mask(item)
        if truth is None:
            return None
        return _histograms(item, truth, _BINS).ravel()


class OracleRegionF1(MeasureMetric):
    """`RegionF1` at the one threshold that is best for the evaluated images themselves: an oracle, not a result.

    Of the thresholds 0, .01 .. 1, that with the best mean of F1+ and F1-, both means over images; of equal ones the
    lowest. An image with nothing to decide on scores 0. Images without a truth mask are left out; without any, the
    value is not a number.

    Args:
        region: ``"foreground"`` (default) or ``"background"``: which of the two is given. The threshold is the same.
    """

    def __init__(self, region: str = "foreground") -> None:
        self.region = _check_region(region, "OracleRegionF1")
        super().__init__(f"oracle_f1_{region}", self._row)

    @staticmethod
    def _row(item: Mapping[str, Any]) -> np.ndarray | None:
        truth = true_mask(item)
        if truth is None:
            return None
        in_truth, outside = _histograms(item, truth, _STEPS)
        # Of the mask at each threshold: pixels at or above it, inside the truth and outside.
        true, false = (h[::-1].cumsum()[::-1] for h in (in_truth, outside))
        missed, kept = true[0] - true, false[0] - false
        foreground = _dice(true, false, missed)
        background = _dice(kept, missed, false)
        return np.stack([foreground, background], axis=1).ravel()


def _histograms(item: Mapping[str, Any], truth: np.ndarray, steps: int) -> np.ndarray:
    """How many pixels have each level of score, ``[2, steps + 1]``: inside the truth, outside."""
    levels = score_levels(soft_map(item), steps)
    return np.stack([np.bincount(levels[where], minlength=steps + 1) for where in (truth, ~truth)])


def _dice(true: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
    sizes = 2 * true + false + missed
    return np.where(sizes > 0, 2 * true / np.maximum(sizes, 1), 1.0)
