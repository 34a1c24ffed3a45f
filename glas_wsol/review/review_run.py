# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The results under review: their cases, the layers of each, and where its outlines begin."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from glas_wsol.errors import ConfigError, GlasWsolError, OutputError
from glas_wsol.report.cases import Case, number
from glas_wsol.report.run_folder import read_folder
from glas_wsol.results.how_to_read import familiarity_in_words
from glas_wsol.results.polygons import mask_parts, simplified
from glas_wsol.review.layer_tiles import Pixels, array_pixels, read_values, slide_pixels
from glas_wsol.review.outline_edits import contours, read_geometry
from glas_wsol.transforms.reading import read_mask, read_rgb
from glas_wsol.utils.json_files import RESULTS, read_json
from glas_wsol.writers.geojson import CLASS_COLORS, EDITABLE, annotation

__all__ = ["ReviewRun"]

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "glas_wsol/review/review_run")
_AT_ONCE = 8  # images and layers that are kept in memory
_MAP_PIXELS = 40_000_000  # of a slide's soft map that is outlined at once
_AROUND = 0.25  # of a selected outline's box, on each side

_TITLES = {
    "mask": "Mask of the model",
    "map": "Soft map R+",
    "uncertainty": "Uncertainty",
    "truth": "True mask",
    "new": "Mask of the new model",
    "changed": "Changed (blue added, orange left out)",
}
_HOW = {
    "mask": "predict again with --formats png",
    "map": "predict again with --formats png png_map; the threshold needs it too",
    "uncertainty": "predict again with --formats png uncertainty",
}
_HOW_SLIDE = {"mask": "predict again with --formats tiff", "map": "predict again with --formats tiff"}


