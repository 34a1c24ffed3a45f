# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""One picture of an evaluation: its best, its median and its worst tile, each beside the truth."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from glas_wsol.transforms import read_mask, read_rgb
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
        rows = [row for row in csv.DictReader(file) if row.get("f1_foreground")]
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
        titles = (
            f"{place}: {row['name']}, {row['label']}",
            "true outlines",
            f"decidable, said {row['class']}: "
            f"F1+ {float(row['f1_foreground']):.2f}, F1- {float(row['f1_background']):.2f}",
        )
        for axis, picture, title in zip(line, (tile, _dim(tile, truth), _dim(tile, found)), titles, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_title(title, fontsize=10)
            axis.set_axis_off()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    write_png(run / "overview.png", np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    return Overview(run / "overview.png", chosen["median"]["name"])


def _mean_f1(row: dict[str, str]) -> float:
    return (float(row["f1_foreground"]) + float(row["f1_background"])) / 2


def _dim(tile: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The tile with everything outside the mask faded to near white."""
    return np.where(mask[..., None], tile, 225 + tile // 9).astype(np.uint8)
