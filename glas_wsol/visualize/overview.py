# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Draws the best, the median and the worst tile of an evaluation, each beside the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from glas_wsol.transforms import read_mask, read_rgb
from glas_wsol.utils.csv_files import read_table
from glas_wsol.visualize.comparison_figure import Column, Line, draw_figure

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
    rows = [row for row in read_table(run / "evaluation.csv", fix="evaluate again")[1] if row.get("f1_foreground")]
    if not rows:
        return None
    rows.sort(key=lambda row: -_mean_f1(row))
    chosen = {"best": rows[0], "median": rows[len(rows) // 2], "worst": rows[-1]}
    lines = []
    for place, row in chosen.items():
        tile = read_rgb(row["image"])
        truth = read_mask(row["mask"], size=tile.shape[:2]) > report.get("mask_threshold", 0)
        found = read_mask(run / split / "masks" / f"{row['name']}.png") > 0
        wrong = "" if row["label"] == row["predicted"] else " (wrong)"
        said = f"said {row['class']}{wrong}, " if row["predicted"] else ""  # not every method names a class
        values = f"F1+ {float(row['f1_foreground']):.2f}, F1- {float(row['f1_background']):.2f}"
        name = f"{row['name']}, {row['label']}, {said}{values}"
        lines.append(Line(f"{place}, mean F1 {_mean_f1(row):.2f}", name, tile, truth, (found,)))
    caption = "Yellow: border of the region; faded: outside it. Images are ordered by the mean of F1+ and F1-."
    draw_figure(run / "overview.png", lines, [Column("found", "", "")], [caption])
    return Overview(run / "overview.png", chosen["median"]["name"])


def _mean_f1(row: dict[str, str]) -> float:
    return (float(row["f1_foreground"]) + float(row["f1_background"])) / 2
