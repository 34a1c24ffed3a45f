# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The reliability diagram: every bin where it belongs, nothing cut off, and a file that can be read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from PIL import Image

from glas_wsol.errors import OutputError
from glas_wsol.metrics.calibration import Reliability
from glas_wsol.visualize.reliability_diagram import draw_reliability

CLASSES = Reliability(
    confidence=np.array([0.6, 0.8, 0.95]),
    share=np.array([0.5, 1.0, 0.75]),
    low=np.array([0.2, 0.7, 0.4]),
    high=np.array([0.8, 1.0, 0.9]),
    count=np.array([6, 5, 7]),
    images=18,
    error=0.1534,
    interval=(0.08, 0.305),
)
MASK = replace(
    CLASSES,
    confidence=np.array([0.03, 0.5]),
    share=np.array([0.4, 0.55]),
    low=np.array([0.3, 0.5]),
    high=np.array([0.45, 0.7]),
    count=np.array([3_000_000, 1_200_000]),
    images=1,
)


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures drawn."""
    seen: list[Figure] = []
    init = Figure.__init__

    def keep(self, *args, **options):
        init(self, *args, **options)
        seen.append(self)

    monkeypatch.setattr(Figure, "__init__", keep)
    return seen


def test_every_bin_is_drawn_with_its_interval_and_its_count(tmp_path, figures):
    draw_reliability(tmp_path / "r.png", CLASSES, MASK, "minmax, $5, valid")
    upper_class, upper_mask, lower_class, lower_mask = figures[0].axes
    for upper, lower, found in ((upper_class, lower_class, CLASSES), (upper_mask, lower_mask, MASK)):
        (bars,) = (c for c in upper.containers if isinstance(c, ErrorbarContainer))
        points, _, (stems,) = bars
        assert points.get_xdata().tolist() == found.confidence.tolist()
        assert points.get_ydata().tolist() == found.share.tolist()
        ends = [segment[:, 1].tolist() for segment in stems.get_segments()]
        assert np.array(ends) == pytest.approx(np.stack([found.low, found.high], axis=1))
        assert [bar.get_height() for bar in lower.patches] == found.count.tolist()
        middles = [bar.get_x() + bar.get_width() / 2 for bar in lower.patches]
        assert middles == pytest.approx(found.confidence)
        assert upper.get_xlim()[0] <= 0 < 1 <= upper.get_xlim()[1]
        assert any(set(line.get_xdata()) == set(line.get_ydata()) == {0, 1} for line in upper.lines), "the diagonal"
    assert upper_class.get_title() == "Class: calibration error 15.3 % [8.0, 30.5], 18 images"
    assert upper_mask.get_title().endswith("1 image")
    assert figures[0].get_supxlabel() == "minmax, $5, valid"


def test_reliability_diagram_panels_differ_in_brightness(tmp_path, figures):
    draw_reliability(tmp_path / "r.png", CLASSES, MASK)
    with Image.open(tmp_path / "r.png") as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture)
    assert pixels.shape == (840, 1350, 3)
    inked = (pixels < 128).any(axis=2)
    assert inked[5:-5, 5:-5].any()
    for border in (inked[:3], inked[-3:], inked[:, :3], inked[:, -3:]):
        assert not border.any(), "nothing is cut off"
    colours = {ax.containers[0][0].get_color() for ax in figures[0].axes[:2]}
    markers = {ax.containers[0][0].get_marker() for ax in figures[0].axes[:2]}
    assert len(colours) == len(markers) == 2
    left = list(tmp_path.iterdir())
    assert left == [tmp_path / "r.png"]


def test_what_was_not_measured_is_said(tmp_path, figures):
    draw_reliability(tmp_path / "a.png", None, MASK)
    draw_reliability(tmp_path / "b.png", CLASSES, None)
    said = [[text.get_text() for ax in figure.axes for text in ax.texts] for figure in figures]
    assert said == [["the method names no class"], ["no evaluated image has a true mask"]]
    assert not figures[0].axes[0].containers


def test_a_users_own_style_changes_nothing(tmp_path):
    import matplotlib as mpl

    draw_reliability(tmp_path / "a.png", CLASSES, MASK)
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30}):
        draw_reliability(tmp_path / "b.png", CLASSES, MASK)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OutputError, match="make the folder first"):
        draw_reliability(tmp_path / "none" / "r.png", CLASSES, MASK)
