# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Measure calibration, whether a confidence of 0.8 is right in 80 of 100 cases: of classes and of the mask's pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from glas_wsol.metrics.bins import BINS, mass_bins, width_bins
from glas_wsol.metrics.bootstrap import bootstrap, redraw, share_interval
from glas_wsol.metrics.items import soft_map, true_mask
from glas_wsol.metrics.measures import MEASURES
from glas_wsol.metrics.metric_base import MeasureMetric, RowMetric
from glas_wsol.metrics.temperature import fit_temperature
from glas_wsol.utils.labels import LEAST_PROBABILITY

__all__ = [
    "CalibrationError",
    "MaskCalibrationError",
    "Reliability",
    "Temperature",
    "class_reliability",
    "mask_reliability",
]


class CalibrationError(MeasureMetric):
    """Expected calibration error of the predicted class' probability, in [0, 1].

    The images are sorted by that probability into bins of equal mass, as many as the cube root of their number and
    15 at most; the error is the mean over images of their bin's ``|mean probability - share classified right|``.
    Of several classes, each class of each image is a case, and its confidence is that it is there, or that it is not,
    whichever is at least 0.5. Images without probabilities are left out; without any, the value is not a number. Of few
    images it is larger than of many, calibrated as they may be; drawing images again adds as much once more, so its
    interval is reflected (see :func:`~glas_wsol.metrics.bootstrap`).

    Sources: Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015; Guo et al., On
    calibration of modern neural networks, ICML 2017. Bins of equal mass: Nguyen and O'Connor, EMNLP 2015.
    """

    def __init__(self) -> None:
        super().__init__("calibration_error", self._row)

    @staticmethod
    def _row(item: Mapping[str, Any]) -> list[float] | None:
        if item.get("probabilities") is None:
            return None
        label = torch.as_tensor(item["label"]).cpu()
        probabilities = torch.as_tensor(item["probabilities"]).detach().cpu().double().numpy()
        if label.numel() == 1:
            return [probabilities.max(), float(probabilities.argmax() == int(label))]
        named = probabilities >= LEAST_PROBABILITY
        return [*np.where(named, probabilities, 1 - probabilities), *(named == (label.numpy() > 0))]


class MaskCalibrationError(MeasureMetric):
    """Expected calibration error of the soft map as a probability of foreground, in [0, 1].

    In 15 equally wide bins of the score, the pixels of all images pooled: the mean over pixels of their bin's
    ``|mean score - share of true foreground|``. Nothing is fitted to it. An image with nothing to decide on
    scores 0 everywhere. Images without a truth mask are left out; without any, the value is not a number.
    """

    def __init__(self) -> None:
        super().__init__("mask_calibration_error", self._row)

    @staticmethod
    def _row(item: Mapping[str, Any]) -> np.ndarray | None:
        truth = true_mask(item)
        if truth is None:
            return None
        soft, truth = soft_map(item).ravel(), truth.ravel()
        bins = width_bins(soft)
        return np.concatenate([np.bincount(bins, weights=w, minlength=BINS) for w in (None, soft, truth)])


class Temperature(RowMetric):
    """What the class scores should be divided by, see :func:`~glas_wsol.metrics.temperature.fit_temperature`.

    Images without probabilities and images that may have several classes are left out; without any it is 1.
    """

    def __init__(self) -> None:
        super().__init__(self._row, lambda rows: fit_temperature(rows[:, 1:], rows[:, 0].astype(int)), empty=1.0)

    @staticmethod
    def _row(item: Mapping[str, Any]) -> list[float] | None:
        if item.get("probabilities") is None or torch.as_tensor(item["label"]).numel() > 1:
            return None
        probabilities = torch.as_tensor(item["probabilities"]).detach().cpu().double()
        return [float(item["label"]), *probabilities.log().tolist()]


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram's numbers: one entry per bin that is not empty, by rising confidence.

    Attributes:
        confidence: ``[B]``, mean of each bin, in [0, 1].
        share: ``[B]``, how much of each bin is right (classes) or foreground (pixels), in [0, 1].
        low: ``[B]``, lower bound of the share's 95 % interval.
        high: ``[B]``, upper bound.
        count: ``[B]``, images or pixels in each bin.
        interval: its 95 % interval, a bootstrap over images.
    """

    confidence: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    images: int
    error: float
    interval: tuple[float, float]


def class_reliability(rows: np.ndarray) -> Reliability:
    """Of the predicted class, by rows ``[N, 2 * c]`` of `CalibrationError` without NaN; Wilson's intervals."""
    rows = np.asarray(rows, dtype=np.float64)
    cases = np.stack([part.ravel() for part in np.split(rows, 2, axis=1)], axis=1)
    bins = mass_bins(cases[:, 0], np.ones((1, len(cases))))[0]
    members = [cases[bins == place] for place in np.unique(bins)]
    low, high = zip(*(share_interval(m[:, 1].tolist()) for m in members), strict=True)
    confidence, share = np.array([m.mean(axis=0) for m in members]).T
    count = np.array([len(m) for m in members])
    return Reliability(confidence, share, np.array(low), np.array(high), count, *_figure("calibration_error", rows))


def mask_reliability(rows: np.ndarray, resamples: int = 2000, seed: int = 0) -> Reliability:
    """Of the soft map's pixels; the intervals of the shares are a percentile bootstrap over images.

    Pixels of one image are not independent, so images are drawn again. A bin's draws without any of its pixels
    are left out.

    Args:
        rows: ``[N, 3 * BINS]`` of `MaskCalibrationError`, without NaN, one at least.
        resamples: how often images are drawn again. Defaults to 2000.
    """
    rows = np.asarray(rows, dtype=np.float64)
    pixels, scores, foreground = rows.sum(axis=0).reshape(3, BINS)
    full = pixels > 0
    drawn = (redraw(len(rows), resamples, seed) @ rows).reshape(-1, 3, BINS)[:, :, full]
    shares = np.where(drawn[:, 0] > 0, drawn[:, 2] / np.maximum(drawn[:, 0], 1), np.nan)
    low, high = np.nanquantile(shares, [0.025, 0.975], axis=0)
    count = pixels[full].astype(int)
    confidence, share = scores[full] / pixels[full], foreground[full] / pixels[full]
    return Reliability(confidence, share, low, high, count, *_figure("mask_calibration_error", rows))


def _figure(key: str, rows: np.ndarray) -> tuple[int, float, tuple[float, float]]:
    measure = MEASURES[key]
    value = float(measure.aggregate(rows, np.ones((1, len(rows))))[0])
    return len(rows), value, bootstrap(measure, rows)
