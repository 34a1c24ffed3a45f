# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Intervals against theory, and where there is nothing to redraw or no error to count."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from glas_wsol.metrics import MEASURES, bootstrap, interval, redraw, reflect, share_interval

F1 = MEASURES["f1_foreground"]


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return np.random.default_rng(7).normal(3, 2, 800)


@pytest.mark.parametrize("values", [[0, 0, 0, 1], [0.2, 0.9], [1, 1, 1, 0, 1, 1, 0], [0.5, 0.6, 0.55, 0.1, 0.92]])
def test_it_holds_the_mean_and_stays_within_the_values(values):
    low, high = bootstrap(F1, np.array(values)[:, None])
    assert min(values) <= low <= np.mean(values) <= high <= max(values)
    assert low < high


def test_of_two_values_it_reaches_from_one_to_the_other():
    # Each half of the resamples is mixed; a quarter holds one value only: both tails are longer than 2.5 %.
    assert bootstrap(F1, np.array([[0.2], [0.8]])) == (0.2, 0.8)


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


def test_bootstrap_sets_have_same_size_and_images_per_method():
    weights = redraw(13, resamples=400, seed=3)
    assert weights.shape == (400, 13)
    assert (weights.sum(axis=1) == 13).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(13), abs=0.2)
    assert (weights == redraw(13, 400, 3)).all()
    assert (weights != redraw(13, 400, 4)).any()


@pytest.mark.parametrize(("level", "quantile"), [(0.95, 1.959964), (0.8, 1.281552)])
def test_of_a_large_normal_sample_it_is_close_to_normal_theory(sample, level, quantile):
    low, high = bootstrap(F1, sample[:, None], 4000, level=level)
    half = quantile * sample.std(ddof=1) / math.sqrt(len(sample))
    assert low == pytest.approx(sample.mean() - half, abs=0.06 * half)
    assert high == pytest.approx(sample.mean() + half, abs=0.06 * half)


def test_95_percent_of_the_intervals_hold_the_truth():
    # Of 200 samples of 60 uniform values, the share of intervals that hold 1/2 is within 3 standard errors of 95 %.
    random = np.random.default_rng(11)
    bounds = [bootstrap(F1, random.random((60, 1)), 500, seed) for seed in range(200)]
    assert 0.9 <= np.mean([low <= 0.5 <= high for low, high in bounds]) <= 0.995


def test_interval_is_quantiles_of_redrawn_values_and_repeatable():
    rows = np.random.default_rng(0).integers(0, 5, (23, 3))
    measure = MEASURES["object_f1"]
    once = bootstrap(measure, rows, 700)
    assert bootstrap(measure, rows, 700) == once
    assert bootstrap(measure, rows, 700, seed=1) != once
    values = np.sort(measure.aggregate(rows, redraw(23, 700)))
    assert once == pytest.approx((np.quantile(values, 0.025), np.quantile(values, 0.975)), rel=1e-12)


def test_images_and_redrawn_sets_without_a_value_are_left_out():
    rows = np.array([[1, 0.3, 0.7], [1, 0.6, 0.4], [0, 0.7, 0.3], [0, 0.45, 0.55]])
    values = MEASURES["roc_auc"].aggregate(rows, redraw(4))
    assert 0.05 < np.isnan(values).mean() < 0.25, "one class only: 2 of 16"
    expected = np.quantile(values[~np.isnan(values)], [0.025, 0.975])
    assert interval("roc_auc", rows) == pytest.approx(tuple(expected))
    holed = np.insert(rows, [0, 2], np.nan, axis=0)
    assert interval("roc_auc", holed) == interval("roc_auc", rows)


@pytest.mark.parametrize("key", ["f1_foreground", "object_f1", "object_dice"])
def test_of_one_image_or_equal_ones_the_bounds_are_the_value(key):
    row = np.array([{"f1_foreground": [0.3], "object_f1": [2, 1, 1], "object_dice": [3, 5, 4, 7]}[key]])
    value = float(MEASURES[key].aggregate(row, np.ones((1, 1)))[0])
    assert bootstrap(MEASURES[key], row) == (value, value)
    low, high = bootstrap(MEASURES[key], np.repeat(row, 9, axis=0))
    assert low == high == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("key", MEASURES)
@pytest.mark.parametrize("rows", [np.empty((0, 4)), np.empty(0), np.full((3, 4), np.nan)])
def test_of_nothing_there_are_no_numbers(key, rows):
    assert all(math.isnan(bound) for bound in interval(key, rows))


def test_the_error_has_wilsons_interval_and_no_other_measure_has():
    wrong = np.array([[0.0]] * 18 + [[np.nan]])
    assert interval("classification_error", wrong) == share_interval([0.0] * 18)
    assert interval("f1_foreground", wrong) == (0, 0)


def test_many_images_of_fine_histograms_take_seconds():
    rows = np.random.default_rng(0).integers(0, 400, (145, 2002))
    started = time.process_time()
    low, high = interval("pixel_average_precision", rows)
    assert low < high
    assert time.process_time() - started < 3


def test_a_reflected_interval():
    assert reflect(0.2, 0.15, 0.32) == pytest.approx((0.08, 0.25))
    assert reflect(0.1, 0.15, 0.32) == pytest.approx((0, 0.1)), "cut at 0, and the value is in it"
    assert reflect(0.5, 0.3, 0.4) == pytest.approx((0.5, 0.7))
    rows = np.column_stack([np.linspace(0.55, 0.99, 40), np.arange(40) % 3 > 0])
    measure = MEASURES["calibration_error"]
    drawn = np.quantile(measure.aggregate(rows, redraw(40)), [0.025, 0.975])
    value = measure.aggregate(rows, np.ones((1, 40)))[0]
    assert bootstrap(measure, rows) == pytest.approx((max(0, 2 * value - drawn[1]), 2 * value - drawn[0]))
    assert [key for key, one in MEASURES.items() if one.reflected] == ["calibration_error", "mask_calibration_error"]
