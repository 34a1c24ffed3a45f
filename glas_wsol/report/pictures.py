# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The pictures of one image, small enough for five hundred on a page: the tile once, and outlines to cut it by."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from skimage.measure import approximate_polygon

from glas_wsol.polygons import Ring, trace_polygons
from glas_wsol.transforms.regions import clean_regions
from glas_wsol.writers.images import draw_mask

__all__ = ["LEAST_BYTES", "Pictures", "draw_pictures", "outline", "to_jpeg"]

LEAST_BYTES = 8_000
"""Fewest bytes an image may be given: below, a tile shows nothing."""

_URI = "data:image/jpeg;base64,"
_SIDES = ((720, 82), (640, 80), (640, 70), (560, 68), (480, 66), (400, 64), (320, 60), (240, 55), (160, 45), (96, 35))
_THUMBS = ((128, 72), (112, 64), (96, 55), (72, 45), (48, 40), (32, 30))
_SPECK = 9  # px of the picture: smaller parts and holes are not outlined
_TOLERANCES = (1.0, 1.5, 3.0, 6.0, 12.0, 24.0)


@dataclass(frozen=True)
class Pictures:
    """What is drawn of one image.

    Attributes:
        width: of the tile as drawn, px; the outlines' unit.
        height: the same.
        tile: data URI, JPEG.
        thumbnail: data URI, JPEG: the tile, faded where undecidable.
        decidable: outline of the mask as SVG path data, to be filled by ``evenodd``; empty if the mask is; None where
            there is no mask's file.
        truth: the same of the true mask.
    """

    width: int
    height: int
    tile: str
    thumbnail: str
    decidable: str | None
    truth: str | None

    @property
    def bytes(self) -> int:
        """What they add to a page."""
        return sum(len(part) for part in (self.tile, self.thumbnail, self.decidable or "", self.truth or ""))


def draw_pictures(tile: np.ndarray, mask: np.ndarray | None, truth: np.ndarray | None, limit: int) -> Pictures:
    """Draw an image within a number of bytes.

    Args:
        tile: ``[H, W, 3]`` uint8.
        mask: the decidable part, ``[H, W]`` bool; None where unknown.
        truth: the true mask, ``[H, W]`` bool; None where unknown.
        limit: bytes for everything together, at least :data:`LEAST_BYTES`.
    """
    # Of the bytes, outlines may take a fifth and the thumbnail a tenth; base64 makes 4 of 3.
    picture = to_jpeg(tile, int(0.7 * (limit - 2 * len(_URI)) * 3 / 4), _SIDES)
    found, true = (None if region is None else _reduced(region, picture.size) for region in (mask, truth))
    thumbnail = _thumbnail(tile, found, int(0.1 * limit * 3 / 4))
    outlines = [None if region is None else outline(region, limit // 10) for region in (found, true)]
    return Pictures(*picture.size, _URI + picture.base64, thumbnail, *outlines)


@dataclass(frozen=True)
class _Jpeg:
    size: tuple[int, int]
    base64: str


def to_jpeg(pixels: np.ndarray, limit: int, ladder: tuple[tuple[int, int], ...] = _SIDES) -> _Jpeg:
    """The largest and best JPEG of a ladder that fits; the smallest if none does.

    Args:
        pixels: ``[H, W, 3]`` uint8.
        limit: bytes of the file.
        ladder: longer side in px, and quality; nothing is enlarged.
    """
    whole = Image.fromarray(pixels)
    for side, quality in ladder:
        factor = min(1.0, side / max(whole.size))
        size = tuple(max(1, round(factor * length)) for length in whole.size)
        reduced = whole if size == whole.size else whole.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
        file = io.BytesIO()
        reduced.save(file, format="JPEG", quality=quality, optimize=True)
        if file.tell() <= limit:
            break
    return _Jpeg(reduced.size, base64.b64encode(file.getvalue()).decode("ascii"))


def _reduced(region: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask at another size: a pixel is in it if half of what it shows is."""
    if size == region.shape[::-1]:
        return region
    picture = Image.fromarray(region.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    return np.asarray(picture) >= 128


def _thumbnail(tile: np.ndarray, found: np.ndarray | None, limit: int) -> str:
    if found is not None:  # drawn larger, so that its line is fine
        size = found.shape[::-1]
        tile = np.asarray(Image.fromarray(tile).resize(size, Image.Resampling.LANCZOS, reducing_gap=3))
        if found.any():
            tile = draw_mask(tile, found.astype(np.float32), found, line=max(1, max(size) // 180))
    return _URI + to_jpeg(tile, limit, _THUMBS).base64


def outline(mask: np.ndarray, limit: int) -> str:
    """Outlines of a mask as SVG path data, no longer than a limit: specks and small corners are left out for it.

    Args:
        mask: ``[H, W]`` bool.
        limit: characters.

    Returns:
        Closed rings in pixels, (0, 0) the upper left corner, to be filled by the rule ``evenodd``.
    """
    cleaned = clean_regions(mask.astype(np.float32), _SPECK, _SPECK) >= 0.5
    rings = [np.asarray(ring) for polygon in trace_polygons(cleaned) for ring in polygon]
    text = ""
    for tolerance in _TOLERANCES:
        rings = [ring for ring in rings if _area(ring) >= tolerance**2]
        kept = (approximate_polygon(ring, tolerance) for ring in rings)
        text = "".join(_path(ring.tolist()) for ring in kept if len(ring) > 3)
        if len(text) <= limit:
            return text
    # Thousands of parts: the longest outlines that fit.
    kept, room = [], limit
    for piece in sorted(text.split("z")[:-1], key=len, reverse=True):
        room -= len(piece) + 1
        if room < 0:
            break
        kept.append(f"{piece}z")
    return "".join(kept)


def _area(ring: np.ndarray) -> float:
    (x, y), (next_x, next_y) = ring[:-1].T, ring[1:].T
    return abs(float((x * next_y - next_x * y).sum())) / 2


def _path(ring: Ring) -> str:
    (x, y), *rest = ring[:-1]
    steps = []
    for to_x, to_y in rest:
        steps.append(f"{to_x - x} {to_y - y}")
        x, y = to_x, to_y
    return f"M{ring[0][0]} {ring[0][1]}l{' '.join(steps)}z"
