# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Box accuracies by hand, and against every threshold, part and true box in turn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from glas_wsol.metrics import BoxAccuracy, MaxBoxAccuracy
from glas_wsol.metrics import box_accuracy as boxes
from tests.metrics.conftest import evaluate, item, smooth_map


def measured(items: list[dict]) -> tuple[float, float]:
    state = evaluate({"fixed": BoxAccuracy(), "best": MaxBoxAccuracy()}, [items])
    return state.metrics["fixed"], state.metrics["best"]


def rectangle(shape: tuple[int, int], rows: slice, columns: slice, value: float = 1) -> np.ndarray:
    made = np.zeros(shape)
    made[rows, columns] = value
    return made


def test_the_overlap_of_boxes_by_hand():
    one, other = np.array([[0, 0, 4, 10]]), np.array([[2, 5, 6, 12], [20, 20, 22, 22]])
    assert boxes.best_overlap(one, other) == pytest.approx(10 / (40 + 28 - 10))
    assert boxes.best_overlap(one, np.array([[4, 0, 8, 10]])) == 0  # side by side
    assert boxes.best_overlap(one, np.array([[5, 11, 7, 13]])) == 0  # apart in both directions
    assert boxes.best_overlap(one, one) == 1
    assert boxes.best_overlap(one, np.empty((0, 4), dtype=int)) == 0
    labels = np.zeros((7, 12), dtype=int)
    labels[1:3, 4:9], labels[5, 0], labels[2, 11] = 3, 8, 3
    assert boxes.object_boxes(labels).tolist() == [[1, 4, 3, 12], [5, 0, 6, 1]]


def test_by_hand():
    shape, truth = (20, 50), rectangle((20, 50), slice(4, 14), slice(10, 30))  # 10 x 20
    # 10 x 12 of it, at score .8; a wrong box of score .9: IoU .6, a hit at .3 and .5
    first = np.maximum(
        rectangle(shape, slice(4, 14), slice(10, 22), 0.8), rectangle(shape, slice(17, 19), slice(40, 45), 0.9)
    )
    # exact above .25, twice too wide below; at .5 only a tenth: IoU 1 only between .2 and .25
    second = rectangle(shape, slice(4, 14), slice(0, 40), 0.2)
    second[4:14, 10:30], second[4:14, 10:12] = 0.25, 0.7
    assert measured([item(first, truth)]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert measured([item(second, truth)]) == (0, 1)
    # Both, at IoU .3 and .5: thresholds to .25 hit both; at .7 the second only
    assert measured([item(first, truth), item(second, truth)]) == (
        pytest.approx(1 / 3),
        pytest.approx((1 + 1 + 0.5) / 3),
    )


def test_one_match_is_enough_whichever_part_and_object_it_is():
    shape = (20, 50)
    truth = np.maximum(rectangle(shape, slice(1, 4), slice(2, 8)), rectangle(shape, slice(10, 18), slice(30, 44)))
    first = truth * (np.arange(50) < 20)
    assert measured([item(first, truth)]) == (1, 1)
    numbers = (truth > 0).astype(int)  # both are one object: neither part is its box
    assert measured([item(first, truth, numbers)])[0] == 0


def direct_hits(soft: np.ndarray, evidence: bool, truth: np.ndarray, threshold: float) -> list[bool]:
    parts = ndimage.label(soft.astype(float) * evidence >= threshold, structure=np.ones((3, 3)))[0]
    best = 0.0
    for p in range(1, parts.max() + 1):
        for t in np.unique(truth[truth > 0]):
            a, b = np.zeros((2, *truth.shape), dtype=bool)
            for canvas, where in ((a, np.argwhere(parts == p)), (b, np.argwhere(truth == t))):
                (top, left), (bottom, right) = where.min(axis=0), where.max(axis=0)
                canvas[top : bottom + 1, left : right + 1] = True
            best = max(best, (a & b).sum() / (a | b).sum())
    return [best >= overlap for overlap in (0.3, 0.5, 0.7)]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 4), (1, 30), (30, 1), (41, 60)])
@pytest.mark.parametrize("share", [0, 0.05, 0.3, 0.5, 0.8, 1])
def test_mask_boxes_are_those_of_the_numbered_parts(shape, share):
    mask = np.random.default_rng(0).random(shape) < share
    found = boxes.mask_boxes(mask)
    parts = boxes.object_boxes(ndimage.label(mask, structure=np.ones((3, 3)))[0])
    assert sorted(found.tolist()) == sorted(parts.tolist())


def test_against_every_threshold():
    random = np.random.default_rng(2)
    items, fixed, best = [], [], []
    for shape, evidence in [((14, 23), True), ((30, 11), True), ((9, 9), False)]:
        soft = smooth_map(random, shape, 1.5).round(1)
        truth = ndimage.label(smooth_map(random, shape, 2) > 0.6)[0]
        items.append(item(soft, truth > 0, truth, evidence=evidence))
        fixed.append(direct_hits(soft, evidence, truth, 0.5) if evidence else [False] * 3)
        best.append([direct_hits(soft, evidence, truth, t / 100) for t in range(101)])
    expected = np.mean(fixed), np.mean(best, axis=0).max(axis=0).mean()
    assert measured(items) == pytest.approx(expected, rel=1e-12)
    assert 0 < expected[0] < expected[1] < 1


def test_a_part_of_few_pixels_may_have_a_large_box():
    truth = rectangle((20, 50), slice(3, 13), slice(5, 23))
    diagonal = np.zeros((20, 50))
    diagonal[np.arange(3, 13), np.arange(5, 15)] = 1  # 10 pixels, a box of 10 x 10: IoU 10 / 18
    assert measured([item(diagonal, truth)]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_images_without_a_true_object_are_left_out():
    truth = rectangle((9, 13), slice(2, 5), slice(3, 9))
    right, none, empty = item(truth, truth), item(truth), item(truth, truth * 0)
    assert measured([right, none, empty]) == (1, 1)
    assert all(math.isnan(value) for value in measured([none, empty]))


def test_box_accuracy_part_below_minimum_counts_at_no_threshold():
    truth = rectangle((40, 50), slice(4, 5), slice(10, 11))  # one pixel of 2000: below a thousandth of the image
    assert measured([item(truth, truth)]) == (0, 1)
    large = rectangle((40, 50), slice(4, 6), slice(10, 12))
    assert measured([item(large, large)]) == (1, 1)
