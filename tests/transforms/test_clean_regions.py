# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from glas_wsol.errors import ConfigError
from glas_wsol.transforms.clean_regions import clean_regions


def drawn() -> np.ndarray:
    """A body with a hole of 6 px and a notch at the border, and a speck of 4 px; not square, not symmetric."""
    mask = np.full((12, 20), 0.1, np.float32)
    mask[2:9, 3:14] = 0.9
    mask[4:6, 5:8] = 0.3
    mask[7:9, 16:18] = 0.8
    return mask


def test_clean_regions_small_holes_are_raised_to_surroundings():
    mask = drawn()
    filled = clean_regions(mask, hole_area=7)
    expected = mask.copy()
    expected[4:6, 5:8] = 0.9
    np.testing.assert_allclose(filled, expected, atol=1e-5)
    assert np.array_equal(filled != mask, expected != mask)  # bit by bit the same elsewhere
    assert np.array_equal(clean_regions(mask, hole_area=6), mask)  # 6 px are not below 6 px


def test_clean_regions_small_specks_are_lowered_to_surroundings():
    mask = drawn()
    cleaned = clean_regions(mask, speck_area=5)
    expected = mask.copy()
    expected[7:9, 16:18] = 0.1
    np.testing.assert_allclose(cleaned, expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_clean_regions_at_any_threshold_equals_binary_cleaning(seed):
    soft = ndimage.gaussian_filter(np.random.default_rng(seed).random((41, 67)), 1.5)
    soft = ((soft - soft.min()) / (soft.max() - soft.min())).astype(np.float32)
    hole, speck = 25, 40
    cleaned = clean_regions(soft, hole, speck)
    for threshold in (0.3, 0.5, 0.7):
        mask = soft >= threshold
        for value, area in ((False, hole), (True, speck)):
            labels, count = ndimage.label(mask == value)
            sizes = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1))
            mask = np.where(np.isin(labels, 1 + np.flatnonzero(sizes < area)), not value, mask)
        near = np.abs(cleaned - threshold) < 1e-4  # the max-tree's levels are that wide
        assert np.array_equal((cleaned >= threshold)[~near], mask[~near])


def test_clean_regions_area_zero_is_off_and_negative_is_refused():
    mask = drawn()
    assert clean_regions(mask) is mask
    for shape in ((1, 1), (2, 9), (9, 2), (3, 3)):
        assert clean_regions(np.ones(shape, np.float32), 4, 2).shape == shape
    with pytest.raises(ConfigError, match="give 0 or more"):
        clean_regions(mask, hole_area=-1)
