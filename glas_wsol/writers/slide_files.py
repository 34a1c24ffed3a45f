# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes the result of a slide: its formats, overlay, tables and entry, into a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glas_wsol.errors import ConfigError
from glas_wsol.results.how_to_read import reading_guide
from glas_wsol.results.slide_localization import SlideLocalization
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.utils.csv_files import write_csv
from glas_wsol.writers.dicom_seg import check_slide_is_dicom, require_highdicom, write_slide_seg
from glas_wsol.writers.drawing import overlay as draw
from glas_wsol.writers.drawing import write_png
from glas_wsol.writers.slide_geojson import write_slide_geojson
from glas_wsol.writers.slide_tiff import write_pyramid

__all__ = ["SLIDE_FORMATS", "check_slide", "check_slide_formats", "slide_entry", "slide_row", "write_slide"]


def _write_tiff(folder: Path, found: SlideLocalization) -> None:
    write_pyramid(folder / "mask.tif", found.mask, found.mpp)
    write_pyramid(folder / "map.tif", found.decidable, found.mpp)


def _write_tables(folder: Path, found: SlideLocalization) -> None:
    write_csv(folder / "parts.csv", part_rows(found), _PART_COLUMNS)
    write_csv(folder / "classes.csv", class_rows(found), ("x", "y", "width", "height", *found.classes))


SLIDE_FORMATS: Mapping[str, Callable[[Path, SlideLocalization], None]] = {
    "tiff": _write_tiff,
    "ome_tiff": lambda folder, found: write_pyramid(folder / "mask.ome.tif", found.mask, found.mpp, ome=True),
    "geojson": lambda folder, found: write_slide_geojson(folder / "outlines.geojson", found),
    "geojson_exact": lambda folder, found: write_slide_geojson(folder / "outlines_exact.geojson", found, exact=True),
    "csv": _write_tables,
    "dicom": lambda folder, found: write_slide_seg(folder / "mask.dcm", found),
}
"""What a slide is written as."""

_USUAL = ("tiff", "geojson", "csv")
_PART_COLUMNS = ("part", "class", "x", "y", "box_x", "box_y", "box_width", "box_height", "area_um2", "score")


