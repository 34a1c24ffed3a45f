# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Hausdorff distances against the definition over all pairs of pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from glas_wsol.metrics.shapes import ObjectShapes
from tests.metrics.conftest import smooth_map


def hausdorff_distance(a: np.ndarray, b: np.ndarray) -> float:
    return ObjectShapes(a.astype(np.uint8), b.astype(np.uint8)).distance(0, 0, 0)


def direct(a: np.ndarray, b: np.ndarray) -> float:
    d = cdist(np.argwhere(a), np.argwhere(b))
    return max(d.min(axis=0).max(), d.min(axis=1).max())


def test_by_hand():
    a, b = np.zeros((2, 9, 20), dtype=bool)
    a[2:5, 3:9] = True  # rows 2-4, columns 3-8
    b[3, 12] = True
    assert hausdorff_distance(a, b) == math.hypot(9, 1)  # from the far corner (2, 3)
    b[4, 4] = True
    assert hausdorff_distance(a, b) == math.hypot(4, 1)  # from (2, 8), now, to (3, 12)
    assert hausdorff_distance(a, a) == 0


def test_the_farthest_pixel_may_lie_inside():
    disc = np.hypot(*np.mgrid[-12:13, -15:16]) <= 10
    ring = disc & (np.hypot(*np.mgrid[-12:13, -15:16]) > 7)
    assert hausdorff_distance(disc, ring) == hausdorff_distance(ring, disc) == direct(disc, ring) > 7


@pytest.mark.parametrize("scale", [0, 1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_of_any_two_sets_it_is_the_definitions(seed, scale):
    random = np.random.default_rng(seed)
    a, b = (smooth_map(random, (23, 41), scale) > random.uniform(0.45, 0.7) for _ in range(2))
    a[random.integers(23), random.integers(41)] = b[random.integers(23), random.integers(41)] = True
    assert hausdorff_distance(a, b) == pytest.approx(direct(a, b), rel=1e-12)


def test_object_without_partner_uses_nearest_by_hausdorff():
    truth, found = np.zeros((2, 30, 60), dtype=np.int64)
    truth[2, 2] = 1
    found[2, 8:50] = 1  # begins 6 away and ends 47 away
    found[20, 2] = 2  # one pixel, 18 away: nearer, as a shape
    shapes = ObjectShapes(truth, found)
    assert shapes.distance(0, 0, -1) == 18
    assert shapes.distance(0, 0, 0) == 47
    assert shapes.distance(1, 0, -1) == 47
    assert ObjectShapes(truth, np.zeros_like(truth)).distance(0, 0, -1) == math.hypot(30, 60)
