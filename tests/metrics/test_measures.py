# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Every measure's aggregate: weights against repeated rows, and rank areas and balanced errors against counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import ROCAUCMetric
from scipy.stats import mannwhitneyu

from glas_wsol.metrics import MEASURES
from glas_wsol.metrics.bins import BINS


def labelled(random: np.random.Generator, n: int, classes: int) -> np.ndarray:
    probabilities = random.dirichlet(np.ones(classes), n).round(1)  # rounded: with ties
    return np.column_stack([random.integers(0, classes, n), probabilities])


def both_sides(random: np.random.Generator, n: int) -> np.ndarray:
    areas = random.integers(0, 50, (n, 2)) * (random.random((n, 2)) < 0.8)
    return np.stack([areas * random.random((n, 2)), areas], axis=2).reshape(n, 4)


def mask_bins(random: np.random.Generator, n: int) -> np.ndarray:
    pixels = random.integers(0, 9, (n, BINS)) + (np.arange(BINS) == 0)
    return np.concatenate([pixels, pixels * random.random((n, BINS)), random.integers(0, pixels + 1)], axis=1)


ROWS = {
    "classification_error": lambda r, n: r.integers(0, 2, (n, 1)),
    "balanced_error": lambda r, n: np.column_stack([r.integers(0, 4, n), r.integers(0, 2, n)]),
    "roc_auc": lambda r, n: labelled(r, n, int(r.integers(2, 5))),
    "calibration_error": lambda r, n: np.column_stack([r.uniform(0.5, 1, n).round(1), r.integers(0, 2, n)]),
    "f1_foreground": lambda r, n: r.random((n, 1)),
    "f1_background": lambda r, n: r.random((n, 1)),
    "pixel_average_precision": lambda r, n: r.integers(0, 9, (n, 2 * 11)) * (r.random((n, 22)) < 0.5),
    "object_f1": lambda r, n: r.integers(0, 4, (n, 3)),
    "object_dice": both_sides,
    "object_hausdorff": both_sides,
    "box_accuracy": lambda r, n: r.integers(0, 2, (n, 3)),
    "official_box_accuracy": lambda r, n: r.integers(0, 2, (n, 3)),
    "largest_box_accuracy": lambda r, n: r.integers(0, 2, (n, 1)),
    "inside_box": lambda r, n: r.random((n, 1)),
    "box_covered": lambda r, n: r.random((n, 1)),
    "mask_calibration_error": mask_bins,
    "max_box_accuracy": lambda r, n: r.integers(0, 2, (n, 3 * 7)),
    "max_official_box_accuracy": lambda r, n: r.integers(0, 2, (n, 3 * 7)),
    "oracle_f1_foreground": lambda r, n: r.random((n, 2 * 7)),
    "oracle_f1_background": lambda r, n: r.integers(0, 3, (n, 2 * 7)) / 2,  # with equal means
}


def plain(key: str, rows: np.ndarray) -> float:
    return float(MEASURES[key].aggregate(rows, np.ones((1, len(rows))))[0])


def test_the_measures_are_these_in_this_order():
    assert list(MEASURES) == list(ROWS)
    assert all(measure.key == key for key, measure in MEASURES.items())
    assert [k for k, m in MEASURES.items() if m.oracle] == list(ROWS)[-4:]
    assert [k for k, m in MEASURES.items() if m.needs == "class"] == list(ROWS)[:4]
    lower = [
        "classification_error",
        "balanced_error",
        "calibration_error",
        "object_hausdorff",
        "mask_calibration_error",
    ]
    assert [k for k, m in MEASURES.items() if not m.higher_is_better] == lower
    assert [k for k, m in MEASURES.items() if m.unit == "px"] == ["object_hausdorff"]
    with pytest.raises(TypeError):
        MEASURES["another"] = MEASURES["roc_auc"]


@pytest.mark.parametrize("key", ROWS)
def test_an_image_of_weight_three_counts_like_three_images(key):
    random, defined, differing = np.random.default_rng(5), 0, 0
    for n in [1, 2, 3, 6, 11, 30] * 3:
        rows = np.asarray(ROWS[key](random, n), dtype=float)
        weights = random.integers(0, 4, (5, n))
        got = MEASURES[key].aggregate(rows, weights)
        assert got.shape == (5,)
        for value, times in zip(got, weights, strict=True):
            expected = plain(key, np.repeat(rows, times, axis=0))
            assert value == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)
            defined += not np.isnan(value)
            differing += value != plain(key, rows)
    assert defined > 40, "most sets must have had a value"
    assert differing > 20, "weights must have mattered"


@pytest.mark.parametrize("key", ROWS)
def test_measure_nan_rows_are_left_out_and_no_rows_give_nan(key):
    random = np.random.default_rng(1)
    rows = np.asarray(ROWS[key](random, 40), dtype=float)
    holed = np.insert(rows, [0, 17, 40], np.nan, axis=0)
    holed[18] = rows[3]
    holed[18, -1] = np.nan  # one entry is enough
    assert plain(key, holed) == pytest.approx(plain(key, rows), rel=1e-12)
    assert not np.isnan(plain(key, rows))
    weights = np.stack([np.zeros(40), np.ones(40)])
    assert np.isnan(MEASURES[key].aggregate(rows, weights)).tolist() == [True, False]
    assert np.isnan(plain(key, holed[:1]))
    assert np.isnan(MEASURES[key].aggregate(rows[:0], np.ones((3, 0)))).tolist() == [True] * 3


