# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Convert the stored samples of a PNG, JPEG, TIFF or BMP image into the RGB image that a viewer shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from glas_wsol.errors import ImageFileError

__all__ = ["Alpha", "Colour", "Samples", "check_size", "to_rgb"]

Colour = Literal["grey", "white is zero", "RGB", "palette", "CMYK", "YCbCr"]
Alpha = Literal["none", "unassociated", "associated"]


@dataclass(frozen=True)
class Samples:
    """The samples of an image as its file stores them.

    Attributes:
        values: ``[H, W, S]``: the channels of the colour, then alpha where there is one.
        colour: what the channels are. "white is zero" is grey whose 0 is white.
        white: the largest value of unsigned samples, ``2**bits - 1``.
        alpha: whether the last channel is alpha; "associated" where the colours are multiplied by it already.
        palette: ``[n, 4]`` uint8, the RGBA colours of a palette.
        transparent: the one stored colour (S values) that is transparent, or None.
        orientation: the EXIF orientation, 1 to 8.
        lossy: whether they were compressed as JPEG, so that neighbours have changed each other.
    """

    values: np.ndarray
    colour: Colour
    white: int = 255
    alpha: Alpha = "none"
    palette: np.ndarray | None = None
    transparent: tuple[int, ...] | None = None
    orientation: int = 1
    lossy: bool = False

    @property
    def colours(self) -> np.ndarray:
        """``[H, W, C]`` without alpha."""
        return self.values if self.alpha == "none" else self.values[..., :-1]


def check_size(width: int, height: int, max_pixels: int, path: Path) -> None:
    """Refuse an image by its header, before memory is taken for it.

    Raises:
        ImageFileError: on an empty image, or one of more than ``max_pixels``.
    """
    if width < 1 or height < 1:
        raise ImageFileError(f"an image of {width} x {height} pixels", path, "export it again")
    if width * height > max_pixels:
        fix = f"cut it into tiles, or allow it with max_pixels={width * height}"
        raise ImageFileError(f"{width} x {height} pixels are more than the budget of {max_pixels}", path, fix)


def to_rgb(samples: Samples, path: Path) -> np.ndarray:
    """Return ``[H, W, 3]`` uint8 as a viewer shows it, transparency laid on white.

    Unsigned integers of up to 16 bits are scaled from their whole range, floats from 0..1.

    Raises:
        ImageFileError: where black and white are unknown, or the palette lacks a colour.
    """
    alpha = None if samples.alpha == "none" else _to_bytes(samples.values[..., -1:], samples.white, path)
    if samples.palette is not None:
        indices = samples.colours[..., 0]
        if indices.max() >= len(samples.palette):
            raise ImageFileError("colours that are not in its palette", path, "export the image again")
        shown = samples.palette[indices]
        rgb, alpha = shown[..., :3], shown[..., 3:] if alpha is None else alpha
    else:
        rgb = _colours_to_rgb(_to_bytes(samples.colours, samples.white, path), samples.colour)
    if samples.transparent is not None:
        rgb = np.where((samples.colours == samples.transparent).all(-1, keepdims=True), np.uint8(255), rgb)
    if alpha is None or alpha.min() == 255:
        return np.ascontiguousarray(rgb)
    light = rgb.astype(np.uint16)
    if samples.alpha == "associated":
        return np.minimum(light + (255 - alpha), 255).astype(np.uint8)
    return ((light * alpha + np.uint16(255) * (255 - alpha) + 127) // 255).astype(np.uint8)


def _to_bytes(values: np.ndarray, white: int, path: Path) -> np.ndarray:
    if values.dtype.kind == "f":
        return _unit_to_bytes(values, path)
    if values.dtype.kind != "u" or white > 65535:
        raise ImageFileError("32-bit or signed integers have no agreed white", path, "save it with 8 bits a channel")
    if white == 255:
        return values
    return ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def _unit_to_bytes(values: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ImageFileError("NaN or infinite pixels", path, "save the image with 8 bits a channel")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        what = f"float pixels from {low:g} to {high:g}, of which black and white are unknown"
        raise ImageFileError(what, path, "scale them to 0..1, or save the image with 8 bits a channel")
    return np.rint(values * 255).astype(np.uint8)


def _colours_to_rgb(values: np.ndarray, colour: Colour) -> np.ndarray:
    if colour in ("CMYK", "YCbCr"):
        height, width = values.shape[:2]
        return np.asarray(Image.frombytes(colour, (width, height), values.tobytes()).convert("RGB"))
    if colour == "white is zero":
        values = 255 - values
    return values if colour == "RGB" else np.repeat(values, 3, axis=2)
