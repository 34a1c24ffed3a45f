# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Measures each gland of a result: its size and shape, its lumen, and how sure the model is of it."""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from skimage.measure import label, perimeter_crofton, regionprops

from glas_wsol.results.localization import Localization
from glas_wsol.results.tissue_presence import is_pale
from glas_wsol.utils.csv_files import write_csv

__all__ = ["GLAND_COLUMNS", "gland_rows", "write_glands"]

GLAND_COLUMNS = (
    *("path", "gland", "x", "y", "area_px", "area_um2", "perimeter_px", "perimeter_um", "circularity", "solidity"),
    *("lumen_share", "mean_decidable", "uncertainty", "touches_border", "class", "probability", "name"),
)
"""Of a table of glands."""


def gland_rows(found: Localization) -> list[dict[str, Any]]:
    """One row for each part of the mask that has a box, in the order of the boxes; texts and numbers for a table.

    Returns:
        :data:`GLAND_COLUMNS`: ``gland``, from 1; ``x`` and ``y``, its centre in px; ``area_px`` without its holes, and
        ``area_um2``; ``perimeter_px`` of its outer outline (Crofton's formula, four directions), and ``perimeter_um``;
        ``circularity``, 4 pi area / perimeter^2 with its holes filled, at most 1 (a disc); ``solidity``, the area's
        share of its convex hull; ``lumen_share``, of its area with holes filled the share that is hole or as pale as
        glass; ``mean_decidable``, the mean of ``R+``; ``uncertainty``, the mean entropy of ``R+`` in [0, 1];
        ``touches_border``, whether it is cut off by the image's border, 1 or 0; the image's ``class`` and its
        ``probability`` (a gland has none of its own). Empty where there is no value.
    """
    pale = None if found.image is None else is_pale(found.image)
    side = None if found.mpp is None else math.sqrt(found.mpp[0] * found.mpp[1])
    numbers = {(box.x, box.y, box.width, box.height, box.area): place for place, box in enumerate(found.boxes, start=1)}
    rows = {}
    for part in regionprops(label(found.mask, connectivity=2)):
        top, left, bottom, right = part.bbox  # half-open
        number = numbers.get((left, top, right - left, bottom - top, int(part.area)))
        if number is None:
            continue
        own, filled = part.image, part.image_filled
        outline = float(perimeter_crofton(filled))
        area, whole = int(part.area), int(filled.sum())
        square = found.square_micrometres(area)
        lumen = None if pale is None else float((filled & (pale[part.slice] | ~own)).sum() / whole)
        rows[number] = {
            "path": found.path,
            "gland": number,
            "x": f"{part.centroid[1]:.2f}",
            "y": f"{part.centroid[0]:.2f}",
            "area_px": area,
            "area_um2": "" if square is None else f"{square:.6g}",
            "perimeter_px": f"{outline:.6g}",
            "perimeter_um": "" if side is None else f"{outline * side:.6g}",
            "circularity": f"{min(1.0, 4 * math.pi * whole / outline**2):.6f}",
            "solidity": f"{area / part.area_convex:.6f}",
            "lumen_share": "" if lumen is None else f"{lumen:.6f}",
            "mean_decidable": f"{found.decidable[part.slice][own].mean(dtype=np.float64):.6f}",
            "uncertainty": f"{found.uncertainty[part.slice][own].mean(dtype=np.float64):.6f}",
            "touches_border": int(0 in (top, left) or bottom == found.size[0] or right == found.size[1]),
            "class": found.class_name,
            "probability": "" if found.probability is None else f"{found.probability:.6f}",
            "name": found.name,
        }
    return [rows[number] for number in sorted(rows)]


def write_glands(path: str | PathLike[str], found: Localization) -> None:
    """Write :func:`gland_rows` as a CSV table; an OutputError if it cannot be written."""
    write_csv(Path(path), gland_rows(found), GLAND_COLUMNS)
