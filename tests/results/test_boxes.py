# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Boxes around the parts of hand-drawn masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from glas_wsol.errors import ConfigError
from glas_wsol.results.boxes import Box, find_boxes


def drawn(*rows: str) -> tuple[np.ndarray, np.ndarray]:
    """A map in tenths from its drawing, a dot for 0, and the mask of what reaches 0.5."""
    decidable = np.float64([[0 if c == "." else int(c) for c in row] for row in rows]) / 10
    return decidable, decidable >= 0.5


def test_two_parts_by_hand():
    decidable, mask = drawn(
        ".......",
        "..57...",
        "..99...",
        "......6",
    )
    assert find_boxes(decidable, mask, 0) == (
        Box(x=2, y=1, width=2, height=2, area=4, score=pytest.approx(0.75)),
        Box(x=6, y=3, width=1, height=1, area=1, score=pytest.approx(0.6)),
    )


def test_a_corner_connects_and_a_gap_does_not():
    decidable, mask = drawn("5....5", ".5..5.", "......", "....5.")
    assert [(b.x, b.y, b.width, b.height, b.area) for b in find_boxes(decidable, mask, 0)] == [
        (0, 0, 2, 2, 2),
        (4, 0, 2, 2, 2),
        (4, 3, 1, 1, 1),
    ]


def test_the_border_ends_a_box_and_a_mask_of_ones_is_one():
    decidable, mask = drawn("9999", "9..9", "9..9")
    assert find_boxes(decidable, mask, 0) == (Box(0, 0, 4, 3, 8, pytest.approx(0.9)),)
    whole = np.ones((3, 5))
    assert find_boxes(whole, whole > 0) == (Box(0, 0, 5, 3, 15, 1.0),)


def test_box_hole_has_no_area_and_its_content_is_own_part():
    decidable, mask = drawn("55555", "5...5", "5.9.5", "5...5", "55555")
    assert find_boxes(decidable, mask, 0) == (Box(0, 0, 5, 5, 16, 0.5), Box(2, 2, 1, 1, 1, pytest.approx(0.9)))


def test_box_score_is_of_pixels_of_part_not_of_rectangle():
    decidable, mask = drawn("8.4", "8..", "8.6", "88.")  # the 6 touches the corner
    decidable[0, 2] = 0.49
    (box,) = find_boxes(decidable, mask, 0)
    assert (box.width, box.height, box.area) == (3, 4, 6)
    assert box.score == pytest.approx((5 * 0.8 + 0.6) / 6)


def test_boxes_are_sorted_by_area_score_top_and_left():
    decidable, mask = drawn("6.6.9.66", "........", "6.6.....")
    assert [(b.x, b.y) for b in find_boxes(decidable, mask, 0)] == [(6, 0), (4, 0), (0, 0), (2, 0), (0, 2), (2, 2)]


@pytest.mark.parametrize(("min_area", "areas"), [(0, [4, 2, 1]), (0.1, [4, 2]), (0.2, [4]), (0.21, []), (1, [])])
def test_boxes_below_minimum_share_are_left_out_at_it_are_kept(min_area, areas):
    decidable, mask = drawn("77..7", "77...", "....7", "7....")  # 20 px: 0.1 is 2 px, 0.2 is 4 px
    mask[2:, 4] = True
    mask[0, 4] = False
    assert [box.area for box in find_boxes(decidable, mask, min_area)] == areas


def test_the_default_is_a_thousandth_of_the_image():
    mask = np.zeros((40, 75), bool)  # 3000 px
    mask[0, :2], mask[20, 10:13] = True, True
    assert [(b.x, b.area) for b in find_boxes(mask * 1.0, mask)] == [(10, 3)]


def test_no_part_no_box():
    assert find_boxes(np.full((4, 7), 0.4), np.zeros((4, 7), bool)) == ()


def test_boxes_of_noise_agree_with_another_library():
    rng = np.random.default_rng(0)
    decidable = rng.random((31, 58), dtype=np.float32)
    mask = decidable > 0.72
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    expected = set()
    for k, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        size = (columns.stop - columns.start, rows.stop - rows.start)
        score = round(float(decidable[labels == k].astype(float).mean()), 9)
        expected.add((columns.start, rows.start, *size, int((labels == k).sum()), score))
    found = find_boxes(decidable, mask, 0)
    assert len(found) == count > 30
    assert {(b.x, b.y, b.width, b.height, b.area, round(b.score, 9)) for b in found} == expected
    assert [b.area for b in found] == sorted((b.area for b in found), reverse=True)


@pytest.mark.parametrize("min_area", [-0.001, 1.001, float("nan")])
def test_a_share_that_is_none_is_refused(min_area):
    with pytest.raises(ConfigError, match=r"min_box_area.*from 0 to 1"):
        find_boxes(np.zeros((2, 3)), np.zeros((2, 3), bool), min_area)


@pytest.mark.parametrize("mask", [np.zeros((3, 2), bool), np.zeros((2, 3), int), np.zeros((1, 2, 3), bool)])
def test_a_map_without_its_mask_is_refused(mask):
    with pytest.raises(ValueError, match="bool mask"):
        find_boxes(np.zeros((2, 3)), mask)
