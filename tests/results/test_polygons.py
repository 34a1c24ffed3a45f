# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Outlines give the mask back when they are filled in, and are valid polygons to an independent judge."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import polygon2mask

from glas_wsol.results.boxes import find_boxes
from glas_wsol.results.polygons import mask_parts, trace_polygons


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def filled(polygons, shape) -> np.ndarray:
    """How often each pixel's centre is inside, holes taken off: an independent rasterizer."""
    count = np.zeros(shape, int)
    for polygon in polygons:
        for index, ring in enumerate(polygon):
            corners = np.array(ring, float)[:, ::-1] - 0.5  # whole numbers are pixel centres there, edges here
            count += (1 if index == 0 else -1) * polygon2mask(shape, corners)
    return count


CASES = {
    "one pixel": mask_of("....", ".#..", "...."),
    "one pixel that is the image": mask_of("#"),
    "a row": mask_of("####"),
    "a column": mask_of("#", "#"),
    "empty": mask_of("...", "..."),
    "full": np.ones((3, 5), bool),
    "touches all borders": mask_of("#...#", "#####", "..#.."),
    "hole": mask_of("####", "#..#", "####"),
    "a part in a hole": mask_of("#####", "#...#", "#.#.#", "#...#", "#####"),
    "pixels that touch by a corner": mask_of("#.", ".#"),
    "the same, mirrored": mask_of(".#", "#."),
    "a hole that reaches outside by a corner": mask_of("###.", "#.#.", "##..", "...."),
    "the same at another corner": mask_of(".##", "#.#", "###"),
    "two holes that touch by a corner": mask_of("####.", "#.###", "##.##", "#####"),
    "a ring of holes around a part": mask_of("#####", "##.##", "#.#.#", "##.##", "#####"),
    "a chessboard": np.indices((5, 6)).sum(0) % 2 == 0,
}


@pytest.mark.parametrize("mask", CASES.values(), ids=CASES.keys())
def test_filling_in_gives_the_mask_again(mask):
    np.testing.assert_array_equal(filled(trace_polygons(mask), mask.shape), mask.astype(int))
    parts = [polygon for part in mask_parts(mask) for polygon in part.polygons]
    np.testing.assert_array_equal(filled(parts, mask.shape), mask.astype(int))


def test_rings_by_hand():
    assert trace_polygons(mask_of("...", ".##")) == [[[(1, 1), (3, 1), (3, 2), (1, 2), (1, 1)]]]
    (polygon,) = trace_polygons(CASES["hole"])
    assert polygon == [[(0, 0), (4, 0), (4, 3), (0, 3), (0, 0)], [(1, 2), (3, 2), (3, 1), (1, 1), (1, 2)]]
    first, second = trace_polygons(CASES["pixels that touch by a corner"])
    assert first == [[(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]]
    assert second == [[(1, 1), (2, 1), (2, 2), (1, 2), (1, 1)]]


@pytest.mark.parametrize(("name", "holes"), [("hole", 1), ("two holes that touch by a corner", 2), ("full", 0)])
def test_holes_are_kept_one_by_one(name, holes):
    (polygon,) = trace_polygons(CASES[name])
    assert len(polygon) == 1 + holes


def test_a_hole_that_reaches_outside_by_a_corner_stays_a_hole():
    for name in ("a hole that reaches outside by a corner", "the same at another corner"):
        (polygon,) = trace_polygons(CASES[name])
        assert len(polygon) == 2
        for ring in polygon:
            assert len(set(ring)) == len(ring) - 1, "no corner twice but the closing one"


def random_masks():
    random = np.random.default_rng(0)
    for _ in range(150):
        yield random.random(tuple(random.integers(1, 15, 2))) < random.random()
    smooth = random.random((60, 97))
    for _ in range(3):  # blobs with holes, as masks are
        smooth = (smooth + np.roll(smooth, 1, 0) + np.roll(smooth, 1, 1) + np.roll(smooth, -2, 1)) / 4
    yield smooth > np.median(smooth)


def test_random_masks_come_back_and_their_polygons_are_valid():
    geometry = pytest.importorskip("shapely.geometry")
    for mask in random_masks():
        np.testing.assert_array_equal(filled(trace_polygons(mask), mask.shape), mask.astype(int))
        for part in mask_parts(mask):
            shape = geometry.MultiPolygon([(outer, holes) for outer, *holes in part.polygons])
            assert shape.is_valid
            assert shape.area == part.area == part.pixels.sum()
            for polygon in shape.geoms:
                assert polygon.exterior.is_ccw
                assert not any(hole.is_ccw for hole in polygon.interiors)


def test_no_corner_lies_on_a_straight_line():
    for mask in random_masks():
        for polygon in trace_polygons(mask):
            for ring in polygon:
                steps = np.diff(np.array([*ring, ring[1]]), axis=0)
                assert ((steps == 0).sum(axis=1) == 1).all(), "along the pixels' edges"
                assert ((steps[1:] * steps[:-1]).sum(axis=1) == 0).all(), "a turn at every corner"


def test_parts_are_those_of_the_boxes():
    for mask in random_masks():
        parts = {(part.area, part.region[0].start, part.region[1].start) for part in mask_parts(mask)}
        assert parts == {(box.area, box.y, box.x) for box in find_boxes(mask.astype(np.float32), mask, 0)}


def test_a_part_names_its_first_pixel_and_its_place():
    first, second = mask_parts(mask_of("..#.", "##..", "...#"))  # the first hangs together by a corner only
    assert (first.row, first.column, first.area, len(first.polygons)) == (0, 2, 3, 2)
    assert first.region == (slice(0, 2), slice(0, 3))
    np.testing.assert_array_equal(first.pixels, mask_of("..#", "##."))
    assert (second.row, second.column, second.area) == (2, 3, 1)
    assert second.polygons == [[[(3, 2), (4, 2), (4, 3), (3, 3), (3, 2)]]]


@pytest.mark.parametrize("mask", [np.zeros((3, 3)), np.zeros((1, 3, 3), bool), np.zeros((0, 3), bool)])
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(ValueError, match="bool mask"):
        trace_polygons(mask)
    with pytest.raises(ValueError, match="bool mask"):
        list(mask_parts(mask))
