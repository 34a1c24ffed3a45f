# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Measures against official boxes: by hand, and against drawn pixels and torch-free references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from glas_wsol.errors import ConfigError
from glas_wsol.metrics import OfficialBox, class_errors, confusions
from tests.metrics.conftest import evaluate, item, smooth_map

KEYS = ("official_box_accuracy", "largest_box_accuracy", "inside_box", "box_covered", "max_official_box_accuracy")


def boxed(soft: np.ndarray, box: tuple[float, ...] | None, **more: Any) -> dict[str, Any]:
    """An item with an official box: left, top, right, bottom edge."""
    return item(soft, **more) | ({} if box is None else {"box": torch.tensor(box, dtype=torch.float64)})


def measured(items: list[dict[str, Any]], floor: str | None = None) -> dict[str, float]:
    keys = KEYS[:4] if floor else KEYS
    return evaluate({key: OfficialBox(key, floor) for key in keys}, [items]).metrics


def test_official_box_by_hand():
    soft = np.zeros((20, 50))
    soft[4:14, 10:22] = 0.8  # 10 x 12, in the official box of 10 x 20: IoU 0.6
    soft[17:19, 40:45] = 0.9  # 10 px outside
    found = measured([boxed(soft, (10, 4, 30, 14))])
    assert found["official_box_accuracy"] == pytest.approx(2 / 3)
    assert found["largest_box_accuracy"] == 1
    assert found["inside_box"] == pytest.approx(120 / 130)
    assert found["box_covered"] == pytest.approx(120 / 200)


def test_official_box_largest_part_decides_alone():
    soft = np.zeros((20, 50))
    soft[2:6, 2:6] = 0.9  # exactly the official box
    soft[10:20, 20:50] = 0.6
    found = measured([boxed(soft, (2, 2, 6, 6))])
    assert (found["official_box_accuracy"], found["largest_box_accuracy"]) == (1, 0)
    assert found["inside_box"] == pytest.approx(16 / 316)


@pytest.mark.parametrize("box", [(3.0, 2.0, 17.0, 9.0), (2.6, 1.4, 9.5, 13.2), (0.0, 0.0, 23.0, 14.0)])
def test_official_box_against_pixels_drawn_one_by_one(box):
    soft = smooth_map(np.random.default_rng(3), (14, 23), 1.5).round(2)
    left, top, right, bottom = box
    inside = np.array([[left <= x + 0.5 < right and top <= y + 0.5 < bottom for x in range(23)] for y in range(14)])
    mask = soft >= 0.5
    best = {}
    for t in (0.5, *(k / 100 for k in range(101))):
        overlaps = [0.0]
        for rows, columns in ndimage.find_objects(ndimage.label(soft.astype(float) >= t, np.ones((3, 3)))[0]):
            height = max(0.0, min(bottom, rows.stop) - max(top, rows.start))
            width = max(0.0, min(right, columns.stop) - max(left, columns.start))
            own = (rows.stop - rows.start) * (columns.stop - columns.start)
            overlaps.append(height * width / ((bottom - top) * (right - left) + own - height * width))
        best[t] = max(overlaps)
    found = measured([boxed(soft, box)])
    assert found["official_box_accuracy"] == pytest.approx(np.mean([best[0.5] >= iou for iou in (0.3, 0.5, 0.7)]))
    expected = [max(best[t] >= iou for t in best) for iou in (0.3, 0.5, 0.7)]
    assert found["max_official_box_accuracy"] == pytest.approx(np.mean(expected))
    assert found["inside_box"] == pytest.approx((mask & inside).sum() / mask.sum())
    assert found["box_covered"] == pytest.approx(mask[inside].mean())


def test_official_box_mask_of_ones_is_the_floor():
    floor = measured([boxed(np.zeros((10, 20)), (0, 0, 12, 10))], "all_ones")
    assert floor["largest_box_accuracy"] == floor["box_covered"] == 1  # the whole image's box: IoU 0.6
    assert floor["official_box_accuracy"] == pytest.approx(2 / 3)
    assert floor["inside_box"] == pytest.approx(0.6)


def test_official_box_empty_mask_scores_zero_and_none_is_left_out():
    empty, without = boxed(np.zeros((9, 13)), (3, 2, 9, 5)), boxed(np.ones((9, 13)), None)
    assert measured([empty, without]) == dict.fromkeys(KEYS[:4], 0) | {"max_official_box_accuracy": 0}
    assert all(math.isnan(value) for value in measured([without]).values())
    no_evidence = boxed(np.ones((9, 13)), (3, 2, 9, 5), evidence=False)
    assert measured([no_evidence])["box_covered"] == 0


def test_official_box_unknown_key_or_floor_of_an_oracle_is_refused():
    for arguments in (("box_accuracy",), ("inside_box", "ones"), ("max_official_box_accuracy", "all_ones")):
        with pytest.raises(ConfigError, match="OfficialBox"):
            OfficialBox(*arguments)


def test_class_errors_and_confusions_by_hand():
    images = [((0,), (0,)), ((0,), (2,)), ((2,), (2,)), ((0,), (2,)), ((2,), (0,))]
    table = class_errors(("wren", "jay", "crow"), images)
    assert [(one["class"], one["images"], one["named"], one["errors"]) for one in table] == [
        ("wren", 3, 2, 2),
        ("jay", 0, 0, 0),
        ("crow", 2, 3, 1),
    ]
    assert [one["error"] for one in table] == [2 / 3, None, 1 / 2]
    assert table[0]["low"] < 2 / 3 < table[0]["high"]
    assert [tuple(one.values()) for one in confusions(("wren", "jay", "crow"), images)] == [
        ("wren", "wren", 1),
        ("wren", "crow", 2),
        ("crow", "wren", 1),
        ("crow", "crow", 1),
    ]


def test_class_errors_of_several_classes_counts_those_missed():
    table = class_errors(("wren", "jay"), [((0, 1), (0,)), ((1,), (0, 1)), ((), ())])
    assert [(one["images"], one["named"], one["errors"]) for one in table] == [(1, 2, 0), (2, 1, 1)]
