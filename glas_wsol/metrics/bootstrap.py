# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""How far a mean, or a share, of a few images can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, bootstrap

__all__ = ["bootstrap_interval", "share_interval"]


def bootstrap_interval(
    values: Sequence[float], level: float = 0.95, resamples: int = 9999, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over images (Efron, 1979).

    Args:
        values: one value per image.
        level: coverage wanted. Defaults to 0.95.
        resamples: how often images are redrawn. Defaults to 9999.
        seed: of the redrawing. Defaults to 0.

    Returns:
        Lower and upper bound; both the value itself where there is one image or all are equal.
    """
    data = np.asarray(values, dtype=float)
    if len(data) < 2 or np.ptp(data) == 0:
        return float(data.mean()), float(data.mean())
    result = bootstrap(
        (data,),
        np.mean,
        confidence_level=level,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def share_interval(hits: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share: no error among 18 images does not mean that there are none (Wilson, 1927).

    Resampling images would give an interval of no width there.

    Args:
        hits: 1 or 0 per image.
        level: coverage wanted. Defaults to 0.95.

    Returns:
        Lower and upper bound, in [0, 1].
    """
    interval = binomtest(round(sum(hits)), len(hits)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)
