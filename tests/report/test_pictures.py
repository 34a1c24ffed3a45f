# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Outlines fill to the mask again, and stay short whatever the mask; charts keep every point inside their frame."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.draw import polygon2mask

from glas_wsol.report.curves import chart, nice_ticks
from glas_wsol.report.pictures import outline
from glas_wsol.report.run_folder import Series

H, W = 180, 270


def filled(path: str, shape: tuple[int, int]) -> np.ndarray:
    """Rings of SVG path data, filled by the rule evenodd."""
    mask = np.zeros(shape, bool)
    for ring in re.findall(r"M([^z]*)z", path):
        start, steps = ring.split("l")
        points = np.cumsum([[int(v) for v in start.split()], *np.array(steps.split(), int).reshape(-1, 2)], axis=0)
        mask ^= polygon2mask(shape, points[:, ::-1] - 0.5)
    return mask


def glands(seed: int, sigma: float) -> np.ndarray:
    return gaussian_filter(np.random.default_rng(seed).normal(size=(H, W)), sigma) > 0


@pytest.mark.parametrize("sigma", [12, 6])
def test_outlines_with_holes_and_borders_fill_to_the_mask(sigma):
    mask = glands(3, sigma)
    mask[:40, :60] = True
    mask[10:25, 12:44] = False
    found = filled(outline(mask, 6000), mask.shape)
    assert (found & mask).sum() / (found | mask).sum() > 0.97
    assert not found[14:21, 16:40].any(), "the hole stays one"
    assert found[0, :50].all()
    assert found[-1].sum() == pytest.approx(mask[-1].sum(), abs=6)


def test_outlines_of_nothing_and_of_everything():
    assert outline(np.zeros((H, W), bool), 800) == ""
    assert outline(np.ones((H, W), bool), 800) == f"M0 0l{W} 0 0 {H} -{W} 0z"
    speck = np.zeros((H, W), bool)
    speck[5:7, 8:10] = True
    assert outline(speck, 800) == ""
    assert outline(~speck, 800) == f"M0 0l{W} 0 0 {H} -{W} 0z"


@pytest.mark.parametrize("limit", [800, 4000])
def test_outlines_of_noise_are_short_and_still_of_the_mask(limit):
    mask = glands(1, 20)
    path = outline(mask ^ (np.random.default_rng(2).random((H, W)) < 0.3), limit)
    assert 0 < len(path) <= limit
    found = filled(path, (H, W))
    assert (found & mask).sum() / (found | mask).sum() > 0.6
    assert len(outline(np.random.default_rng(2).random((H, W)) < 0.5, limit)) <= limit


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (0.31, 0.34), (-3, 900), (5, 5), (0, 0), (1e-9, 2e-9), (-0.07, 0.02), (1, 400), (1e5, 1e5 + 1)],
)
def test_ticks_are_round_few_and_enclose_the_range(low, high):
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert ticks[0] <= low <= high <= ticks[-1]
    steps = np.diff(ticks)
    assert steps == pytest.approx(steps[0])
    digits = steps[0] / 10.0 ** np.floor(np.log10(steps[0]) + 1e-9)
    assert min(abs(digits - nice) for nice in (1, 2, 5)) < 1e-4


@pytest.mark.parametrize(
    "points", [((1, 2.0),), ((3, 0.5), (4, 0.25), (9, 4.0)), tuple((e, 1 / e) for e in range(1, 401))]
)
def test_a_chart_shows_every_point_inside_its_frame(points):
    drawn = chart(Series("loss", "Loss", points), chosen=points[-1][0])
    left, top, right, bottom = drawn.frame
    places = [tuple(map(float, place.split(","))) for place in drawn.line.split()]
    assert len(places) == len(points)
    assert all(left <= x <= right and top <= y <= bottom for x, y in places)
    assert drawn.mark == places[-1][0]
    assert bool(drawn.dots) == (len(points) <= 40)
    if len(points) > 1:
        values = [value for _, value in points]
        assert places[int(np.argmax(values))][1] == min(y for _, y in places), "larger is higher"
    assert chart(Series("loss", "Loss", points), chosen=999).mark is None
