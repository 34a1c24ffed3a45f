# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Draws how often an answer of some confidence is right, for the class and for the mask's pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glas_wsol.errors import count
from glas_wsol.metrics.calibration import Reliability
from glas_wsol.visualize.comparison_figure import save_png

__all__ = ["draw_reliability"]

# Blue and vermilion of Okabe and Ito's palette, told apart with any colour vision; the markers differ too.
_BLUE, _VERMILION, _GREY = "#0072b2", "#d55e00", "#555560"
_CALIBRATED = "as sure as right"
_EMPTY = {"class": "the method names no class", "mask": "no evaluated image has a true mask"}
_WORDS = {  # title, axes, and what a bin holds
    "class": ("Class", "probability of the predicted class", "share of images classified right", "images"),
    "mask": ("Mask", "score of the soft mask", "share of pixels in the true foreground", "pixels"),
}


def draw_reliability(
    path: str | Path, classes: Reliability | None, mask: Reliability | None, caption: str = ""
) -> None:
    """Draw both panels, each over a panel of counts; the file is written atomically.

    A point is a bin, at its mean confidence, with the 95 % interval of its share; on the diagonal the answers are as
    often right as they are sure, below it they are too sure. The area of a point does not count: the bars below say how
    many images or pixels the bin holds.

    Args:
        path: the file, PNG, 150 dots an inch.
        classes: of the predicted class; None where the method names no class.
        mask: of the soft mask; None where no image has a true mask.
    """
    panels: Mapping[str, tuple[Reliability | None, str, str]] = {
        "class": (classes, _BLUE, "o"),
        "mask": (mask, _VERMILION, "s"),
    }
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own style must not make it unreadable
        figure = Figure(figsize=(9, 5.6), dpi=150, layout="constrained")
        axes = figure.subplots(2, 2, sharex="col", height_ratios=(3, 1))
        for (name, (found, colour, marker)), (upper, lower) in zip(panels.items(), axes.T, strict=True):
            _panel(upper, lower, name, found, colour, marker)
        if caption:
            figure.supxlabel(caption, size=8, color=_GREY, parse_math=False)
        save_png(path, figure)


def _panel(upper: Axes, lower: Axes, name: str, found: Reliability | None, colour: str, marker: str) -> None:
    title, sure, right, what = _WORDS[name]
    upper.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label=_CALIBRATED)
    upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel=right)
    lower.set(xlabel=sure, ylabel=what)
    upper.grid(color="0.9")
    upper.set_axisbelow(True)
    if found is None:
        upper.set_title(f"{title}: not measured", fontsize=10)
        upper.text(0.5, 0.4, _EMPTY[name], ha="center", color=_GREY)
        lower.set_yticks([])
        return
    error, low, high = (100 * value for value in (found.error, *found.interval))
    upper.set_title(
        f"{title}: calibration error {error:.1f} % [{low:.1f}, {high:.1f}], {count(found.images, 'image')}", fontsize=10
    )
    # An interval may end short of the share by rounding, or where bins of redrawn images never reach it.
    reach = np.maximum([found.share - found.low, found.high - found.share], 0)
    upper.errorbar(
        *(found.confidence, found.share),
        yerr=reach,
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=1.2,
        elinewidth=1,
        capsize=2.5,
        label="bins, with 95 % intervals",
        clip_on=False,
        zorder=3,
    )
    upper.legend(loc="upper left", fontsize=8, frameon=False)
    # Bars of equal width at the bins' means: bins of equal mass may lie close together.
    lower.bar(found.confidence, found.count, width=0.015, color=colour)
    lower.set_ylim(bottom=0)
    if name == "mask":
        lower.ticklabel_format(axis="y", style="sci", scilimits=(0, 3), useMathText=True)
    else:
        cast("Any", lower.yaxis.get_major_locator()).set_params(integer=True)
