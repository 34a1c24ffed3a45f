# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import area_closing, area_opening

from glas_wsol.errors import ConfigError
from glas_wsol.transforms.clean_regions import clean_regions


def drawn() -> np.ndarray:
    """A body with a hole of 6 px and a notch at the border, and a speck of 4 px; not square, not symmetric."""
    mask = np.full((12, 20), 0.1, np.float32)
    mask[2:9, 3:14] = 0.9
    mask[4:6, 5:8] = 0.3
    mask[7:9, 16:18] = 0.8
    return mask


def test_clean_regions_holes_below_the_area_are_filled():
    expected = drawn() >= 0.5
    assert np.array_equal(clean_regions(drawn(), 0.5, hole_area=6), expected)  # 6 px are not below 6 px
    expected[4:6, 5:8] = True
    assert np.array_equal(clean_regions(drawn(), 0.5, hole_area=6.5), expected)
    assert np.array_equal(clean_regions(drawn(), 0.3), drawn() >= 0.25)  # a value on the threshold is inside


def test_clean_regions_parts_below_the_area_are_removed():
    expected = drawn() >= 0.5
    assert np.array_equal(clean_regions(drawn(), 0.5, speck_area=4), expected)
    expected[7:9, 16:18] = False
    assert np.array_equal(clean_regions(drawn(), 0.5, speck_area=5), expected)


def test_clean_regions_pixels_that_touch_by_corners_are_apart():
    body = np.ones((5, 6), bool)
    body[1, 1] = body[2, 2] = False
    assert clean_regions(body, 0.5, hole_area=2).all(), "two holes of 1 px, none of 2"
    assert not clean_regions(~body, 0.5, speck_area=2).any()


def test_clean_regions_a_hole_is_filled_before_specks_go():
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    image = np.pad(ring, ((1, 4), (2, 3)))
    assert np.array_equal(clean_regions(image, 0.5, 2, 9), np.pad(np.ones((3, 3), bool), ((1, 4), (2, 3))))
    assert not clean_regions(image, 0.5, 0, 9).any()


@pytest.mark.parametrize("levels", [4, 255], ids=lambda levels: f"{levels} levels")
@pytest.mark.parametrize("blur", [0.0, 1.5])
def test_clean_regions_equals_the_max_tree_at_the_threshold(blur, levels):
    """Plateaus of few levels; parts at all four borders, and such as touch by corners only."""
    random = np.random.default_rng(int(blur * 10) + levels)
    corners = 0
    for shape in ((3, 4), (31, 47)):
        soft = ndimage.gaussian_filter(random.random(shape), blur)
        soft = np.rint((soft - soft.min()) / np.ptp(soft) * levels).astype(np.uint8)
        for hole, speck in ((0, 7), (12, 0), (25, 40), (500, 3), (3, 5000)):
            closed = area_closing(soft, hole, connectivity=1) if hole else soft
            reference = area_opening(closed, speck, connectivity=1) if speck else closed
            for level in {1, levels // 2, levels - 1, levels}:
                mask = clean_regions(soft, level, hole, speck)
                assert np.array_equal(mask, reference >= level), (shape, hole, speck, level)
            other = area_closing(soft, hole, connectivity=2) if hole else soft
            corners += np.count_nonzero(reference != (area_opening(other, speck, connectivity=2) if speck else other))
    assert corners or blur, "which pixels touch must matter"


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (9, 2)])
def test_clean_regions_images_of_any_size_are_cleaned(shape):
    assert clean_regions(np.ones(shape, np.float32), 0.5, 100, 1).all()
    assert not clean_regions(np.ones(shape, np.float32), 0.5, 0, 100).any()


def test_clean_regions_areas_of_zero_do_nothing_and_negative_are_refused():
    soft = np.random.default_rng(0).random((9, 14))
    before = soft.copy()
    assert np.array_equal(clean_regions(soft, 0.4), soft >= 0.4)
    clean_regions(soft, 0.4, 5, 5)
    assert np.array_equal(soft, before)
    for areas in ((-1, 0), (0, -1)):
        with pytest.raises(ConfigError, match="give 0 or more"):
            clean_regions(soft, 0.5, *areas)