def check_slide_formats(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Which formats slides are written in; None is those that one usually wants.

    Raises:
        ConfigError: on one that makes no sense for a slide.
    """
    chosen = _USUAL if names is None else tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    for name in chosen:
        if name not in SLIDE_FORMATS:
            raise ConfigError(f"a slide is not written as {name!r}", "--formats", f"choose {', '.join(SLIDE_FORMATS)}")
    if "dicom" in chosen:
        require_highdicom()
    return chosen


def check_slide(path: str, formats: Sequence[str]) -> None:
    """Refuse a slide that cannot be written in a format, before it is localized, by an ImageFileError."""
    if "dicom" in formats:
        check_slide_is_dicom(path)


def write_slide(folder: Path, found: SlideLocalization, formats: Sequence[str], overlay: bool = True) -> None:
    """Write formats, overlay, the small pictures that a report shows, and ``slide.json``.

    Args:
        folder: of this slide alone.
        formats: of :data:`SLIDE_FORMATS`.
        overlay: whether to draw the overlay.
    """
    for name in formats:
        SLIDE_FORMATS[name](folder, found)
    small, height, width = found.small_mask, *found.thumbnail.shape[:2]
    per_pixel = found.mpp[0] * found.size[1] / width, found.mpp[1] * found.size[0] / height
    write_png(folder / "thumbnail.png", found.thumbnail, per_pixel)
    write_png(folder / "thumbnail_mask.png", small, per_pixel)
    if overlay:
        write_png(folder / "overlay.png", _overlay(found, small), per_pixel)
    with atomic_write(folder / "slide.json", "w", newline="\n") as file:
        json.dump(slide_entry(found), file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def _overlay(found: SlideLocalization, small: np.ndarray) -> np.ndarray:
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in found.class_shares.items())
    alarm = found.provenance.alarm if found.provenance else None
    area = found.square_micrometres(found.decidable_area) / 1e6
    notes = [found.trained_on, f"{found.tissue:.3g} mm2 of tissue, {area:.3g} mm2 decidable"]
    notes += [str(alarm)] if alarm is not None else []
    return draw(
        found.thumbnail,
        small.astype(np.float32),
        small,
        (f"decidable area: {shares}" if shares else "no class named") if found.evidence else "no evidence",
        found.name,
        evidence=found.evidence,
        threshold=found.threshold,
        notes=notes if found.evidence else [f"reason: {found.reason}", *notes],
        guide=reading_guide(None, len(found.classes), multi_label=False) if found.evidence else (),
        whole="slide",
    )


def slide_row(found: SlideLocalization) -> dict[str, Any]:
    """The table row of a slide.

    Returns:
        Columns ``path``, ``class`` (of most of the decidable area), ``tissue_mm2``, ``decidable_mm2``, ``share: CLASS``
        of the decidable area, ``parts``, ``cells`` (read) and ``all_cells``, ``level`` (that was read), ``mpp`` at
        level 0 with ``mpp_from``, ``network_mpp``, ``trained_on``, ``reason`` (why there is no evidence) and ``name``.
    """
    shares = found.class_shares
    return {
        "path": found.path,
        "class": found.class_name,
        "tissue_mm2": f"{found.tissue:.6g}",
        "decidable_mm2": f"{found.square_micrometres(found.decidable_area) / 1e6:.6g}",
        **{f"share: {name}": f"{shares[name]:.6f}" if shares else "" for name in found.classes},
        "parts": len(found.parts),
        "cells": found.cells,
        "all_cells": found.all_cells,
        "level": found.level,
        "mpp": " x ".join(f"{side:.6g}" for side in dict.fromkeys(found.slide_mpp)),
        "mpp_from": found.mpp_from,
        "network_mpp": f"{found.mpp[0]:.6g}",
        "trained_on": found.trained_on,
        "reason": found.reason,
        "name": found.name,
    }


def slide_entry(found: SlideLocalization) -> dict[str, Any]:
    """The JSON entry of a slide: its row with numbers as numbers, and what it was made with."""
    height, width = found.size
    return {
        "path": found.path,
        "name": found.name,
        "class": found.class_name,
        "probabilities": {},
        "class_shares": {name: round(share, 6) for name, share in found.class_shares.items()},
        "tissue_mm2": round(found.tissue, 6),
        "decidable_mm2": round(found.square_micrometres(found.decidable_area) / 1e6, 6),
        "decidable_fraction": round(found.decidable_fraction, 6),
        "evidence": found.evidence,
        "reason": found.reason,
        "threshold": found.threshold,
        "width": found.slide_size[0],
        "height": found.slide_size[1],
        "mask_width": width,
        "mask_height": height,
        "parts": len(found.parts),
        "cells": found.cells,
        "all_cells": found.all_cells,
        "level": found.level,
        "mpp": list(found.slide_mpp),
        "mpp_from": found.mpp_from,
        "mask_mpp": [round(side, 6) for side in found.mpp],
        "bounds_corner": list(found.corner),
        "class_window_px": found.window,
        "trained_on": found.trained_on,
        **(found.provenance.entry() if found.provenance else {}),
    }


def part_rows(found: SlideLocalization) -> list[dict[str, Any]]:
    """A row for each part; positions are px of the slide's level 0, relative to its bounds."""
    across, down = found.step
    rows = []
    for number, part in enumerate(found.parts, start=1):
        x, y, width, height = part.box
        row = {
            "part": number,
            "class": "" if part.label is None else found.classes[part.label],
            "x": f"{part.centre[0] * across:.1f}",
            "y": f"{part.centre[1] * down:.1f}",
            "box_x": f"{x * across:.1f}",
            "box_y": f"{y * down:.1f}",
            "box_width": f"{width * across:.1f}",
            "box_height": f"{height * down:.1f}",
            "area_um2": f"{found.square_micrometres(part.area):.6g}",
            "score": f"{part.mean:.6f}",
        }
        chances = zip(found.classes, part.probabilities or [None] * len(found.classes), strict=True)
        rows.append(row | {f"probability: {name}": "" if p is None else f"{p:.6f}" for name, p in chances})
    return rows


def class_rows(found: SlideLocalization) -> list[dict[str, Any]]:
    """A row for each window with something decidable: where it lies at level 0, and how probable each class is."""
    if found.class_map is None:
        return []
    (across, down), side = found.step, found.window
    return [
        {
            "x": f"{column * side * across:.1f}",
            "y": f"{row * side * down:.1f}",
            "width": f"{side * across:.1f}",
            "height": f"{side * down:.1f}",
            **{name: f"{p:.6f}" for name, p in zip(found.classes, found.class_map[row, column].tolist(), strict=True)},
        }
        for row, column in zip(*np.nonzero(np.isfinite(found.class_map[..., 0])), strict=True)
    ]
