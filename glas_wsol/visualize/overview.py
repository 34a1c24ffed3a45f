# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""One picture of an evaluation: its best, its median and its worst tile, each beside the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from glas_wsol.transforms import read_mask, read_rgb
from glas_wsol.utils.csv_cells import read_cells
from glas_wsol.writers.images import write_png

__all__ = ["Overview", "draw_overview"]


class Overview(NamedTuple):
    """Where the sheet is, and the name of the median tile."""

    path: Path
    median: str


def draw_overview(run: str | Path, report: Mapping[str, Any]) -> Overview | None:
    """Draw ``overview.png`` in a folder of evaluation results.

    Tiles are ordered by the mean of their F1+ and F1-, so that no good example can be picked.

    Args:
        run: holds ``evaluation.csv`` and ``<split>/masks``.
        report: the content of ``evaluation.json``: its split and mask threshold.

    Returns:
        The sheet, or None where no image has a true mask.
    """
    run, split = Path(run), report["split"]
    with (run / "evaluation.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in read_cells(file)[1] if row.get("f1_foreground")]
    if not rows:
        return None
    rows.sort(key=lambda row: -_mean_f1(row))
    chosen = {"best": rows[0], "median": rows[len(rows) // 2], "worst": rows[-1]}
    figure = Figure(figsize=(12, 8.4), layout="constrained")
    axes = figure.subplots(3, 3)
    for line, (place, row) in zip(axes, chosen.items(), strict=True):
        tile = read_rgb(row["image"])
        found = read_mask(run / split / "masks" / f"{row['name']}.png") > 0
        truth = read_mask(row["mask"]) > report.get("mask_threshold", 0)
        wrong = "" if row["label"] == row["predicted"] else " (wrong)"
        said = f", said {row['class']}{wrong}" if row["predicted"] else ""  # not every method names a class
        titles = (
            f"{place}, mean F1 {_mean_f1(row):.2f}: {row['name']}, {row['label']}",
            "truth",
            f"found{said}: F1+ {float(row['f1_foreground']):.2f}, F1- {float(row['f1_background']):.2f}",
        )
        for axis, region, title in zip(line, (None, truth, found), titles, strict=True):
            axis.imshow(tile if region is None else _fade(tile, region), interpolation="nearest")
            if region is not None and region.any() and not region.all():
                for colour, width in (("black", 2.4), ("#ffe600", 1.2)):
                    axis.contour(region, levels=[0.5], colors=[colour], linewidths=[width])
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()
    figure.supxlabel(
        "yellow: border of the region; faded: outside it. Tiles are ordered by the mean of F1+ and F1-.", size=9
    )
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    write_png(run / "overview.png", np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    return Overview(run / "overview.png", chosen["median"]["name"])


def _mean_f1(row: dict[str, str]) -> float:
    return (float(row["f1_foreground"]) + float(row["f1_background"])) / 2


def _fade(tile: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The tile with everything outside the mask faded towards grey, white glass too."""
    grey = tile @ np.array([0.299, 0.587, 0.114])
    faded = 0.35 * grey[..., None] + 0.65 * 190
    return np.where(mask[..., None], tile, np.broadcast_to(faded, tile.shape)).astype(np.uint8)