class ReviewRun:
    """A folder of results, read once.

    Args:
        folder: that predict or evaluate wrote.

    Raises:
        OutputError: if there are no results, or they are damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        found = read_folder(folder)
        self.root, self.place = Path(folder).resolve(), found.place.resolve()
        self.alarm, self.trained_on = found.alarm, found.trained_on
        self.classes = tuple(dict(found.entry.get("probabilities") or found.entry.get("class_shares") or {}))
        self._cleaning = {
            key: number(found.made_with.get(f"postprocessing#{key}")) or 0
            for key in ("hole_area", "speck_area", "training_mpp")
        }
        self.cases = tuple(case for case in found.cases if not case.failed and _is_name(case.name))
        self.left_out = len(found.cases) - len(self.cases)
        if not self.cases:
            raise OutputError("there is no image with a result here", self.root, "name the folder that predict wrote")
        self._learnt: tuple[Path | None, Mapping[str, str]] = (None, {})
        self._lock = threading.Lock()
        self._pixels = lru_cache(_AT_ONCE)(self._open)

    def row(self, index: int, state: str) -> dict[str, Any]:
        """What the list of cases shows of one."""
        case = self.cases[index]
        return {
            "id": index,
            "name": case.name,
            "said": case.said,
            "probability": case.probability,
            "decidable": case.decidable,
            "uncertainty": case.uncertainty,
            "familiarity": case.familiarity,
            "unlike": bool(case.strange),
            "evidence": case.evidence,
            "slide": bool(case.slide),
            "wrong": case.wrong,
            "state": state,
        }

    def details(self, index: int) -> dict[str, Any]:
        """What the viewer needs of a case: its size, layers, those that are missing, and remarks."""
        case = self.cases[index]
        image = self.pixels(index, "image")
        found = {key: self._layer(index, key) for key in _TITLES}
        known = None if case.familiarity is None else familiarity_in_words(case.familiarity)
        remarks = [case.reason, case.note, case.pixel_size, known]
        scores = {part: dict(one.probabilities) for part, one in case.class_scores.items()}
        return {
            **self.row(index, ""),
            "image": {"key": "image", "title": "Image", **_grid(image)},
            "mpp": case.mpp,
            "threshold": case.threshold,
            "layers": [one for one in found.values() if isinstance(one, dict)],
            "missing": [one for one in found.values() if isinstance(one, str) and one],
            "scores": scores,
            "probabilities": dict(case.probabilities),
            "truth": case.truth,
            "remarks": [remark for remark in remarks if remark],
        }

    def _layer(self, index: int, key: str) -> dict[str, Any] | str:
        """A layer, or why it is missing; empty where it is not to be expected."""
        case, title = self.cases[index], _TITLES[key]
        try:
            return {"key": key, "title": title, **_grid(self.pixels(index, key))}
        except KeyError:
            how = (_HOW_SLIDE if case.slide else _HOW).get(key)
            return f"{title}: not in these results; {how}" if how and case.evidence else ""
        except GlasWsolError as error:
            return f"{title}: {error}"

    def pixels(self, index: int, layer: str) -> Pixels:
        """An image or a layer.

        Raises:
            KeyError: if the run has no such layer of this case.
            GlasWsolError: if it cannot be read.
        """
        key = str(self._new_mask(index)) if layer in ("new", "changed") else ""
        return self._pixels(index, layer, key)

    def draft(self, index: int) -> dict[str, Any]:
        """The outlines of the model, with few corners: where a person begins.

        Raises:
            OutputError: if the slide has no outlines.
        """
        case = self.cases[index]
        said = {"Draft": f"{self.trained_on}, threshold {case.threshold:g}"}
        if self.alarm is not None:
            said["Training run"] = str(self.alarm)
        if case.slide:
            path = self._file(f"slides/{case.name}/outlines.geojson")
            if path is None:
                fix = "predict this slide again with --formats tiff geojson"
                raise OutputError("the slide has no outlines", case.name, fix)
            try:
                features = list(read_json(path, RESULTS)["features"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise OutputError("these outlines are damaged", path, "predict this slide again") from error
        else:
            mask = self._mask(index)
            parts = [] if mask is None else list(mask_parts(mask))
            features = [
                annotation(
                    uuid.uuid5(_NAMESPACE, f"{part.row} {part.column} {case.name}"),
                    f"{case.name}: decidable",
                    simplified(part.polygons, EDITABLE),
                    self.classification(index),
                    {"Area px": part.area},
                )
                for part in parts
            ]
        # as it comes back from the page: lists in the place of tuples
        return json.loads(json.dumps({"type": "FeatureCollection", "metadata": said, "features": features}))

    def classification(self, index: int) -> dict[str, Any]:
        """Class and colour of the outlines of a case, as the package's writers have them."""
        said = self.cases[index].said
        at = self.classes.index(said) if said in self.classes else 0
        return {"name": said if said in self.classes else "Decidable", "color": list(CLASS_COLORS[at % 6])}

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of the image, px."""
        image = self.pixels(index, "image")
        return image.width, image.height

    def contour(self, index: int, threshold: float, within: Any) -> list[dict[str, Any]]:
        """The model's outlines at another threshold.

        Args:
            threshold: in (0, 1].
            within: a geometry: the outlines that overlap it; None for all of a tile.

        Raises:
            ConfigError: where the soft map is not in the results, or no outline of a slide is selected.
        """
        case = self.cases[index]
        chosen = None if within is None else read_geometry(within).buffer(0)
        if case.slide:
            found = self._slide_contour(index, threshold, chosen)
        else:
            path = self._tile_file(case, "maps")
            if path is None:
                raise ConfigError("these results have no soft map", fix=_HOW["map"])
            area, mpp = 1.0, case.mpp
            if mpp and self._cleaning["training_mpp"]:
                area = self._cleaning["training_mpp"] ** 2 / (mpp[0] * mpp[1])
            holes, specks = (self._cleaning[key] * area for key in ("hole_area", "speck_area"))
            found = contours(read_values(path), threshold, holes, specks)
        if chosen is None:
            return found
        return [one for one in found if read_geometry(one).buffer(0).intersection(chosen).area > 0]

    def take_learnt(self, folder: Path | None) -> None:
        """Show the masks of a new model beside those of this run.

        Args:
            folder: that predict wrote; None for none.
        """
        names = {}
        if folder is not None:
            entries = read_json(folder / "predictions.json", RESULTS)
            names = {str(Path(entry["path"]).resolve()): str(entry["name"]) for entry in entries}
        with self._lock:
            self._learnt = folder, names

    def has_new(self, index: int) -> bool:
        """Whether a new model has a mask of this case."""
        return self._new_mask(index) is not None

    def _open(self, index: int, layer: str, new: str) -> Pixels:
        case = self.cases[index]
        if layer == "image":
            return slide_pixels(Path(case.slide), case.mpp) if case.slide else array_pixels(read_rgb(case.image))
        if case.slide and layer in ("mask", "map"):
            path = self._file(f"slides/{case.name}/{layer}.tif")
            return slide_pixels(_known(path), (1.0, 1.0))
        if layer == "truth" and not case.slide:
            width, height = self.size(index)
            return array_pixels((read_mask(_known(case.outlines), size=(height, width)) > 0).astype(np.uint8) * 255)
        if layer in ("map", "uncertainty") and not case.slide:
            kind = "maps" if layer == "map" else layer
            values = read_values(_known(self._tile_file(case, kind)))
            return array_pixels((values * 255).round().astype(np.uint8))
        if layer == "mask" and not case.slide:
            return array_pixels(_known(self._mask(index)).astype(np.uint8) * 255)
        if layer in ("new", "changed") and new != "None" and not case.slide:
            mask = read_values(Path(new)) > 0.5
            if layer == "new":
                return array_pixels(mask.astype(np.uint8) * 255)
            old = _known(self._mask(index))
            return array_pixels((mask & ~old) + (old & ~mask) * np.uint8(2), smooth=False)
        raise KeyError(layer)

    def _mask(self, index: int) -> np.ndarray | None:
        path = self._tile_file(self.cases[index], "masks")
        return None if path is None else read_values(path) > 0.5

    def _new_mask(self, index: int) -> Path | None:
        with self._lock:
            folder, names = self._learnt
        if folder is None:
            return None
        name = names.get(str(Path(self.cases[index].image).resolve()))
        return None if name is None else self._file(f"masks/{name}.png", folder)

    def _tile_file(self, case: Case, kind: str) -> Path | None:
        paths = (self._file(f"{kind}/{case.name}{suffix}") for suffix in (".png", ".tif"))
        return next((path for path in paths if path is not None), None)

    def _file(self, below: str, place: Path | None = None) -> Path | None:
        """A file of the run; what a link or a name leads out of it is none."""
        path = (place or self.place) / below
        return path if path.is_file() and path.resolve().is_relative_to(self.root) else None

    def _slide_contour(self, index: int, threshold: float, chosen: Any) -> list[dict[str, Any]]:
        if chosen is None:
            raise ConfigError("all of a slide at once takes too long", fix="select an outline first")
        width, height = self.size(index)
        values = self.pixels(index, "map")
        across, down = width / values.width, height / values.height
        x0, y0, x1, y1 = chosen.bounds
        more = _AROUND * max(x1 - x0, y1 - y0)
        left, top = max(0, int((x0 - more) / across)), max(0, int((y0 - more) / down))
        right = min(values.width, int((x1 + more) / across) + 1)
        bottom = min(values.height, int((y1 + more) / down) + 1)
        if not 0 < (right - left) * (bottom - top) <= _MAP_PIXELS:
            raise ConfigError("this outline is too large for the threshold", fix="split it first")
        part = values.part((left, top, right, bottom), 1)
        found = contours(part[..., 0].astype(np.float32) / 255, threshold, corner=(left, top))
        return [_scaled(one, across, down) for one in found]


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and name == Path(name).name and "\\" not in name and "\0" not in name


def _known(value: Any) -> Any:
    if value is None:
        raise KeyError("not in these results")
    return value


def _grid(pixels: Pixels) -> dict[str, int]:
    return {"width": pixels.width, "height": pixels.height, "levels": pixels.levels}


def _scaled(geometry: Mapping[str, Any], across: float, down: float) -> dict[str, Any]:
    def scaled(value: Any) -> Any:
        if isinstance(value[0], (int, float)):
            return [round(value[0] * across, 2), round(value[1] * down, 2)]
        return [scaled(one) for one in value]

    return {"type": geometry["type"], "coordinates": scaled(geometry["coordinates"])}


Suggest = Callable[[Path, int], list[dict[str, Any]]]
"""The images to correct first, given the folder of results and how many."""
