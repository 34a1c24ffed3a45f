# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What the metrics read of an item."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glas_wsol.metrics.items import components, score_levels, soft_map, true_objects
from tests.metrics.conftest import item


@pytest.mark.parametrize("steps", [100, 1000])
def test_a_score_has_the_level_of_the_last_threshold_it_reaches(steps):
    grid = np.arange(steps + 1) / steps
    near = np.concatenate([grid, np.random.default_rng(0).random(2000)]).astype(np.float32)
    near = np.concatenate([near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(1))])
    near = near.astype(np.float64).clip(0, 1)
    expected = (near[:, None] >= grid[None]).sum(axis=1) - 1
    assert score_levels(near, steps).tolist() == expected.tolist()
    assert score_levels(np.array([0.0, 1.0]), steps).tolist() == [0, steps]


def test_parts_touch_at_corners():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]], dtype=bool)
    assert components(mask).tolist() == [[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 0]]


def test_true_objects_are_of_item_or_parts_of_its_truth():
    truth = np.array([[1, 1, 0, 1], [0, 0, 0, 1]])
    own = np.array([[7, 3, 0, 7], [0, 0, 0, 7]])
    assert true_objects(item(truth, truth, own)).tolist() == own.tolist()
    tensor = item(truth, truth) | {"truth_objects": torch.from_numpy(own).int()}
    assert true_objects(tensor).tolist() == own.tolist()
    assert true_objects(item(truth, truth)).tolist() == [[1, 1, 0, 2], [0, 0, 0, 2]]
    assert true_objects(item(truth)) is None


def test_the_soft_map_is_nothing_without_evidence():
    soft = np.array([[0.25, 1.0]])
    assert soft_map(item(soft)).tolist() == [[0.25, 1.0]]
    assert soft_map(item(soft, evidence=False)).tolist() == [[0, 0]]
    assert soft_map(item([[-1e-6, 1 + 1e-6]])).tolist() == [[0, 1]]  # 1 - R- of a softmax may be a rounding error off
