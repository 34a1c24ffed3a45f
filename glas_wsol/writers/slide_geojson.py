# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes the parts of a slide's mask as annotations for QuPath, part by part, in px of the slide's level 0."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from os import PathLike
from typing import Any

import numpy as np
import shapely

from glas_wsol.results.polygons import Ring
from glas_wsol.results.slide_localization import SlideLocalization
from glas_wsol.utils.atomic_files import atomic_write
from glas_wsol.writers.geojson import CLASS_COLORS, annotation

__all__ = ["slide_features", "write_slide_geojson"]

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "glas_wsol/writers/slide_geojson")
_TOLERANCE = 0.3  # px of the mask; from half a pixel on, corners are lost on the inner side
_MOST_CORNERS = 20_000  # of a part: beyond, it is smoothed more


def write_slide_geojson(path: str | PathLike[str], found: SlideLocalization, *, exact: bool = False) -> None:
    """Write the outlines, feature by feature, as a file that QuPath opens by dragging it onto the slide.

    Positions are px of level 0, x to the right, y down, (0, 0) the upper left corner of the slide's bounds, as QuPath
    shows it.

    Args:
        exact: whether outlines run along the edges of the mask's pixels, so that filling them in gives the mask again.
            Defaults to False: they are smoothed by less than half a pixel, with fewer corners.
    """
    with atomic_write(path, "w", newline="\n") as file:
        said = {"Model": found.trained_on}
        alarm = found.provenance.alarm if found.provenance else None
        if alarm is not None:
            said["Training run"] = str(alarm)
        file.write(f'{{"type": "FeatureCollection", "metadata": {json.dumps(said, ensure_ascii=False)}, "features": [')
        separator = "\n"
        for feature in slide_features(found, exact=exact):
            file.write(separator + json.dumps(feature, ensure_ascii=False, allow_nan=False))
            separator = ",\n"
        file.write("\n]}\n")


def slide_features(found: SlideLocalization, *, exact: bool = False) -> Iterator[dict[str, Any]]:
    """The parts of the mask as GeoJSON features, see :func:`write_slide_geojson`.

    Args:
        exact: whether outlines are not smoothed.

    Yields:
        Features with QuPath's ``objectType``, ``classification`` (the part's class, ``Decidable`` where none is known)
        and ``measurements``: ``Area um^2``, ``Mean R+`` and ``Probability: CLASS``.
    """
    for number, (part, outlined) in enumerate(found.outlines(), start=1):
        polygons = [[_scaled(ring, found.step) for ring in one] for one in outlined.polygons]
        if not exact:
            polygons = [_smooth(one, found.step) for one in outlined.polygons]
        label = part.label
        colour = CLASS_COLORS[(label or 0) % len(CLASS_COLORS)]
        chances = {
            f"Probability: {name}": round(p, 6) for name, p in zip(found.classes, part.probabilities, strict=False)
        }
        yield annotation(
            uuid.uuid5(_NAMESPACE, f"{part.row} {part.column} {found.name}"),
            f"{found.name}: part {number}",
            polygons,
            {"name": "Decidable" if label is None else found.classes[label], "color": list(colour)},
            {
                "Area um^2": round(found.square_micrometres(part.area), 3),
                "Mean R+": round(part.mean, 6),
                **chances,
            },
        )


def _scaled(ring: Any, step: tuple[float, float]) -> list[list[float]]:
    corners = (np.asarray(ring, np.float64) * step).round(2)
    return corners.tolist()


def _smooth(polygon: list[Ring], step: tuple[float, float]) -> list[list[list[float]]]:
    rings = [_through_edges(ring) for ring in polygon]
    tolerance = _TOLERANCE
    while True:
        # as scikit-image's approximate_polygon, which takes half of what the network does
        lines = shapely.simplify([shapely.LineString(ring) for ring in rings], tolerance, preserve_topology=False)
        smooth = [shapely.get_coordinates(line) for line in lines]
        # a ring of fewer than three corners is none: such a small one stays as it is
        smooth = [new if len(new) > 3 else old for new, old in zip(smooth, rings, strict=True)]
        if sum(map(len, smooth)) <= _MOST_CORNERS or tolerance > 100:
            return [_scaled(ring, step) for ring in smooth]
        tolerance *= 2


def _through_edges(ring: Ring) -> np.ndarray:
    """Through the middles of the pixels' edges, which cuts corners as marching squares do: no ring touches itself."""
    corners = np.asarray(ring, np.float64)
    start, end = corners[:-1], corners[1:]
    along = np.sign(end - start) / 2
    points = np.stack([start + along, end - along], axis=1).reshape(-1, 2)
    kept = points[np.r_[True, (points[1:] != points[:-1]).any(axis=1)]]
    return np.concatenate([kept, kept[:1]]) if (kept[0] != kept[-1]).any() else kept
