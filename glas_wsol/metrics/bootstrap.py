# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Compute intervals: how far a figure of a few images can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from glas_wsol.metrics.measures import MEASURES, Measure

__all__ = ["NO_WIDTH", "bootstrap", "interval", "redraw", "reflect", "share_interval"]

NO_WIDTH = "an interval without width: drawing images again gives nothing else, which does not make it certain"
"""Note on an interval that is printed with two equal bounds."""

_AT_ONCE = 500  # resamples: of histograms of 2 x 1001 bins, 8 MB each time


def redraw(images: int, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """How often each image counts in sets of the same size redrawn from it, ``[resamples, images]``.

    The same arguments give the same draws, so that two methods can be compared on the same redrawn sets.
    """
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)


def bootstrap(
    measure: Measure, rows: np.ndarray, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a measure over images (Efron, 1979), reflected where the measure needs it.

    Args:
        rows: ``[N, k]``, what each image adds; images with an entry that is not a number are left out.
        resamples: how often images are redrawn. Defaults to 2000.
        level: coverage wanted. Defaults to 0.95.

    Returns:
        Lower and upper bound. Redrawn sets without a value (a class is absent) are left out. Both are the value itself
        where there is one image or all are equal, and not numbers where there is no value.
    """
    rows = _measured(rows)
    value = float(measure.aggregate(rows, np.ones((1, len(rows))))[0])
    if np.isnan(value) or (rows == rows[0]).all():
        return value, value
    weights = redraw(len(rows), resamples, seed)
    values = np.concatenate(
        [measure.aggregate(rows, w) for w in np.split(weights, range(_AT_ONCE, resamples, _AT_ONCE))]
    )
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return reflect(value, float(low), float(high)) if measure.reflected else (float(low), float(high))


def reflect(value: float, low: float, high: float) -> tuple[float, float]:
    """From a percentile interval the basic one, ``[2 value - high, 2 value - low]`` (Davison and Hinkley, 1997).

    A figure that chance can only raise is raised twice in a redrawn set: the percentiles lie as far above the value as
    the value lies above the truth. It is cut at 0 and holds the value.

    Args:
        value: of the images, at least 0.
        low: the resamples' lower percentile.
        high: their upper one.
    """
    return max(0.0, min(value, 2 * value - high)), max(value, 2 * value - low)


def interval(key: str, rows: np.ndarray) -> tuple[float, float]:
    """The 95 % interval to print beside a measure: Wilson's for the classification error, a bootstrap for all others.

    Args:
        rows: ``[N, k]``, what each image adds; images with an entry that is not a number are left out.

    Returns:
        Lower and upper bound; not numbers where nothing was measured.
    """
    if key == "classification_error":
        wrong = _measured(rows)
        return share_interval(wrong[:, 0].tolist()) if len(wrong) else (float("nan"), float("nan"))
    return bootstrap(MEASURES[key], rows)


def share_interval(hits: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share: no error among 18 images does not mean that there are none (Wilson, 1927).

    Resampling images would give an interval of no width there.

    Args:
        hits: 1 or 0 per image.

    Returns:
        Lower and upper bound, in [0, 1].
    """
    interval = stats.binomtest(round(sum(hits)), len(hits)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def _measured(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows[~np.isnan(rows).any(axis=1)] if rows.size else np.empty((0, 1))
