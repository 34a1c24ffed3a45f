# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Fill in outlines as QuPath and this package write them: the mask of a GeoJSON file, corrected by hand or not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from skimage.draw import polygon2mask

from glas_wsol.errors import ImageFileError

__all__ = ["FIRST_LABEL", "MAX_CORNERS", "OUTLINE_SUFFIX", "check_outlines", "read_outlines"]

OUTLINE_SUFFIX = ".geojson"
"""Of the files that are taken for outlines in a folder; a table may name one of any ending."""

FIRST_LABEL = 2**16
"""Label of the first outline, the next has the next one: above every threshold of masks that store votes."""

MAX_CORNERS = 5_000_000
"""Corners of all outlines together, of more than 10 GlaS tiles of noise."""

_LARGEST = 500_000_000  # bytes
_MENDED = 4_000  # corners of a polygon whose rings may touch
_FARTHEST = 1e9  # pixels from the corner
_FIX = "export it again from QuPath as a FeatureCollection of polygons, in pixels"
_NO_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")
_NO_OUTLINES = ("root", "tmacore", "pathrootobject", "tmacoreobject")
_SHOWN = 5  # faults in one message
# what QuPath names a tile of a slide: "slide [d=2,x=1024,y=0,w=512,h=512].png", in pixels of the slide
_REGION = re.compile(r"\[(?:d=(?P<d>[\d.]+),)?x=(?P<x>-?\d+),y=(?P<y>-?\d+),w=(?P<w>\d+),h=(?P<h>\d+)")

_Polygon = list[np.ndarray]  # rings [n, 2] of (x, y), the outer first


def read_outlines(path: str | PathLike[str], height: int, width: int) -> np.ndarray:
    """Fill in every outline of a GeoJSON file.

    Positions are in pixels, as :func:`~glas_wsol.writers.geojson.write_geojson` and QuPath write them: x to the right,
    y down, (0, 0) the upper left corner of the first pixel. A pixel is inside if its centre is; holes are left out, and
    what overlaps is inside once, of the later outline. Parts beyond the image are cut off. Outlines count whatever
    their class, but for ``Undecidable`` and those that QuPath itself ignores, whose names end in ``*``.

    A file that is named as QuPath names a tile of a slide (``slide [x=1024,y=0,w=512,h=512].geojson``) may have the
    tile's own positions or the slide's; of the slide's outlines those in the tile count.

    Args:
        path: a FeatureCollection, a Feature, or a list of features, with Polygons and MultiPolygons, alone or in a
            GeometryCollection.
        height: of the image in pixels.
        width: of it.

    Returns:
        ``[H, W]`` int32: 0 outside, :data:`FIRST_LABEL` and the numbers after it inside the first outline and the next.

    Raises:
        ImageFileError: if the file cannot be read or is not such GeoJSON, with what is wrong with each feature: a line
            or a point, no closed ring of finite numbers, a ring that crosses itself, or no part in the image.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST:
            raise ImageFileError("too large for outlines", path, "leave out what is not needed")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())[:100] or type(error).__name__
        raise ImageFileError(f"cannot be read as GeoJSON ({said})", path, _FIX) from error
    found = _outlines_in(content, path, height, width)
    labels = np.zeros((height, width), np.int32)
    for label, polygons in enumerate(found.values(), start=FIRST_LABEL):
        for polygon in polygons:
            _fill(labels, polygon, label)
    return labels


def check_outlines(content: Any, path: str | PathLike[str], height: int, width: int) -> None:
    """Refuse outlines that :func:`read_outlines` would, without filling them in.

    Args:
        content: of the file, as JSON has it.
        path: of the file, which need not be there.
        height: of the image in pixels.
        width: of it.

    Raises:
        ImageFileError: as there.
    """
    _outlines_in(content, Path(path), height, width)


def _outlines_in(content: Any, path: Path, height: int, width: int) -> dict[int, list[_Polygon]]:
    """The outlines in the image's positions, by the number of their feature."""
    found: dict[int, list[_Polygon]] = {}
    faults = []
    corners = 0
    try:
        for number, geometry in _features(content):
            try:
                found[number] = list(_polygons(geometry))
            except _FaultError as fault:
                faults.append(f"feature {number} {fault}")
            corners += sum(len(ring) for polygon in found.get(number, ()) for ring in polygon)
            if corners > MAX_CORNERS:
                raise ImageFileError(f"more than {MAX_CORNERS} corners", path, "simplify the outlines")
    except _FaultError as fault:
        raise ImageFileError(str(fault), path, _FIX) from None
    if not faults:
        found, faults = _in_tile(found, path.name, height, width)
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise ImageFileError("; ".join(faults[:_SHOWN]) + more, path, "correct or delete these in QuPath, export again")
    return found


class _FaultError(Exception):
    """What is wrong with a part of the file."""


def _features(content: Any) -> Iterator[tuple[int, Any]]:
    """The geometries of outlines, each with the number of its feature from 1."""
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
        said = said if isinstance(said, dict) else {}
        kind = said.get("objectType", said.get("object_type", feature.get("id")))
        name = _class_of(said.get("classification"))
        if name != "Undecidable" and not name.endswith("*") and str(kind).replace("_", "").lower() not in _NO_OUTLINES:
            yield number, feature.get("geometry")


def _class_of(classification: Any) -> str:
    """The name of QuPath's class; one of several parts has them as ``names`` in newer versions."""
    if not isinstance(classification, dict):
        return ""
    names = classification.get("names")
    return ": ".join(map(str, names)) if isinstance(names, list) else str(classification.get("name", ""))


