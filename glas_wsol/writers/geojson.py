# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Writes the decidable region as annotations for QuPath: GeoJSON with one feature per part of the mask."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from glas_wsol.results.how_to_read import familiarity_in_words
from glas_wsol.results.localization import Localization
from glas_wsol.results.polygons import MaskPart, mask_parts, simplified
from glas_wsol.utils.atomic_files import atomic_write

__all__ = ["CLASS_COLORS", "EDITABLE", "annotation", "features", "write_geojson"]

CLASS_COLORS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))
"""Of the classes in label order, from the start again after the last: red, green, blue; told apart by colour-blind
readers too (Okabe and Ito, Color Universal Design, 2008; without its yellow and black, hard to see on tissue)."""

EDITABLE = 1.5
"""Tolerance of outlines that a hand is to correct, in px."""

_REST_COLOR = (150, 150, 150)
# ids are digests of an image's name and a place in it, under this project's own namespace
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "glas_wsol/writers/geojson")


def write_geojson(
    path: str | PathLike[str], found: Localization, *, undecidable: bool = False, tolerance: float = 0
) -> None:
    """Write the mask's outlines, feature by feature, as a file that QuPath opens by dragging it onto the image.

    A FeatureCollection of RFC 7946 with a member ``metadata`` (texts) besides, except that positions are pixels and not
    degrees, as QuPath's are: x to the right, y down, (0, 0) the upper left corner of the image's first pixel. An image
    without evidence has no features.

    Args:
        undecidable: whether to outline the undecidable rest of the image too. Defaults to False.
        tolerance: how far outlines may run beside the pixels' edges, in px. 0 (default): exact; :data:`EDITABLE`: with
            about a tenth of the corners, to be corrected by hand.
    """
    with atomic_write(path, "w", newline="\n") as file:
        origin = json.dumps(_origin(found), ensure_ascii=False)
        file.write(f'{{"type": "FeatureCollection", "metadata": {origin}, "features": [')
        separator = "\n"
        for feature in features(found, undecidable=undecidable, tolerance=tolerance):
            file.write(separator + json.dumps(feature, ensure_ascii=False, allow_nan=False))
            separator = ",\n"
        file.write("\n]}\n")


def features(found: Localization, *, undecidable: bool = False, tolerance: float = 0) -> Iterator[dict[str, Any]]:
    """The parts of the mask as GeoJSON features, those of the decidable region first.

    Outlines run along the edges of the pixels, so that a polygon's area is its number of pixels and filling it in
    gives the mask again; see :func:`~glas_wsol.results.polygons.trace_polygons` for rings and their sense. A
    part is as for
    :attr:`~glas_wsol.results.Localization.boxes`, with none left out for its size: a Polygon, or a MultiPolygon
    where it hangs together by corners only. Ids depend on the image's name and the part's first pixel alone.

    Args:
        undecidable: whether the undecidable region is outlined too.
        tolerance: of simplified outlines in px; measurements are of the exact ones. 0 (default): exact.

    Yields:
        Features with QuPath's ``objectType``, ``classification`` (class and colour; ``Decidable`` where no class is
        named), ``metadata`` (what the model was trained on, the alarm of its training run) and ``measurements``:
        ``Area px``, ``Area um^2`` where pixels have a size, ``Mean R+`` (mean soft decidable value, in [0, 1]); of the
        decidable region ``Probability: CLASS`` of every class, and of the undecidable region ``Probability of the
        undecidable region: CLASS`` where a classifier scored that region and its score is meaningful.
    """
    chances = _chances(found, "Probability", found.probabilities)
    other = found.class_scores.regions[1]
    others = _chances(found, "Probability of the undecidable region", () if other is None else other.probabilities)
    colour = CLASS_COLORS[found.labels[0] % len(CLASS_COLORS)] if found.labels else CLASS_COLORS[0]
    decidable = {"name": found.predicted if found.named else "Decidable", "color": list(colour)}
    for part in mask_parts(found.mask):
        yield _feature(found, part, "decidable", decidable, chances, tolerance)
    rest = {"name": "Undecidable", "color": list(_REST_COLOR)}
    if undecidable and found.evidence:
        for part in mask_parts(found.undecidable_mask):
            yield _feature(found, part, "undecidable", rest, others, tolerance)


def _origin(found: Localization) -> dict[str, str]:
    """What a reader of the outlines must know of the model and of the result; texts, as QuPath's metadata are."""
    alarm = found.provenance.alarm if found.provenance else None
    said = {"Model": found.trained_on, "Training run": "" if alarm is None else str(alarm), "Remark": found.remark}
    said["Pixel size"] = found.pixel_size_remark
    if found.familiarity is not None:
        said["Image"] = familiarity_in_words(found.familiarity)
    return {key: text for key, text in said.items() if text}


def _chances(found: Localization, what: str, probabilities: tuple[float, ...]) -> dict[str, float]:
    pairs = zip(found.classes, probabilities, strict=True) if probabilities else ()
    return {f"{what}: {name}": round(p, 6) for name, p in pairs}


def _feature(
    found: Localization,
    part: MaskPart,
    kind: str,
    classification: dict[str, Any],
    more: dict[str, float],
    tolerance: float,
) -> dict[str, Any]:
    polygons = simplified(part.polygons, tolerance) if tolerance else part.polygons
    mean = float(found.decidable[part.region][part.pixels].mean(dtype=np.float64))
    measurements: dict[str, float] = {"Area px": part.area}
    area = found.square_micrometres(part.area)
    if area is not None:
        measurements["Area um^2"] = round(area, 6)
    measurements |= {"Mean R+": round(mean, 6), **more}
    identifier = uuid.uuid5(_NAMESPACE, f"{kind} {part.row} {part.column} {found.name}")
    feature = annotation(identifier, f"{found.name}: {kind}", polygons, classification, measurements)
    feature["properties"]["metadata"] = _origin(found)
    return feature


def annotation(
    identifier: uuid.UUID,
    name: str,
    polygons: Sequence[Sequence[Any]],
    classification: Mapping[str, Any],
    measurements: Mapping[str, float],
) -> dict[str, Any]:
    """One annotation of QuPath, as a GeoJSON feature.

    Args:
        identifier: of the annotation; the same one in every run.
        name: as QuPath lists it.
        polygons: each a list of rings, the outer first.
        classification: ``name`` and ``color``.
        measurements: as QuPath lists them.
    """
    single = len(polygons) == 1
    return {
        "type": "Feature",
        "id": str(identifier),
        "geometry": {
            "type": "Polygon" if single else "MultiPolygon",
            "coordinates": polygons[0] if single else polygons,
        },
        "properties": {
            "objectType": "annotation",
            "name": name,
            "classification": classification,
            "isLocked": False,
            "measurements": measurements,
        },
    }
