# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Fill in outlines as QuPath and this package write them: the mask of a GeoJSON file, corrected by hand or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from skimage.draw import polygon2mask

from glas_wsol.errors import ImageFileError

__all__ = ["MAX_CORNERS", "read_outlines"]

MAX_CORNERS = 5_000_000
"""Corners of all outlines together, of more than 10 GlaS tiles of noise."""

_LARGEST = 500_000_000  # bytes
_FARTHEST = 1e9  # pixels from the corner
_FIX = "export it again from QuPath as a FeatureCollection of polygons, in pixels"


def read_outlines(path: str | PathLike[str], height: int, width: int) -> np.ndarray:
    """Fill in every polygon of a GeoJSON file, but for those that are classified as undecidable.

    Positions are in pixels, as :func:`~glas_wsol.writers.geojson.write_geojson` and QuPath write them: x to the right,
    y down, (0, 0) the upper left corner of the first pixel. A pixel is inside if its centre is; holes are left out, and
    what overlaps is inside once. Parts beyond the image are cut off.

    Args:
        path: a FeatureCollection, a Feature, or a list of features, with Polygons and MultiPolygons.
        height: of the image in pixels.
        width: of it.

    Returns:
        ``[H, W]`` bool.

    Raises:
        ImageFileError: if the file cannot be read, is not such GeoJSON, has other geometries, or outlines that are not
            closed rings of finite numbers.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST:
            raise ImageFileError("too large for outlines", path, "leave out what is not needed")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())[:100] or type(error).__name__
        raise ImageFileError(f"cannot be read as GeoJSON ({said})", path, _FIX) from error
    try:
        polygons = [polygon for feature in _features(content) for polygon in _polygons(feature)]
    except _FaultError as fault:
        raise ImageFileError(str(fault), path, _FIX) from None
    if sum(len(ring) for polygon in polygons for ring in polygon) > MAX_CORNERS:
        raise ImageFileError(f"more than {MAX_CORNERS} corners", path, "simplify the outlines")
    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        _fill(mask, polygon)
    return mask


class _FaultError(Exception):
    """What is wrong with a part of the file."""


def _features(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    elif isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise _FaultError("no FeatureCollection")
    for number, feature in enumerate(content, start=1):
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            raise _FaultError(f"entry {number} is no Feature")
        said = feature.get("properties")
        classified = said.get("classification") if isinstance(said, dict) else None
        name = classified.get("name") if isinstance(classified, dict) else None
        if name != "Undecidable":
            yield {"number": number, "geometry": feature.get("geometry")}


def _polygons(feature: dict[str, Any]) -> Iterator[list[np.ndarray]]:
    number, geometry = feature["number"], feature["geometry"]
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise _FaultError(f"feature {number} is no Polygon or MultiPolygon")
    found = geometry.get("coordinates")
    polygons = [found] if kind == "Polygon" else found
    if not isinstance(polygons, list) or not all(isinstance(polygon, list) and polygon for polygon in polygons):
        raise _FaultError(f"feature {number} has no coordinates")
    for polygon in polygons:
        yield [_ring(ring, number) for ring in polygon or ()]


def _ring(ring: Any, number: int) -> np.ndarray:
    if not isinstance(ring, list) or len(ring) < 4 or ring[0] != ring[-1]:
        raise _FaultError(f"feature {number} has a ring that is not closed")
    for position in ring:
        whole = isinstance(position, list) and 2 <= len(position) <= 3
        if not whole or not all(isinstance(p, (int, float)) and not isinstance(p, bool) for p in position):
            raise _FaultError(f"feature {number} has a position that is no pair of numbers")
        if not all(abs(p) < _FARTHEST for p in position[:2]):  # neither is infinity, nor what is no number
            raise _FaultError(f"feature {number} has a position that is not finite, or far away")
    return np.array([position[:2] for position in ring], np.float64)


def _fill(mask: np.ndarray, polygon: list[np.ndarray]) -> None:
    """Add a polygon to a mask; only the part of the image around it is computed."""
    outer = polygon[0]
    left, top = np.floor(outer.min(axis=0)).astype(int).clip(0)
    right, bottom = np.minimum(np.ceil(outer.max(axis=0)).astype(int), mask.shape[::-1])
    if right <= left or bottom <= top:
        return
    shape, corner = (bottom - top, right - left), np.array([top, left]) + 0.5
    inside = [polygon2mask(shape, ring[:, ::-1] - corner) for ring in polygon]  # whole numbers are pixel centres there
    mask[top:bottom, left:right] |= inside[0] & ~np.any(inside[1:], axis=0) if len(inside) > 1 else inside[0]