def test_the_balanced_error_by_hand():
    # class 0: 1 of 4 wrong, class 2: 1 of 2 wrong, class 5: right; class 1 is absent: (1/4 + 1/2 + 0) / 3
    rows = np.array([[0, 0], [0, 1], [0, 0], [0, 0], [2, 1], [2, 0], [5, 0]])
    assert plain("balanced_error", rows) == pytest.approx(0.25)
    weights = np.array([[1, 1, 1, 1, 0, 0, 0], [0, 1, 0, 0, 1, 1, 0]])  # one class; all of 0 wrong, half of 2
    assert MEASURES["balanced_error"].aggregate(rows, weights).tolist() == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("seed", range(4))
def test_auroc_of_two_classes_equals_mann_whitney_and_monai(seed):
    rows = labelled(np.random.default_rng(seed), 37, 2)
    rows[:3, 0] = 1
    positive, negative = (rows[rows[:, 0] == k, 2] for k in (1, 0))
    u = mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative))
    metric = ROCAUCMetric()
    metric(torch.from_numpy(rows[:, 2]), torch.from_numpy(rows[:, 0]))
    assert plain("roc_auc", rows) == pytest.approx(u, rel=1e-12)
    assert plain("roc_auc", rows) == pytest.approx(metric.aggregate(), rel=1e-6)
    assert len(np.unique(rows[:, 2])) < 20, "with ties"


def test_auroc_of_more_classes_is_mean_one_against_others():
    rows = labelled(np.random.default_rng(9), 50, 4)
    metric = ROCAUCMetric(average="macro")
    metric(torch.from_numpy(rows[:, 1:]), torch.eye(4)[rows[:, 0].astype(int)])
    assert plain("roc_auc", rows) == pytest.approx(metric.aggregate(), rel=1e-6)


def test_the_rank_area_by_hand_and_with_absent_classes():
    # pairs of (positive, negative) scores: .8>.3, .8>.4, .4>.3, .4=.4: 3.5 of 4
    rows = np.array([[1, 0.2, 0.8], [0, 0.7, 0.3], [1, 0.6, 0.4], [0, 0.6, 0.4]])
    assert plain("roc_auc", rows) == 3.5 / 4
    assert np.isnan(plain("roc_auc", rows[[0, 2]]))
    # three classes, the third absent: the mean of the two present, 1 and 0
    rows = np.array([[0, 0.9, 0.06, 0.04], [1, 0.5, 0.0, 0.5], [1, 0.4, 0.05, 0.55]])
    assert plain("roc_auc", rows) == 0.5


def test_pooled_object_sums_by_hand():
    # detection: 2 * 3 / (2 * 3 + 1 + 4)
    assert plain("object_f1", np.array([[3, 0, 1], [0, 1, 3]])) == 6 / 11
    # images of 2 and 1 objects: half of (6 + 2) / (10 + 10) and half of (5 + 1) / (5 + 5)
    rows = np.array([[6, 10, 5, 5], [2, 10, 1, 5]])
    assert plain("object_dice", rows) == plain("object_hausdorff", rows) == pytest.approx(0.5 * (8 / 20 + 6 / 10))
    nothing_found = np.array([[0, 10, 0, 0], [0, 6, 0, 0]])
    assert plain("object_dice", nothing_found) == 0
    assert plain("object_hausdorff", np.array([[50, 10, 0, 0]])) == 5
    assert plain("object_hausdorff", np.array([[0, 0, 50, 10]])) == 5
    nothing = np.zeros((2, 4))
    assert plain("object_dice", nothing) == 1
    assert plain("object_hausdorff", nothing) == 0
    assert plain("object_f1", np.zeros((2, 3))) == 1


def test_the_oracles_choose_for_the_set_and_not_for_each_image():
    # Of two thresholds image 1 prefers the first, image 2 the second, more so: the second it is.
    rows = np.array([[0.9, 0.5, 0.7, 0.3], [0.1, 0.1, 0.8, 0.4]])
    assert plain("oracle_f1_foreground", rows) == pytest.approx(0.75)
    assert plain("oracle_f1_background", rows) == pytest.approx(0.35)
    weights = np.array([[3, 1]])
    assert MEASURES["oracle_f1_foreground"].aggregate(rows, weights) == pytest.approx(0.7)
    assert MEASURES["oracle_f1_background"].aggregate(rows, weights) == pytest.approx(0.4)
    # Equal means, (0 + .3) / 2 and (.1 + .2) / 2, differ in float: the lower threshold it is all the same.
    assert sum([0.1, 0.2]) > 0.3
    assert plain("oracle_f1_background", np.array([[0, 0.3, 0.1, 0.2]])) == 0.3
    # MaxBoxAccV2: each IoU has its own threshold; two thresholds, three images
    hits = np.array([[1, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1]])
    assert plain("max_box_accuracy", hits) == pytest.approx((2 / 3 + 1 / 3 + 2 / 3) / 3)
    assert plain("box_accuracy", hits[:, :3]) == pytest.approx((2 + 1 + 0) / 9)
