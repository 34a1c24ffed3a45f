# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Makes small pictures of one image for the page: the tile once, and outlines to clip it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import label as connected_parts
from scipy.ndimage import uniform_filter
from skimage.measure import approximate_polygon

from glas_wsol.results.polygons import Ring, trace_polygons
from glas_wsol.writers.drawing import draw_mask

__all__ = ["LEAST_BYTES", "Pictures", "draw_pictures", "outline", "to_jpeg"]

LEAST_BYTES = 8_000
"""Fewest bytes an image may be given: below, a tile shows nothing."""

_URI = "data:image/jpeg;base64,"
_SIDES = (  # longer side in px, quality
    *((720, 82), (720, 70), (640, 70), (640, 60), (560, 60), (560, 50), (480, 60), (480, 50), (400, 55)),
    *((320, 55), (240, 50), (160, 45), (96, 35), (48, 30)),
)
_THUMBS = ((128, 72), (112, 64), (96, 55), (72, 45), (48, 40), (32, 30))
_SPECK = 9  # px of the picture: smaller parts and holes are not outlined
_MOST_CORNERS, _COARSER = 5_000, (3, 7, 15, 31)  # of all outlines; px over which one with more is smoothed
_TOLERANCES = (1.0, 1.5, 3.0, 6.0, 12.0, 24.0)


@dataclass(frozen=True)
class Pictures:
    """What is drawn of one image.

    Attributes:
        width: of the drawing: the outlines' unit. The tile may be smaller.
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
    # Outlines may take a fifth of the bytes and the thumbnail a tenth; the tile has what is left. base64 makes 4 of 3.
    size = _within(tile.shape[1], tile.shape[0], _SIDES[0][0])
    found, true = (None if region is None else _reduced(region, size) for region in (mask, truth))
    outlines = [None if region is None else outline(region, limit // 10) for region in (found, true)]
    thumbnail = _thumbnail(tile, found, int(0.1 * limit * 3 / 4))
    left = limit - len(thumbnail) - len(_URI) - sum(len(one or "") for one in outlines)
    return Pictures(*size, _URI + to_jpeg(tile, int(left * 3 / 4) - 3, _SIDES), thumbnail, *outlines)


def to_jpeg(pixels: np.ndarray, limit: int, ladder: Sequence[tuple[int, int]]) -> str:
    """The largest and best JPEG of a ladder that fits, in base64; the smallest if none does.

    Args:
        pixels: ``[H, W, 3]`` uint8.
        limit: bytes of the file.
        ladder: longer side in px, and quality; nothing is enlarged.
    """
    whole = reduced = Image.fromarray(pixels)
    for side, quality in ladder:
        size = _within(*whole.size, side)
        if size != reduced.size:
            reduced = whole.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
        file = io.BytesIO()
        reduced.save(file, format="JPEG", quality=quality, optimize=True)
        if file.tell() <= limit:
            break
    return base64.b64encode(file.getvalue()).decode("ascii")


def _within(width: int, height: int, side: int) -> tuple[int, int]:
    """The size of an image whose longer side is at most ``side``."""
    factor = min(1.0, side / max(width, height))
    return max(1, round(factor * width)), max(1, round(factor * height))


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
    return _URI + to_jpeg(tile, limit, _THUMBS)


def outline(mask: np.ndarray, limit: int) -> str:
    """Outlines as SVG path, filled by ``evenodd``, no longer than a limit: without specks and small corners."""
    rings = _rings(mask)
    for side in _COARSER:
        if sum(map(len, rings)) <= _MOST_CORNERS:
            break
        rings = _rings(uniform_filter(mask.astype(np.float32), side) >= 0.5)
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


def _rings(mask: np.ndarray) -> list[np.ndarray]:
    cleaned = ~_without_specks(~_without_specks(mask))
    return [np.asarray(ring) for polygon in trace_polygons(cleaned) for ring in polygon]


def _without_specks(mask: np.ndarray) -> np.ndarray:
    parts, _ = connected_parts(mask)
    return mask & (np.bincount(parts.ravel())[parts] >= _SPECK)


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
