# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Cut image and layers of a case into the tiles that the viewer asks for; nothing is copied on the disk."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

from glas_wsol.errors import ImageFileError
from glas_wsol.slides.slide_file import SlideFile, SlideView
from glas_wsol.writers.geojson import CLASS_COLORS

__all__ = ["TILE", "Pixels", "array_pixels", "encoded_tile", "read_values", "slide_pixels", "thumbnail"]

TILE = 512
"""Side of a tile, px."""

_MASKS = {"mask": CLASS_COLORS[0], "new": CLASS_COLORS[2], "truth": CLASS_COLORS[4]}  # colour-blind readers too
_MAPS = {"map": "viridis", "uncertainty": "magma"}
_ADDED, _REMOVED = CLASS_COLORS[0], CLASS_COLORS[1]
_MOST = 178_956_970  # pixels of a layer that is read whole, as of an image


@dataclass(frozen=True)
class Pixels:
    """An image or a layer, of which parts are read.

    Attributes:
        width: px.
        height: px.
        part: from left, top, right, bottom, and how many px one of the result spans, to ``[h, w]`` or ``[h, w, 3]``
            uint8; the result is rounded up to whole pixels.
    """

    width: int
    height: int
    part: Callable[[tuple[int, int, int, int], int], np.ndarray]

    @property
    def levels(self) -> int:
        """Levels of half the size each, until one tile holds the whole."""
        return 1 + max(0, math.ceil(math.log2(max(self.width, self.height) / TILE)))


def array_pixels(array: np.ndarray, *, smooth: bool = True) -> Pixels:
    """Of an image in memory.

    Args:
        array: ``[H, W]`` or ``[H, W, 3]`` uint8.
        smooth: False where values are labels, which have no mean.
    """
    picture = Image.fromarray(array)

    def part(box: tuple[int, int, int, int], every: int) -> np.ndarray:
        left, top, right, bottom = box
        size = math.ceil((right - left) / every), math.ceil((bottom - top) / every)
        how = Image.Resampling.BOX if smooth else Image.Resampling.NEAREST
        return np.asarray(picture.crop(box) if every == 1 else picture.resize(size, how, box))

    return Pixels(picture.width, picture.height, part)


def slide_pixels(path: Path, mpp: tuple[float, float] | None) -> Pixels:
    """Of a slide, or of a layer that is stored as one: its finest level and all that are read from it.

    Args:
        path: of a format that OpenSlide reads.
        mpp: of its pixels, which need not be recorded in it; None as it says.
    """
    slide = SlideFile(path, mpp)
    width, height = slide.size

    def part(box: tuple[int, int, int, int], every: int) -> np.ndarray:
        view = SlideView(slide, math.ceil(width / every), math.ceil(height / every))
        left, top = box[0] // every, box[1] // every
        right, bottom = math.ceil(box[2] / every), math.ceil(box[3] / every)
        return (view.read((top, bottom), (left, right)) * 255).round().astype(np.uint8)

    return Pixels(width, height, part)


def encoded_tile(pixels: Pixels, layer: str, level: int, column: int, row: int) -> tuple[bytes, str]:
    """One tile, filled up beyond the image's border.

    Args:
        layer: ``image``, a layer of values in 0..255 that is coloured, or of labels.
        level: from 0, where one tile holds the whole.
        column: of tiles, from the left.
        row: from the top.

    Returns:
        The file and its media type.

    Raises:
        IndexError: if there is no such tile.
    """
    every = 2 ** (pixels.levels - 1 - level)
    left, top = column * TILE * every, row * TILE * every
    if not 0 <= level < pixels.levels or min(left, top) < 0 or left >= pixels.width or top >= pixels.height:
        raise IndexError("no such tile")
    box = left, top, min(left + TILE * every, pixels.width), min(top + TILE * every, pixels.height)
    found = pixels.part(box, every)
    if layer == "image":
        tile = np.full((TILE, TILE, 3), 255, np.uint8)
        tile[: found.shape[0], : found.shape[1]] = found
        return _encoded(Image.fromarray(tile), "JPEG", quality=90, subsampling=0), "image/jpeg"
    values = np.zeros((TILE, TILE), np.uint8)
    values[: found.shape[0], : found.shape[1]] = found if found.ndim == 2 else found[..., 0]
    return _encoded(Image.fromarray(_colours(layer)[values]), "PNG", compress_level=1), "image/png"


def thumbnail(pixels: Pixels, side: int = 96) -> bytes:
    """A small JPEG of the whole, at most ``side`` px wide and high."""
    every = 2 ** max(0, math.floor(math.log2(max(pixels.width, pixels.height) / side)))
    small = Image.fromarray(pixels.part((0, 0, pixels.width, pixels.height), every))
    small.thumbnail((side, side))
    return _encoded(small, "JPEG", quality=85)


def read_values(path: Path) -> np.ndarray:
    """A layer as a run wrote it: ``[H, W]`` float32 in 0..1, of 8 or 16 bits or float.

    Raises:
        ImageFileError: if it is none.
    """
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > _MOST:
                raise ImageFileError("too large for a layer of a tile", path, "open it in QuPath")
            values = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageFileError("this layer cannot be read", path, "run the command that wrote it again") from error
    if values.ndim != 2:
        raise ImageFileError("this layer is not grey", path, "run the command that wrote it again")
    most = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.int32): 65535, np.dtype(bool): 1}
    return (values / np.float32(most.get(values.dtype, 1))).clip(0, 1).astype(np.float32)


@cache
def _colours(layer: str) -> np.ndarray:
    """``[256, 4]`` uint8: the colour of each value."""
    table = np.zeros((256, 4), np.uint8)
    if layer in _MAPS:
        table[:] = colormaps[_MAPS[layer]](np.arange(256), bytes=True)
    elif layer in _MASKS:
        table[128:] = (*_MASKS[layer], 255)
    else:  # what a new model added and left out
        table[1], table[2] = (*_ADDED, 255), (*_REMOVED, 255)
    return table


def _encoded(picture: Image.Image, format_: str, **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_, **options)
    return file.getvalue()
