# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Edit outlines: join, split, add and erase with a brush, fill holes; and outline a soft map at any threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from shapely.geometry import mapping, shape
from shapely.ops import split

from glas_wsol.errors import ConfigError
from glas_wsol.results.polygons import Polygon, mask_parts, simplified
from glas_wsol.transforms.clean_regions import clean_regions
from glas_wsol.writers.geojson import EDITABLE

__all__ = ["contours", "edited", "geometry_of", "read_geometry"]

_MOST = 2_000_000  # corners of one edit
_LEAST = 1.0  # px2: what is smaller is a crumb of an edit
_DIGITS = 2  # of a position, as QuPath rounds
_AREAS = ("Polygon", "MultiPolygon")


def read_geometry(value: Any, kinds: Sequence[str] = _AREAS) -> Any:
    """A GeoJSON geometry as one of shapely's, its numbers finite.

    Raises:
        ConfigError: if it is none of these kinds.
    """
    try:
        if not isinstance(value, Mapping) or value.get("type") not in kinds:
            raise ValueError(f"no {' or '.join(kinds)}")
        if not all(len(ring) > 3 and ring[0] == ring[-1] for ring in _rings(value)):
            raise ValueError("a ring is not closed")
        found: Any = shape(dict(value))
        corners = shapely.get_coordinates(found)
        if found.is_empty or len(corners) > _MOST or not (np.abs(corners) < 1e9).all():
            raise ValueError("it is empty, too large or has a position that is not finite")
    except (shapely.errors.ShapelyError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ConfigError(f"this outline is not valid ({str(error)[:100]})", fix="undo the last step") from error
    return found


def geometry_of(polygons: Sequence[Polygon]) -> dict[str, Any]:
    """The GeoJSON geometry of a part's polygons."""
    rings = [[[[float(x), float(y)] for x, y in ring] for ring in polygon] for polygon in polygons]
    single = len(rings) == 1
    return {"type": "Polygon" if single else "MultiPolygon", "coordinates": rings[0] if single else rings}


def edited(request: Mapping[str, Any], width: int, height: int) -> list[dict[str, Any]]:
    """Do one edit.

    Args:
        request: ``op``, one of ``join``, ``split``, ``add``, ``erase``, ``fill``, ``mend``; ``outlines``, geometries;
            and for some ``line``, a LineString, or ``radius`` of the brush in px.
        width: of the image: nothing reaches beyond it.
        height: of it.

    Returns:
        The geometries in the place of those given: one, several after a split, none where all was erased.

    Raises:
        ConfigError: if the request is not valid, or the line does not cross the outline.
    """
    given = [read_geometry(one) for one in request.get("outlines") or ()]
    op = request.get("op")
    valid = [one if one.is_valid else shapely.make_valid(one) for one in given]
    whole: Any = shapely.union_all(valid)
    if op == "join":
        found: list[Any] = [whole]
    elif op == "split":
        line = read_geometry(request.get("line"), ("LineString",))
        found = [one for polygon in shapely.get_parts(whole) if polygon.area for one in split(polygon, line).geoms]
        if len(found) <= len(shapely.get_parts(whole)):
            raise ConfigError("the line does not cross the outline", fix="draw it from outside to outside")
    elif op in ("add", "erase"):
        stroke = read_geometry(request.get("line"), ("LineString", "Point")).buffer(_radius(request.get("radius")))
        stroke = stroke.simplify(0.25)
        found = [whole.union(stroke) if op == "add" else whole.difference(stroke)]
    elif op == "fill":
        found = [shapely.MultiPolygon([shapely.Polygon(one.exterior) for one in _polygons(whole)])]
        found = [shapely.union_all(found)]
    elif op == "mend":
        found = list(valid)
    else:
        raise ConfigError(f"there is no edit {str(op)[:20]!r}", fix="load the page again")
    image = shapely.box(0, 0, width, height)
    made = [one for shapes in found if (one := _cleaned(shapes.intersection(image))) is not None]
    if len(made) == len(given) == 1 and given[0].is_valid and shape(made[0]).equals(given[0]):
        return [dict(request["outlines"][0])]  # nothing changed, not even the order of the corners
    return made


def contours(
    values: np.ndarray, threshold: float, hole_area: float = 0, speck_area: float = 0, corner: tuple[int, int] = (0, 0)
) -> list[dict[str, Any]]:
    """The outlines of a soft map at a threshold, with few corners, as geometries.

    Args:
        values: ``[H, W]`` in 0..1.
        threshold: in 0..1.
        hole_area: px, as of the run that made the map.
        speck_area: px, the same.
        corner: of the map in its image: ``(x, y)``.
    """
    mask = clean_regions(values, threshold, hole_area, speck_area)
    parts = (simplified(part.polygons, EDITABLE) for part in mask_parts(mask))
    moved = ([[[(x + corner[0], y + corner[1]) for x, y in ring] for ring in one] for one in part] for part in parts)
    return [geometry_of(part) for part in moved]


def _rings(value: Mapping[str, Any]) -> list[Any]:
    polygons = {"Polygon": [value.get("coordinates")], "MultiPolygon": value.get("coordinates")}
    return [ring for polygon in polygons.get(value["type"], []) for ring in polygon]


def _radius(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.5 <= value <= 100_000:
        raise ConfigError("the brush has no valid radius", fix="choose another size")
    return float(value)


def _polygons(geometry: shapely.Geometry) -> list[Any]:
    return [one for one in shapely.get_parts(geometry) if one.geom_type == "Polygon" and one.area >= _LEAST]


def _cleaned(geometry: shapely.Geometry) -> dict[str, Any] | None:
    """Its polygons as GeoJSON, rounded so that they stay valid, crumbs left out; None where nothing is left."""
    parts = _polygons(shapely.make_valid(geometry))
    rounded = shapely.set_precision(shapely.MultiPolygon(parts), 10.0**-_DIGITS)
    parts = _polygons(rounded)
    if not parts:
        return None
    found = mapping(parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts))
    return {"type": found["type"], "coordinates": _lists(found["coordinates"])}


def _lists(value: Any) -> Any:
    return [_lists(one) for one in value] if isinstance(value, (tuple, list)) else round(value, _DIGITS)