def _polygons(geometry: Any) -> Iterator[_Polygon]:
    """The polygons of one feature; an ellipse or a rectangle of QuPath is one too."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind == "GeometryCollection":
        parts = geometry.get("geometries")
        if not isinstance(parts, list):
            raise _FaultError("has no geometries")
        for part in parts:
            if isinstance(part, dict) and part.get("type") == "GeometryCollection":
                raise _FaultError("has a GeometryCollection in another")
            yield from _polygons(part)
        return
    if kind in _NO_AREA:
        raise _FaultError(f"is a {kind}, which has no area")
    if kind not in ("Polygon", "MultiPolygon"):
        raise _FaultError("is no Polygon or MultiPolygon")
    found = geometry.get("coordinates")
    polygons: list[Any] = found if kind == "MultiPolygon" and isinstance(found, list) else [found]
    if not all(isinstance(polygon, list) and polygon for polygon in polygons):
        raise _FaultError("has no coordinates")
    for polygon in polygons:
        rings = [_ring(ring) for ring in polygon]
        _check_valid(rings)
        yield rings


def _ring(ring: Any) -> np.ndarray:
    if not isinstance(ring, list) or len(ring) < 4 or ring[0] != ring[-1]:
        raise _FaultError("has a ring that is not closed")
    for position in ring:
        whole = isinstance(position, list) and 2 <= len(position) <= 3
        if not whole or not all(isinstance(p, (int, float)) and not isinstance(p, bool) for p in position):
            raise _FaultError("has a position that is no pair of numbers")
        if not all(abs(p) < _FARTHEST for p in position[:2]):  # neither is infinity, nor what is no number
            raise _FaultError("has a position that is not finite, or far away")
    return np.array([position[:2] for position in ring], np.float64)


def _check_valid(rings: _Polygon) -> None:
    """Refuse rings whose inside is not clear; QuPath rounds to hundredths, which may let rings touch or just cross."""
    polygon = shapely.Polygon(rings[0], rings[1:])
    # how far they cross is not asked of a polygon that would take much time and memory
    small = sum(map(len, rings)) <= _MENDED
    if not polygon.is_valid and not (small and abs(shapely.make_valid(polygon).area - polygon.area) <= 0.5):
        reason, _, place = shapely.is_valid_reason(polygon).partition("[")
        what = "has a ring that crosses itself" if "elf" in reason else f"is not valid ({reason.lower()})"
        raise _FaultError(f"{what} at ({', '.join(f'{float(p):.1f}' for p in place.strip(']').split())})")
    if polygon.area == 0:
        raise _FaultError("has an outline without area")


def _in_tile(
    found: dict[int, list[_Polygon]], name: str, height: int, width: int
) -> tuple[dict[int, list[_Polygon]], list[str]]:
    """The outlines in the image's own positions, and what is wrong with them: a feature must reach into the image."""
    apart = [number for number, polygons in found.items() if not _reaches(polygons, (0, 0, width, height))]
    region = _REGION.search(name)
    if region is None or not found:
        what = f"lies outside the image of {width} x {height} px"
        return found, [f"feature {number} {what}" for number in apart]
    x, y, w, h = (int(region[key]) for key in "xywh")
    moved = {number: polys for number, polys in found.items() if _reaches(polys, (x, y, x + w, y + h))}
    if (x, y, w, h) == (0, 0, width, height):
        return moved, []
    if not apart:  # all in the tile by its own positions
        what = f"the outlines may have the positions of the tile or of its slide, as both have pixels at {region[0]}]"
        return found, [f"{what}: rename the file without this part if they are the tile's"] if moved else []
    if not moved:
        return found, [f"feature {number} lies outside the tile {region[0]}]" for number in apart]
    scale = np.array([width / w, height / h])
    return {n: [[(ring - (x, y)) * scale for ring in poly] for poly in polys] for n, polys in moved.items()}, []


def _reaches(polygons: Iterable[_Polygon], box: tuple[float, float, float, float]) -> bool:
    left, top, right, bottom = box
    corners = [(*polygon[0].min(axis=0), *polygon[0].max(axis=0)) for polygon in polygons]
    return any(x0 < right and y0 < bottom and x1 > left and y1 > top for x0, y0, x1, y1 in corners)


def _fill(labels: np.ndarray, polygon: _Polygon, label: int) -> None:
    """Draw a polygon; only the part of the image around each ring is computed."""
    height, width = labels.shape
    window, inside = _inside(polygon[0], (slice(0, height), slice(0, width)))
    for hole in polygon[1:]:
        part, within = _inside(hole, window)
        rows, columns = (slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, window, strict=True))
        inside[rows, columns] &= ~within
    labels[window][inside] = label


def _inside(ring: np.ndarray, bounds: tuple[slice, slice]) -> tuple[tuple[slice, slice], np.ndarray]:
    """The rows and columns around a ring, within bounds, and which of their pixels have their centres inside."""
    rows, columns = bounds
    left, top = np.floor(ring.min(axis=0)).astype(int).clip((columns.start, rows.start), (columns.stop, rows.stop))
    right, bottom = np.ceil(ring.max(axis=0)).astype(int).clip((left, top), (columns.stop, rows.stop))
    window, shape = (slice(top, bottom), slice(left, right)), (bottom - top, right - left)
    if 0 in shape:
        return window, np.zeros(shape, bool)
    return window, polygon2mask(shape, ring[:, ::-1] - (top + 0.5, left + 0.5))  # whole numbers are pixel centres there
