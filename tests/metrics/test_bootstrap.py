# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Intervals against theory, and where there is nothing to redraw or no error to count."""

from __future__ import annotations

import math

import numpy as np
import pytest

from glas_wsol.metrics import bootstrap_interval, share_interval


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return np.random.default_rng(7).normal(3, 2, 800)


@pytest.mark.parametrize(("level", "quantile"), [(0.95, 1.959964), (0.8, 1.281552)])
def test_of_a_large_normal_sample_it_is_close_to_normal_theory(sample, level, quantile):
    low, high = bootstrap_interval(sample, level, resamples=4000)
    half = quantile * sample.std(ddof=1) / math.sqrt(len(sample))
    assert low == pytest.approx(sample.mean() - half, abs=0.06 * half)
    assert high == pytest.approx(sample.mean() + half, abs=0.06 * half)


def test_it_is_the_same_each_time_and_another_with_another_seed(sample):
    few = sample[:30]
    assert bootstrap_interval(few, resamples=500) == bootstrap_interval(list(few), resamples=500)
    assert bootstrap_interval(few, resamples=500) != bootstrap_interval(few, resamples=500, seed=1)


@pytest.mark.parametrize("values", [[0, 0, 0, 1], [0.2, 0.9], [1, 1, 1, 0, 1, 1, 0], [0.5, 0.6, 0.55, 0.1, 0.92]])
def test_it_holds_the_mean_and_stays_within_the_values(values):
    low, high = bootstrap_interval(values, resamples=2000)
    assert min(values) <= low <= np.mean(values) <= high <= max(values)
    assert low < high


def test_of_two_values_it_reaches_from_one_to_the_other():
    # Each half of the resamples is mixed; a quarter holds one value only: both tails are longer than 2.5 %.
    assert bootstrap_interval([0.2, 0.8]) == (0.2, 0.8)


@pytest.mark.parametrize("values", [[0.3], [1.0, 1.0, 1.0], [0.0] * 20])
def test_of_one_image_or_equal_values_it_is_the_value(values):
    assert bootstrap_interval(values) == (values[0], values[0])


@pytest.mark.parametrize("hits", [0, 1, 5, 18])
def test_the_interval_of_a_share_is_wilsons(hits):
    n, z = 18, 1.959964
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = share_interval([1.0] * hits + [0.0] * (n - hits))
    assert low == pytest.approx(middle - half, abs=1e-6)
    assert high == pytest.approx(middle + half, abs=1e-6)
    assert high - low > 0.15, "no share of 18 images is certain"
